"""What the manager last said of everything but tasks: networks, endpoints, nodes, credentials. Kept in the journal, so
that an agent that starts without a manager keeps the balancer as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyswarm_agent.journal_records import Records
from pyswarm_agent.network.inputs import NetworkInputs
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb


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

    def auth(self, service_id: str) -> pb.RegistryAuth | None:
        return self._auths.get(service_id)

    def welcome(self, welcome: wire.Welcome) -> None:
        self.node_number = welcome.node_number
        self._records.set_welcome(welcome)

    def assigned(self, update: wire.AssignmentUpdate) -> None:
        """The networks and credentials of an assignment update."""
        news = {n.id: n for n in update.networks}
        base = {} if update.complete else self.networks
        removed = set(update.removed_networks)
        networks = {key: n for key, n in {**base, **news}.items() if key not in removed}
        # An unchanged network stays the same object: whoever derives from it sees that nothing changed.
        networks = {key: n if self.networks.get(key) != n else self.networks[key] for key, n in networks.items()}
        self._records.set_networks(news, self.networks.keys() - networks.keys())
        self.networks = networks
        if update.complete:
            self._auths = {}
        self._auths.update((auth.id, auth) for auth in update.auths)

    def balanced(self, update: wire.EndpointUpdate) -> None:
        news = {s.service_id: s for s in update.services}
        base = {} if update.complete else self.endpoints
        removed = set(update.removed_services)
        endpoints = {key: s for key, s in {**base, **news}.items() if key not in removed}
        endpoints = {key: s if self.endpoints.get(key) != s else self.endpoints[key] for key, s in endpoints.items()}
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
            endpoints=self.endpoints,
            tasks=tasks,
            settled=self.settled,
            dead=dead,
        )
