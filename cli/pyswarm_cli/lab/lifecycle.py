"""Brings a whole lab up and takes it down again, so that nothing is left."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pyswarm_cli.lab import certificates, cgroups, daemons, layout, membership, registry, switch
from pyswarm_cli.lab import host as hosts
from pyswarm_cli.lab.layout import Host, Lab
from pyswarm_core import contexts
from pyswarm_core.errors import AlreadyExists, PyswarmError

if TYPE_CHECKING:
    from pyswarm_cli.client import Cluster

TOOLS = ("etcd", "docker-registry", "catatonit", "conmon", "skopeo", "buildah", "nft", "ip", "nsenter", "unshare")
READY_SECONDS = 60
JOIN_AT_ONCE = 4

Say = Callable[[str], None]


def up(name: str, host_count: int, manager_count: int, say: Say) -> Lab:
    layout.need_root()
    layout.check(name, host_count, manager_count)
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        raise PyswarmError(f"a lab needs {', '.join(missing)}, which this machine does not have: run 'make setup'")
    with layout.lock():
        if (layout.ROOT / name / "lab.json").exists():
            raise AlreadyExists(f"lab '{name}' is up already; take it down with 'pyswarm lab down --name {name}'")
        lab = Lab(
            name=name,
            octet=layout.free_octet({lab.octet for lab in layout.existing()}),
            host_count=host_count,
            manager_count=manager_count,
            former_context=contexts.current() or "",
        )
        lab.save()
    try:
        _build(lab, say)
    except BaseException:
        say("that failed; taking down what is there")
        keep_logs(lab, say)
        down(lab, say)
        raise
    return lab


def _build(lab: Lab, say: Say) -> None:
    say(f"making {lab.host_count} hosts on 10.{lab.octet}.0.0/16")
    for host in lab.hosts:
        hosts.prepare(lab, host)
    registry_ca = certificates.certify_registry(lab)
    switch.make(lab)
    registry.start(lab)
    for host in lab.hosts:
        hosts.boot(lab, host)
    first, *others = lab.hosts
    say(f"making the cluster on {first.name}")
    rights = membership.init(lab, first)
    start_daemons(lab, first)
    contexts.save(
        context_name(lab),
        replace(
            rights,
            managers=lab.manager_addresses,
            hosts={layout.REGISTRY_NAME: lab.gateway},
            registry_ca={lab.registry: registry_ca.decode()},
        ),
    )
    contexts.select(context_name(lab))
    if others:
        say(f"{len(others)} hosts join")
        join(lab, others)
    hosts.wait_until(lambda: registry.answers(lab), 20, "the registry did not answer")
    say("waiting for the nodes")
    wait_ready(lab, {h.name for h in lab.hosts})
    say(f"lab {lab.name} is ready")


def context_name(lab: Lab) -> str:
    return lab.name


def join(lab: Lab, others: Sequence[Host]) -> None:
    """Makes them nodes of the cluster of the first host, and starts their daemons."""
    from pyswarm_cli.bootstrap import steps

    with _cluster(lab) as cluster:
        tokens = steps.tokens(cluster, "")

    def one(host: Host) -> None:
        membership.join(lab, host, tokens.manager if host.is_manager else tokens.worker, lab.manager_addresses[0])
        start_daemons(lab, host)

    with ThreadPoolExecutor(JOIN_AT_ONCE) as pool:
        list(pool.map(one, others))


@contextmanager
def _cluster(lab: Lab) -> Iterator[Cluster]:
    from pyswarm_cli.client import Cluster

    name = context_name(lab)
    cluster = Cluster(lambda: (name, contexts.load(name)))
    try:
        yield cluster
    finally:
        cluster.close()


def wait_ready(lab: Lab, names: set[str]) -> None:
    """Until the managers say that all of these hosts are ready."""
    from pyswarm_core.v1 import control_pb2, objects_pb2

    def ready() -> bool:
        with suppress(PyswarmError):
            nodes = cluster.read(lambda stub: stub.ListNodes, control_pb2.ListRequest()).nodes
            return names <= {n.description.hostname for n in nodes if n.state == objects_pb2.NODE_STATE_READY}
        return False

    with _cluster(lab) as cluster:
        hosts.wait_until(ready, READY_SECONDS, f"the nodes of {', '.join(sorted(names))} were not ready")


def keep_logs(lab: Lab, say: Say) -> None:
    """Says the last words of each daemon before their files go."""
    for host in lab.hosts:
        for daemon in ("init", "membership", *host.daemons):
            path = host.log / f"{daemon}.log"
            if path.exists():
                for line in path.read_text(errors="replace").strip().splitlines()[-5:]:
                    say(f"{host.name} {daemon}: {line}")


def down(lab: Lab, say: Say) -> None:
    """Everything of the lab goes, whatever state it is in."""
    say(f"taking lab {lab.name} down")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda host: hosts.power_off(lab, host), lab.hosts))
    registry.stop(lab)
    switch.remove(lab)
    cgroups.remove(lab.name)
    if contexts.current() == context_name(lab):
        contexts.select(lab.former_context or None)
    contexts.remove(context_name(lab))
    with layout.lock():
        shutil.rmtree(lab.folder)
        for folder in (layout.ROOT, layout.ROOT.parent):
            with suppress(OSError):
                folder.rmdir()


def start_host(lab: Lab, host: Host) -> None:
    if hosts.first_process(host) is None:
        hosts.boot(lab, host)
    start_daemons(lab, host)


def start_daemons(lab: Lab, host: Host) -> None:
    """Those that its record of membership names; returns when all answer."""
    for daemon in host.daemons:
        daemons.start(lab, host, daemon)
    for daemon in host.daemons:
        daemons.wait(lab, host, daemon, READY_SECONDS)


def stop_host(lab: Lab, host: Host) -> None:
    for daemon in reversed(host.daemons):
        daemons.stop(lab, host, daemon)
    hosts.power_off(lab, host)


def leftovers(lab: Lab) -> list[Path]:
    """What a lab that is down has left behind: for its tests."""
    return [*cgroups.left(lab.name), *([lab.folder] if lab.folder.exists() else [])]


def signal_of(word: str) -> signal.Signals:
    return signal.SIGSTOP if word == "pause" else signal.SIGCONT
