"""A Control server for tests of the command line: real gRPC over mutual TLS, objects in dictionaries, and rollouts that
go as the test has written them down."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import grpc

from pyswarm_core import contexts
from pyswarm_core.tls import Authority, server_credentials
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import control_pb2_grpc
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.api import defaults

NOT_FOUND, EXISTS = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS
AUTHORITY = Authority.create()  # one for all tests: making keys takes time
SERVER = AUTHORITY.issue(common_name="manager-1", role="manager")
CLIENT = AUTHORITY.issue(common_name="tester", role="client")
NODES = [wire.NodeAddress(node_id="node-1-id", number=1, address="10.90.0.11", hostname="host-1")]
Script = Callable[[pb.Service, pb.Rollout], Iterator[control.RolloutView]]


class FakeControl(control_pb2_grpc.ControlServicer):
    """`calls`: every request, by method. `failures`: what the next calls of a method answer instead, (code, details).
    `script`: the views that WatchRollout sends; the last one is stored as the rollout's end."""

    def __init__(self) -> None:
        self.services: dict[str, pb.Service] = {}
        self.rollouts: dict[str, pb.Rollout] = {}
        self.tasks: list[pb.Task] = []
        self.nodes: dict[str, pb.Node] = {}
        self.networks: dict[str, pb.Network] = {
            "net-default": pb.Network(id="net-default", spec=spec.NetworkSpec(name="default", subnet="10.128.0.0/16"))
        }
        self.logs: list[control.LogsResponse] = []
        self.warnings: list[str] = []
        self.calls: dict[str, list[Any]] = defaultdict(list)
        self.failures: dict[str, list[tuple[grpc.StatusCode, str]]] = defaultdict(list)
        self.failures_after: dict[str, list[tuple[grpc.StatusCode, str]]] = defaultdict(list)  # at a stream's end
        self.script: Script = converges
        self.on_call: Callable[[str], None] = lambda _: None
        self.version = 1
        self._server: grpc.Server | None = None
        self.port = 0

    # the server

    def start(self, port: int = 0) -> None:
        self._server = grpc.server(futures.ThreadPoolExecutor(16))
        control_pb2_grpc.add_ControlServicer_to_server(self, self._server)
        self.port = self._server.add_secure_port(f"127.0.0.1:{port}", server_credentials(SERVER))
        self._server.start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def context(self, *managers: str) -> contexts.Context:
        return contexts.Context(
            managers=managers or (self.address,),
            ca=CLIENT.ca_pem.decode(),
            cert=CLIENT.cert_pem.decode(),
            key=CLIENT.key_pem.decode(),
        )

    # the calls

    def _begin(self, method: str, request: Any, call: grpc.ServicerContext) -> None:
        copy = type(request)()
        copy.CopyFrom(request)
        self.calls[method].append(copy)
        self.on_call(method)
        if self.failures[method]:
            call.abort(*self.failures[method].pop(0))

    def CreateService(self, request: Any, call: Any) -> Any:
        self._begin("CreateService", request, call)
        if request.spec.name in {s.spec.name for s in self.services.values()}:
            call.abort(EXISTS, f"A service {request.spec.name} exists.")
        service = pb.Service(id=f"{request.spec.name}-id", spec=request.spec, spec_version=1)
        return self._store(service, from_version=0)

    def UpdateService(self, request: Any, call: Any) -> Any:
        self._begin("UpdateService", request, call)
        service = self._service(request.ref, call)
        if request.version != service.version:
            call.abort(grpc.StatusCode.ABORTED, "Service was changed meanwhile: look at it and try again.")
        service.previous_spec.CopyFrom(service.spec)
        service.spec.CopyFrom(request.spec)
        service.spec_version += 1
        return self._store(service, from_version=service.spec_version - 1)

    def ScaleServices(self, request: Any, call: Any) -> Any:
        self._begin("ScaleServices", request, call)
        found = [(self._service(target.ref, call), target.replicas) for target in request.targets]
        answer = control.ScaleServicesResponse()
        for service, replicas in found:
            service.spec.replicas = replicas
            answer.services.append(self._store(service, from_version=service.spec_version))
        return answer

    def RollbackService(self, request: Any, call: Any) -> Any:
        self._begin("RollbackService", request, call)
        service = self._service(request.ref, call)
        if not service.HasField("previous_spec"):
            call.abort(grpc.StatusCode.FAILED_PRECONDITION, "Service was never changed.")
        service.spec.CopyFrom(service.previous_spec)
        service.spec_version += 1
        return self._store(service, service.spec_version - 1, pb.ROLLOUT_KIND_ROLLBACK)

    def RemoveService(self, request: Any, call: Any) -> Any:
        self._begin("RemoveService", request, call)
        del self.services[self._service(request.ref, call).id]
        return control.Empty()

    def GetService(self, request: Any, call: Any) -> Any:
        self._begin("GetService", request, call)
        return self._view(self._service(request.ref, call))

    def ListServices(self, request: Any, call: Any) -> Any:
        self._begin("ListServices", request, call)
        return control.ListServicesResponse(services=[self._view(s) for s in self.services.values()])

    def WatchRollout(self, request: Any, call: Any) -> Any:
        self._begin("WatchRollout", request, call)
        rollout = self.rollouts.get(request.rollout_id)
        if rollout is None or rollout.service_id not in self.services:
            call.abort(NOT_FOUND, f"There is no rollout {request.rollout_id}.")
        assert rollout is not None
        for view in self.script(self.services[rollout.service_id], rollout):
            self.rollouts[rollout.id] = view.rollout
            yield view

    def ListTasks(self, request: Any, call: Any) -> Any:
        self._begin("ListTasks", request, call)
        names = {self._service(ref, call).spec.name for ref in request.services}
        found = [t for t in self.tasks if not names or t.service_name in names]
        if request.node:
            node_id = self._node(request.node, call).id
            found = [t for t in found if t.node_id == node_id]
        return control.ListTasksResponse(tasks=found, nodes=NODES)

    def Logs(self, request: Any, call: Any) -> Any:
        self._begin("Logs", request, call)
        yield from self.logs
        if self.failures_after["Logs"]:
            call.abort(*self.failures_after["Logs"].pop(0))

    def ListNodes(self, request: Any, call: Any) -> Any:
        self._begin("ListNodes", request, call)
        return control.ListNodesResponse(nodes=self.nodes.values())

    def GetNode(self, request: Any, call: Any) -> Any:
        self._begin("GetNode", request, call)
        return self._node(request.ref, call)

    def UpdateNode(self, request: Any, call: Any) -> Any:
        self._begin("UpdateNode", request, call)
        node = self._node(request.ref, call)
        node.spec.CopyFrom(request.spec)
        return node

    def RemoveNode(self, request: Any, call: Any) -> Any:
        self._begin("RemoveNode", request, call)
        node = self._node(request.ref, call)
        if node.state == pb.NODE_STATE_READY and not request.force:
            call.abort(grpc.StatusCode.FAILED_PRECONDITION, "The node is not down: use --force.")
        del self.nodes[node.id]
        return control.Empty()

    def CreateNetwork(self, request: Any, call: Any) -> Any:
        self._begin("CreateNetwork", request, call)
        network = pb.Network(id=f"net-{request.spec.name}", spec=request.spec)
        if network.id in self.networks:
            call.abort(EXISTS, f"A network {request.spec.name} exists.")
        self.networks[network.id] = network
        return network

    def GetNetwork(self, request: Any, call: Any) -> Any:
        self._begin("GetNetwork", request, call)
        return self._network(request.ref, call)

    def ListNetworks(self, request: Any, call: Any) -> Any:
        self._begin("ListNetworks", request, call)
        return control.ListNetworksResponse(networks=self.networks.values())

    def RemoveNetwork(self, request: Any, call: Any) -> Any:
        self._begin("RemoveNetwork", request, call)
        del self.networks[self._network(request.ref, call).id]
        return control.Empty()

    def GetInfo(self, request: Any, call: Any) -> Any:
        self._begin("GetInfo", request, call)
        return control.Info(version="0.1.0", manager_id="manager-1", leader_address=self.address, nodes=3, services=1)

    # the objects

    def _store(
        self,
        service: pb.Service,
        from_version: int,
        kind: pb.RolloutKind.ValueType = pb.ROLLOUT_KIND_DEPLOY,
    ) -> control.ServiceResponse:
        defaults.complete(service.spec)
        for attachment in service.spec.task.networks:
            by_name = {n.spec.name: n.id for n in self.networks.values()}
            attachment.network_id = by_name.get(attachment.network_id, attachment.network_id)
        self.version += 1
        service.version = self.version
        rollout = pb.Rollout(
            id=f"rollout-{self.version}",
            service_id=service.id,
            service_name=service.spec.name,
            kind=kind,
            from_version=from_version,
            to_version=service.spec_version,
            started_at=time.time(),
        )
        service.rollout_id = rollout.id
        self.services[service.id] = service
        self.rollouts[rollout.id] = rollout
        return control.ServiceResponse(service=service, rollout=rollout, warnings=self.warnings)

    def _view(self, service: pb.Service) -> control.ServiceView:
        running = sum(t.service_id == service.id and t.status.state == pb.TASK_STATE_RUNNING for t in self.tasks)
        return control.ServiceView(
            service=service,
            rollout=self.rollouts.get(service.rollout_id),
            running=running,
            desired=service.spec.replicas,
        )

    def _service(self, ref: str, call: grpc.ServicerContext) -> pb.Service:
        return self._find(ref, call, "service", self.services, lambda s: s.spec.name)

    def _node(self, ref: str, call: grpc.ServicerContext) -> pb.Node:
        return self._find(ref, call, "node", self.nodes, lambda n: n.description.hostname)

    def _network(self, ref: str, call: grpc.ServicerContext) -> pb.Network:
        return self._find(ref, call, "network", self.networks, lambda n: n.spec.name)

    def _find(
        self, ref: str, call: grpc.ServicerContext, kind: str, objects: dict[str, Any], name: Callable[[Any], str]
    ) -> Any:
        found = [o for o in objects.values() if ref in (o.id, name(o))]
        found = found or [o for o in objects.values() if o.id.startswith(ref)]
        if len(found) > 1:
            call.abort(grpc.StatusCode.FAILED_PRECONDITION, f"{ref} is the beginning of several ids: write more of it.")
        if not found:
            call.abort(NOT_FOUND, f"There is no {kind} {ref}.")
        return found[0]


