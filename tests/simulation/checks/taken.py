"""Checks of what only one may have (names, ports, VIPs, ranges, numbers), and of where tasks are placed."""

from __future__ import annotations

from collections.abc import Mapping

from tests.simulation.checks.words import LATE
from tests.simulation.findings import Findings
from tests.simulation.host import Host
from tests.simulation.truth import Truth
from tests.simulation.virtual import world_time

from pyswarm_core.kinds import Stored
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

CONFIRMED = 30.0  # seconds: what a leader needs to store what a node has confirmed, when etcd is slow


class TakenChecks:
    def __init__(self, truth: Truth, findings: Findings, hosts: Mapping[str, Host]) -> None:
        self._truth = truth
        self._findings = findings
        self._hosts = {host.node_id: host for host in hosts.values()}
        self._numbers: dict[int, str] = {}
        self._unfit_since: dict[str, float] = {}  # node → since when no task may be placed there
        truth.listeners.append(self.look)

    def look(self, kind: str, object_id: str, old: Stored | None, new: Stored | None) -> None:
        if isinstance(new, pb.Service):
            self._service(new)
        elif isinstance(new, pb.Network):
            self._network(new)
        elif isinstance(new, pb.Node):
            self._node(old, new)  # type: ignore[arg-type]
        elif isinstance(new, pb.Task):
            self._placed(old, new)  # type: ignore[arg-type]

    def _service(self, service: pb.Service) -> None:
        vips = {(vip.network_id, vip.address) for vip in service.vips}
        ports = _ports(service.spec)
        for other in self._truth.services.values():
            if other.id == service.id:
                continue
            if other.spec.name == service.spec.name:
                self._findings.add("a name is one service's", service.spec.name, service.id, other.id)
            if not vips.isdisjoint((vip.network_id, vip.address) for vip in other.vips):
                self._findings.add(
                    "a VIP is one service's", f"{service.spec.name} and {other.spec.name}: {vips}", service.id, other.id
                )
            if both := ports.keys() & _ports(other.spec).keys():
                if all(ports[key] == _ports(other.spec)[key] == spec.PUBLISH_MODE_HOST for key in both):
                    continue  # each on its own hosts
                text = f"{service.spec.name} and {other.spec.name}: {sorted(both)}"
                self._findings.add("a published port is one service's", text, service.id, other.id)

    def _network(self, network: pb.Network) -> None:
        ranges = [block.cidr for block in network.blocks]
        if len(set(ranges)) != len(ranges):
            self._findings.add("a block is one node's", f"{network.spec.name}: {ranges}", network.id)
        for other in self._truth.networks.values():
            if other.id != network.id and (other.vni == network.vni or other.spec.name == network.spec.name):
                self._findings.add("a network's name and VNI are its own", network.spec.name, network.id, other.id)

    def _node(self, old: pb.Node | None, node: pb.Node) -> None:
        owner = self._numbers.setdefault(node.number, f"{node.id} {node.created_at}")
        if owner != f"{node.id} {node.created_at}":
            self._findings.add("a node's number is given once", f"{node.number}: {owner} and {node.id}", node.id)
        fit = node.state == pb.NODE_STATE_READY and node.spec.availability == spec.NODE_AVAILABILITY_ACTIVE
        if fit:
            self._unfit_since.pop(node.id, None)
        else:
            self._unfit_since.setdefault(node.id, world_time())
        host = self._hosts.get(node.id)
        if host is not None and node.serving and (old is None or not old.serving) and host.is_up:
            self._serves(host, node)

    def _serves(self, host: Host, node: pb.Node) -> None:
        """A node takes part only when it has everything."""
        now = world_time()
        if now - host.confirmed_at > CONFIRMED:
            self._findings.add(
                "a node that returns serves only when it has a complete set",
                f"{host.name} has confirmed none",
                node.id,
            )
        known = host.state.services if host.state is not None else {}
        for service in self._truth.services.values():
            old = any(
                task.balanced_at and not task.leaving and host.now() - task.balanced_at > 120
                for task in self._truth.tasks_of_service(service.id)
            )
            if old and service.id not in known:
                self._findings.add(
                    "a node that returns serves only when it has a complete set",
                    f"{host.name} does not know {service.spec.name}",
                    node.id,
                    service.id,
                )

    def _placed(self, old: pb.Task | None, task: pb.Task) -> None:
        if old is None or old.status.state >= pb.TASK_STATE_ASSIGNED or task.status.state != pb.TASK_STATE_ASSIGNED:
            return
        now = world_time()
        since = self._unfit_since.get(task.node_id, now)
        if now - since > LATE or task.node_id not in self._truth.nodes:
            self._findings.add(
                "a task is placed where it may run",
                f"{task.service_name}.{task.slot} on {task.node_id}, which takes none since {since:.0f}",
                task.id,
                task.node_id,
            )


def _ports(wanted: spec.ServiceSpec) -> dict[tuple[int, int], int]:
    """(protocol, port) → mode."""
    return {(port.protocol, port.published): port.mode for port in wanted.ports}
