"""The Control service: any manager answers, from its world, and writes by admission. `errors` makes codes of errors."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Protocol

import grpc

from pyswarm_core.errors import NotFound, PreconditionFailed, PyswarmError, StoreUnavailable
from pyswarm_core.etcd.cluster import Member
from pyswarm_core.ids import new_id
from pyswarm_core.tls import peer_identity
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import control_pb2_grpc as control_grpc
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.allocator.networks import DEFAULT_NETWORK, POOL
from pyswarm_manager.allocator.ranges import Range
from pyswarm_manager.api import admission_nodes, refs, views
from pyswarm_manager.api.admissions import Admissions, Decision
from pyswarm_manager.api.logs import LogReader
from pyswarm_manager.api.services import Services
from pyswarm_manager.api.watch import watch_rollout
from pyswarm_manager.clock import Clock
from pyswarm_manager.loops import LiveWorld
from pyswarm_manager.plan import Put, World
from pyswarm_manager.tasks import is_terminal

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]

USER_ROLES = ("client", "manager")  # a worker's key is on every host: it must not command the cluster
BEGUN_WITHIN = 5.0  # seconds that a first request waits for the cluster's first leader
FRESH_WITHIN = 1.0  # seconds that a read waits to see what was written before it


class Members(Protocol):
    """Of etcd, where the managers look after them: `members.keeper.Keeper`. Errors: PyswarmError."""

    async def members(self) -> Sequence[Member]: ...
    async def refuse(self, node_id: str) -> str:
        """Why this node's member may not be removed, one clause; "" = it may."""
        ...


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is known apart from the world."""

    manager_id: str
    leader: Callable[[], pb.Leader | None]
    is_connected: Callable[[], bool]  # to the store
    managers: Callable[[], Awaitable[dict[str, str]]]  # that live: id → HOST:PORT of its API
    pool: Range = POOL  # what networks get their ranges from
    members: Members | None = None  # None: etcd is somebody else's


class ControlServicer(control_grpc.ControlServicer):
    def __init__(
        self,
        world: LiveWorld,
        cluster: Cluster,
        admissions: Admissions,
        services: Services,
        logs: LogReader,
        clock: Clock,
        rng: random.Random,
        *,
        begun_within: float = BEGUN_WITHIN,
    ) -> None:
        self._world = world
        self._cluster = cluster
        self._admissions = admissions
        self._services = services
        self._logs = logs
        self._clock = clock
        self._rng = rng
        self._begun_within = begun_within
        self._version = metadata.version("pyswarm-orchestrator")

    # Services.

    async def CreateService(self, request: control.CreateServiceRequest, context: Context) -> control.ServiceResponse:
        await self._enter(context)
        await self._begun()
        return self._stored(await self._services.create(request))

    async def UpdateService(self, request: control.UpdateServiceRequest, context: Context) -> control.ServiceResponse:
        await self._enter(context)
        await self._begun()
        return self._stored(await self._services.update(request))

    async def ScaleServices(
        self, request: control.ScaleServicesRequest, context: Context
    ) -> control.ScaleServicesResponse:
        await self._enter(context)
        response = await self._services.scale(request)
        return control.ScaleServicesResponse(services=map(self._stored, response.services))

    async def RollbackService(self, request: control.Ref, context: Context) -> control.ServiceResponse:
        await self._enter(context)
        return self._stored(await self._services.rollback(request))

    async def RemoveService(self, request: control.Ref, context: Context) -> control.Empty:
        await self._enter(context)
        return await self._services.remove(request)

    async def GetService(self, request: control.Ref, context: Context) -> control.ServiceView:
        await self._enter(context)
        return views.service_view(self._world, refs.service(self._world, request.ref))

    async def ListServices(self, request: control.ListRequest, context: Context) -> control.ListServicesResponse:
        await self._enter(context)
        services = sorted(self._world.services.values(), key=lambda service: service.spec.name)
        return control.ListServicesResponse(services=[views.service_view(self._world, s) for s in services])

    async def WatchRollout(
        self, request: control.WatchRolloutRequest, context: Context
    ) -> AsyncIterator[control.RolloutView]:
        await self._enter(context)
        async for view in watch_rollout(self._world, request.rollout_id, self._clock):
            yield view

    # Tasks.

    async def ListTasks(self, request: control.ListTasksRequest, context: Context) -> control.ListTasksResponse:
        await self._enter(context)
        world = self._world
        if request.services:
            services = {refs.service(world, ref).id for ref in request.services}
            tasks = [task for service_id in services for task in world.tasks_of_service(service_id)]
        else:
            tasks = list(world.tasks.values())
        if request.node:
            node_id = self._node(request.node).id
            tasks = [task for task in tasks if task.node_id == node_id]
        if not request.history:
            tasks = [task for task in tasks if not is_terminal(task)]
        return control.ListTasksResponse(tasks=views.ordered(tasks), nodes=views.node_addresses(world, tasks))

    async def Logs(self, request: control.LogsRequest, context: Context) -> AsyncIterator[control.LogsResponse]:
        await self._enter(context)
        async for response in self._logs.read(request):
            yield response

    # Nodes.

    async def ListNodes(self, request: control.ListRequest, context: Context) -> control.ListNodesResponse:
        await self._enter(context)
        nodes = sorted(self._world.nodes.values(), key=lambda node: (node.description.hostname, node.id))
        return control.ListNodesResponse(nodes=await self._views(nodes))

    async def GetNode(self, request: control.Ref, context: Context) -> pb.Node:
        await self._enter(context)
        return (await self._views([self._node(request.ref)]))[0]

    async def UpdateNode(self, request: control.UpdateNodeRequest, context: Context) -> pb.Node:
        await self._enter(context)
        node_id = self._node(request.ref).id
        await self.may_become(node_id, request.spec.role)

        def decide(world: World) -> Decision[None]:
            node = refs.node(world, node_id)
            updated = admission_nodes.update_node(world, node, request.spec, version=request.version)
            return [Put(updated)] if updated != node else [], None

        await self._admissions.admit(decide)
        return (await self._views([self._node(node_id)]))[0]

    async def may_become(self, node_id: str, role: spec.NodeRole.ValueType) -> None:
        """PreconditionFailed: this manager must not become a worker now, for nobody would manage, or etcd would lose
        its majority."""
        node = refs.node(self._world, node_id)
        if node.spec.role != spec.NODE_ROLE_MANAGER or role == spec.NODE_ROLE_MANAGER:
            return
        admission_nodes.refuse_last_manager(self._world, node, self._world.managers)
        if self._cluster.members is not None and (refused := await self._cluster.members.refuse(node_id)):
            raise PreconditionFailed(
                f"Node {node.description.hostname or node_id} cannot be demoted now: {refused}. Bring the others back "
                "first, or add a manager."
            )

    async def RemoveNode(self, request: control.RemoveNodeRequest, context: Context) -> control.Empty:
        await self._enter(context)
        node_id = self._node(request.ref).id

        def decide(world: World) -> Decision[control.Empty]:
            node = refs.node(world, node_id)
            writes = admission_nodes.remove_node(world, node, force=request.force, now=self._clock.now())
            return writes, control.Empty()

        return await self._admissions.admit(decide)

    # Networks.

    async def CreateNetwork(self, request: control.CreateNetworkRequest, context: Context) -> pb.Network:
        await self._enter(context)
        await self._begun()
        network_id = new_id(self._rng)

        def decide(world: World) -> Decision[None]:
            now, pool = self._clock.now(), self._cluster.pool
            return [Put(admission_nodes.create_network(world, request.spec, network_id, now, pool))], None

        await self._admissions.admit(decide)
        return refs.network(self._world, network_id)

    async def GetNetwork(self, request: control.Ref, context: Context) -> pb.Network:
        await self._enter(context)
        return refs.network(self._world, request.ref)

    async def ListNetworks(self, request: control.ListRequest, context: Context) -> control.ListNetworksResponse:
        await self._enter(context)
        networks = sorted(self._world.networks.values(), key=lambda network: network.spec.name)
        return control.ListNetworksResponse(networks=networks)

    async def RemoveNetwork(self, request: control.Ref, context: Context) -> control.Empty:
        await self._enter(context)
        network_id = refs.network(self._world, request.ref).id

        def decide(world: World) -> Decision[control.Empty]:
            write = admission_nodes.remove_network(world, refs.network(world, network_id))
            return [write] if write is not None else [], control.Empty()

        return await self._admissions.admit(decide)

    # The cluster.

    async def GetInfo(self, request: control.Empty, context: Context) -> control.Info:
        await self._enter(context)
        leader = self._cluster.leader()
        return control.Info(
            version=self._version,
            manager_id=self._cluster.manager_id,
            leader_address=leader.address if leader is not None else "",
            nodes=len(self._world.nodes),
            services=len(self._world.services),
            tasks=sum(not is_terminal(task) for task in self._world.tasks.values()),
            revision=self._world.revision,
        )

    async def _enter(self, context: Context) -> None:
        """Who asks may ask; and what anyone has been told is stored is seen, unless the store is away."""
        try:
            peer = peer_identity(context)
        except PyswarmError as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, str(error))
        if peer.role not in USER_ROLES:
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                f"A certificate with the role '{peer.role}' cannot command the cluster: use a user's or a manager's.",
            )
        if self._cluster.is_connected():
            try:
                async with asyncio.timeout(FRESH_WITHIN):
                    await self._admissions.fresh()
            except (TimeoutError, PyswarmError):
                pass  # a write finds out by itself; a read had better be old than nothing
        if not self._world.revision:
            raise StoreUnavailable("This manager has not reached etcd yet: try again, or another manager.")

    async def _begun(self) -> None:
        """A new cluster's first leader makes the network `default`; who is faster than that waits for it."""
        if _has_default(self._world):
            return
        made = asyncio.Event()
        cancel = self._world.subscribe(lambda changes, revision: made.set() if _has_default(self._world) else None)
        try:
            async with asyncio.timeout(self._begun_within):
                await made.wait()
        except TimeoutError:
            raise StoreUnavailable("No manager has led this cluster yet: try again when one does.") from None
        finally:
            cancel()

    async def _views(self, nodes: Sequence[pb.Node]) -> list[pb.Node]:
        managers: dict[str, str] = {}
        try:
            async with asyncio.timeout(FRESH_WITHIN):
                managers = await self._cluster.managers()
        except (TimeoutError, PyswarmError):
            pass  # without the store, nobody can tell
        members: Sequence[Member] | None = None
        if self._cluster.members is not None:
            try:
                async with asyncio.timeout(FRESH_WITHIN):
                    members = await self._cluster.members.members()
            except (TimeoutError, PyswarmError):
                pass
        leader = self._cluster.leader()
        return [views.node_view(node, leader, managers, members) for node in nodes]

    def _node(self, ref: str) -> pb.Node:
        if ref != "self":
            return refs.node(self._world, ref)
        node = self._world.nodes.get(self._cluster.manager_id)
        if node is None:
            raise NotFound(
                f"The manager {self._cluster.manager_id} runs on a host that is no node: start an agent there."
            )
        return node

    def _stored(self, response: control.ServiceResponse) -> control.ServiceResponse:
        """With what the store has given: the world shows it by now, or something newer."""
        service = self._world.services.get(response.service.id)
        rollout = self._world.rollouts.get(response.rollout.id)
        if service is not None and service.rollout_id == response.rollout.id:
            response.service.CopyFrom(service)
        if rollout is not None:
            response.rollout.CopyFrom(rollout)
        return response


def _has_default(world: World) -> bool:
    return any(network.spec.name == DEFAULT_NETWORK for network in world.networks.values())