def task(
    service: pb.Service,
    slot: int,
    state: pb.TaskState.ValueType = pb.TASK_STATE_RUNNING,
    *,
    task_id: str = "",
    desired: pb.TaskState.ValueType = pb.TASK_STATE_RUNNING,
    error: str = "",
    message: str = "",
    last_lines: tuple[str, ...] = (),
    created_at: float = 0.0,
) -> pb.Task:
    status = pb.TaskStatus(
        state=state, at=created_at or time.time(), error=error, message=message, last_lines=last_lines
    )
    return pb.Task(
        id=task_id or f"{service.spec.name}-{slot}-v{service.spec_version}",
        created_at=created_at or time.time(),
        service_id=service.id,
        service_name=service.spec.name,
        slot=slot,
        node_id="node-1-id" if state >= pb.TASK_STATE_ASSIGNED else "",
        spec=service.spec.task,
        spec_version=service.spec_version,
        desired_state=desired,
        status=status,
    )


def view(
    service: pb.Service,
    rollout: pb.Rollout,
    tasks: list[pb.Task],
    state: pb.RolloutState.ValueType = pb.ROLLOUT_STATE_RUNNING,
    phase: pb.SlotPhase.ValueType = pb.SLOT_PHASE_STARTING,
    **fields: Any,
) -> control.RolloutView:
    copy = pb.Rollout()
    copy.CopyFrom(rollout)
    copy.state = state
    for name, value in fields.items():
        setattr(copy, name, value)
    del copy.slots[:]
    for one in tasks:
        copy.slots.add(slot=one.slot, phase=phase, new_task_id=one.id)
    return control.RolloutView(rollout=copy, service=service, tasks=tasks, nodes=NODES)


def converges(service: pb.Service, rollout: pb.Rollout) -> Iterator[control.RolloutView]:
    """All slots at once: preparing, running and watched, done."""
    slots = range(1, service.spec.replicas + 1)
    yield view(
        service, rollout, [task(service, n, pb.TASK_STATE_PREPARING, message="pulling 1/3 layers") for n in slots]
    )
    running = [task(service, n) for n in slots]
    yield view(service, rollout, running, phase=pb.SLOT_PHASE_MONITORING)
    last = view(service, rollout, running, pb.ROLLOUT_STATE_COMPLETED, pb.SLOT_PHASE_DONE)
    last.rollout.finished_at = rollout.started_at + 2.5
    last.rollout.receipt.replaced = service.spec.replicas
    for one in running:
        last.rollout.receipt.tasks.add(task_id=one.id, is_new=True, started_at=last.rollout.started_at or 1)
    last.rollout.receipt.outcome = "completed"
    yield last
