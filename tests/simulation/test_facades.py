"""What stands in for a host's parts offers what their callers ask for, argument by argument."""

from __future__ import annotations

import inspect

import pytest
from tests.simulation import agent, etcd, facades, fuses, manager, streams

from pyswarm_agent import applier, exclusive, interfaces, session
from pyswarm_agent.network.host import HostNetwork
from pyswarm_agent.tasks import tools
from pyswarm_core.store.base import Store
from pyswarm_manager.api.resolve import Resolver
from pyswarm_manager.clock import Clock
from pyswarm_proxy.balancer import Balancer


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (facades.Runtime, interfaces.Runtime),
        (facades.Images, interfaces.Images),
        (facades.Links, interfaces.Links),
        (facades.Logs, tools.TaskLogs),
        (facades.Names, applier.Names),
        (fuses.Fuses, exclusive.Fuses),
        (agent.AgentProcess, session.Connector),
        (streams.Link, session.Stream),
        (etcd.Client, Store),
        (manager.Registry, Resolver),
        (manager.WallClock, Clock),
    ],
)
def test_a_stand_in_has_its_protocols_methods(ours: type, theirs: type) -> None:
    for name, method in inspect.getmembers(theirs, inspect.isfunction):
        if not name.startswith("_"):
            assert list(inspect.signature(getattr(ours, name)).parameters) == list(
                inspect.signature(method).parameters
            ), name


@pytest.mark.parametrize(("ours", "theirs"), [(facades.HostNetwork, HostNetwork), (facades.Balancer, Balancer)])
def test_a_stand_in_of_a_class_takes_its_calls(ours: type, theirs: type) -> None:
    for name, method in inspect.getmembers(ours, inspect.isfunction):
        if not name.startswith("_"):
            assert list(inspect.signature(method).parameters) == list(
                inspect.signature(getattr(theirs, name)).parameters
            ), name
