"""A change of a node's role, and the wait until its host has carried it out."""

from __future__ import annotations

import time

import click

from pyswarm_cli import exits
from pyswarm_cli.client import Cluster
from pyswarm_cli.commands.node.change import changed, store
from pyswarm_core.errors import PyswarmError
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

WITHIN = 120.0  # seconds
LOOK = 0.25


def change(cluster: Cluster, ref: str, role: spec.NodeRole.ValueType, *, detach: bool) -> None:
    node = store(cluster, ref, lambda stored: changed(stored, None, role, {}, ()))
    name = node.description.hostname or node.id
    word = "manager" if role == spec.NODE_ROLE_MANAGER else "worker"
    if not detach:
        _wait(cluster, node, name, word)
    click.echo(f"Node {name} is a {word}." if not detach else f"Node {name} is to be a {word}.")


def missing(node: pb.Node) -> str:
    """What its host has not done yet, one clause; "" = it is what it is to be. Pure."""
    if node.spec.role == node.role and not node.manager.message:
        return ""
    if node.manager.message:
        return node.manager.message
    return "its agent has not carried it out yet"


def _wait(cluster: Cluster, node: pb.Node, name: str, word: str) -> None:
    until, said = time.monotonic() + WITHIN, ""
    while True:
        try:
            reason = missing(cluster.read(lambda stub: stub.GetNode, control.Ref(ref=node.id)))
        except PyswarmError as error:  # the manager that is demoted may be the one that answered
            reason = str(error)
        if not reason:
            return
        if reason != said:
            click.echo(f"{name}: {reason}", err=True)
            said = reason
        if time.monotonic() > until:
            raise exits.Ended(
                exits.DEADLINE_PASSED,
                f"node {name} is no {word} after {WITHIN:.0f} s: {reason}; it goes on, and 'pyswarm node inspect "
                f"{name}' shows how far it is",
            )
        time.sleep(LOOK)
