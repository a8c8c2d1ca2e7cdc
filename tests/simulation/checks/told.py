"""Checks of what a leader tells hosts, at the moment at which it says it: it follows from what that leader has seen.

Later is too late to look: a host that was told wrong has mostly been told better by then."""

from __future__ import annotations

from tests.simulation.checks.words import serves
from tests.simulation.findings import Findings

from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_manager.plan import World


class ToldChecks:
    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def tells(self, world: World, manager: str, host: str, message: wire.ManagerMessage) -> None:
        """`world`: as this manager knows it, at this moment."""
        for service in message.endpoints.services:
            told = {one.task_id for one in service.endpoints if one.state == ep.ENDPOINT_STATE_SERVING}
            fit = {
                task.id
                for task in world.tasks_of_service(service.service_id)
                if task.addresses and not task.addresses_free and serves(task, world.nodes)
            }
            if told != fit:
                text = f"the manager on {manager} tells {host} of {service.name}: {_few(told - fit)} serve, "
                text += f"{_few(fit - told)} do not"
                self._findings.add("endpoints are the tasks that serve", text, service.service_id, *(told ^ fit))


def _few(names: set[str]) -> str:
    return " ".join(sorted(names)[:3]) or "none"
