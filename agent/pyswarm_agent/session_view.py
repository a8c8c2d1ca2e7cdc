"""What the manager last said of everything but tasks: networks, endpoints, nodes, credentials. Kept in the journal, so
that an agent that starts without a manager keeps the balancer as it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from pyswarm_agent.journal_records import Records
from pyswarm_agent.network.inputs import NetworkInputs
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb

T = TypeVar("T")


def _merged(old: Mapping[str, T], news: Mapping[str, T], removed: Iterable[str], complete: bool) -> Mapping[str, T]:
    """What is equal stays the same object: whoever derives from it sees that nothing changed. Costs a copy of the
    table, and a comparison for each of the news."""
    merged = {} if complete else dict(old)
    for key, value in news.items():
        known = old.get(key)
        merged[key] = known if known is not None and known == value else value
    for key in removed:
        merged.pop(key, None)
    return merged


class ManagerView:
    """Its tables are replaced, never changed in place: whoever got one may keep it."""

    def __init__(self, records: Records, node_id: str) -> None:
        self._records = records
        self._node_id = node_id
        welcome = records.welcome
        self.node_number = welcome.node_number if welcome is not None else 0
        self.networks: Mapping[str, pb.Network] = records.networks()
        self.endpoints: Mapping[str, ep.ServiceEndpoints] = records.endpoints()
        self.nodes: Sequence[wire.NodeAddress] = tuple(records.nodes())
        self.settled: frozenset[str] = records.settled()
        self._auths: dict[str, pb.RegistryAuth] = {}
        self._patched: dict[str, tuple[ep.ServiceEndpoints, dict[str, str], ep.ServiceEndpoints]] = {}

    def auth(self, service_id: str) -> pb.RegistryAuth | None:
        return self._auths.get(service_id)

    def welcome(self, welcome: wire.Welcome) -> None:
        self.node_number = welcome.node_number
        self._records.set_welcome(welcome)

    def assigned(self, update: wire.AssignmentUpdate) -> None:
        """The networks and credentials of an assignment update."""
        news = {n.id: n for n in update.networks}
        networks = _merged(self.networks, news, update.removed_networks, update.complete)
        self._records.set_networks(news, self.networks.keys() - networks.keys())
        self.networks = networks
        if update.complete:
            self._auths = {}
        self._auths.update((auth.id, auth) for auth in update.auths)

    def balanced(self, update: wire.EndpointUpdate) -> None:
        news = {s.service_id: s for s in update.services}
        endpoints = _merged(self.endpoints, news, update.removed_services, update.complete)
        nodes = tuple(update.nodes) if update.nodes else None
        settled = frozenset(update.settled_tasks) | (frozenset() if update.complete else self.settled)
        self._records.set_endpoints(news, self.endpoints.keys() - endpoints.keys(), nodes, settled)
        self.endpoints, self.settled = endpoints, settled
        self.nodes = nodes if nodes is not None else self.nodes

    def forgotten(self, task_ids: frozenset[str]) -> None:
        """These tasks are gone for good: whether they were settled matters no more."""
        if self.settled & task_ids:
            self.settled -= task_ids
            self._records.set_endpoints({}, (), None, self.settled)

    def inputs(self, tasks: Mapping[str, pb.Task], dead: frozenset[str]) -> NetworkInputs:
        return NetworkInputs(
            node_id=self._node_id,
            node_number=self.node_number,
            nodes=self.nodes,
            networks=self.networks,
            endpoints=self._with_successors(tasks, dead),
            tasks=tasks,
            settled=self.settled,
            dead=dead,
        )

    def _with_successors(self, tasks: Mapping[str, pb.Task], dead: frozenset[str]) -> Mapping[str, ep.ServiceEndpoints]:
        """Where a task of this host's own making has taken a dead one's place and address, it is the endpoint, until
        the managers say so themselves."""
        followers = {
            task.predecessor_id: task
            for task in tasks.values()
            if task.predecessor_id in dead and task.status.state == pb.TASK_STATE_RUNNING and not task.leaving
        }
        services = {t.service_id for t in followers.values()} & self.endpoints.keys()
        found = {}
        for service_id in services:
            message = self.endpoints[service_id]
            swaps = {
                e.task_id: followers[e.task_id].id
                for e in message.endpoints
                if e.task_id in followers and list(e.addresses) == list(followers[e.task_id].addresses)
            }
            if swaps:
                found[service_id] = self._swapped(message, swaps)
        self._patched = {key: self._patched[key] for key in found}
        return {**self.endpoints, **found} if found else self.endpoints

    def _swapped(self, message: ep.ServiceEndpoints, swaps: dict[str, str]) -> ep.ServiceEndpoints:
        """The same object for the same input: whoever derives from it sees that nothing changed."""
        known = self._patched.get(message.service_id)
        if known is not None and known[0] is message and known[1] == swaps:
            return known[2]
        copy = ep.ServiceEndpoints()
        copy.CopyFrom(message)
        for endpoint in copy.endpoints:
            endpoint.task_id = swaps.get(endpoint.task_id, endpoint.task_id)
        self._patched[message.service_id] = (message, swaps, copy)
        return copy
