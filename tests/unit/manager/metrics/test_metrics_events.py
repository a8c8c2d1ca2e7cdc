"""What is counted as it happens: the cluster's events, runs of loops, calls to etcd, RPCs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import grpc
import pytest
from tests.support.manager import Cluster, eventually
from tests.unit.manager.metrics.build import NOW, World, figures, scraped, service, task

from pyswarm_core import tls
from pyswarm_core.errors import StoreUnavailable
from pyswarm_core.store import base
from pyswarm_core.store.memory import MemoryStore
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import control_pb2_grpc as control_grpc
from pyswarm_core.v1 import dispatcher_pb2_grpc as wire_grpc
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.api.errors import ErrorInterceptor
from pyswarm_manager.metrics import MeteredStore, Metrics
from pyswarm_manager.plan import changed

REPOSITORY = Path(__file__).resolve().parents[4]


async def test_restarts_are_counted_while_the_service_is_there_and_this_manager_leads() -> None:
    world, leads = World(), True
    world.put(service("web"), task("web", restarts=3))
    made = Metrics(world, figures(is_leader=lambda: leads), clock=lambda: NOW)

    async def restarts() -> float:
        return (await scraped(made)).value("pyswarm_service_restarts_total", service="web")

    assert await restarts() == 0, "what was there before is no event"
    world.put(task("web", id="second", restarts=4, predecessor_id="web-1"))
    world.put(task("web", id="third", restarts=5, predecessor_id="forgotten"))
    assert await restarts() == 2
    world.put(task("web", id="moved", restarts=5, predecessor_id="third"))
    world.put(changed(world.tasks["third"]))
    assert await restarts() == 2, "neither a move nor a change is a restart"
    leads = False
    world.put(task("web", id="elsewhere", restarts=9))
    leads = True
    assert await restarts() == 2
    world.delete(world.services["web-id"])
    world.put(service("web"))
    assert await restarts() == 0


async def test_scheduling_confirmations_and_rollouts_are_timed() -> None:
    world = World()
    made = Metrics(world, figures(), clock=lambda: NOW)
    new = task("web", node="", balanced_at=0, created_at=NOW, status=pb.TaskStatus(state=pb.TASK_STATE_NEW))
    world.put(service("web"), new, pb.Rollout(id="r", service_id="web-id", started_at=NOW))
    for state, at in ((pb.TASK_STATE_PENDING, 0.1), (pb.TASK_STATE_ASSIGNED, 0.2), (pb.TASK_STATE_RUNNING, 1.0)):
        after = changed(world.tasks["web-1"])
        after.status.MergeFrom(pb.TaskStatus(state=state, at=NOW + at))
        after.status.timings.healthy_at = NOW + 1.0
        world.put(after)
    after = changed(after)
    after.balanced_at = NOW + 1.03
    world.put(after)
    after = changed(after)
    after.leaving, after.leaving_at = True, NOW + 5
    world.put(after)
    after = changed(after)
    after.out_of_balancers_at = NOW + 5.02
    world.put(after)
    world.put(pb.Rollout(id="r", service_id="web-id", started_at=NOW, state=pb.ROLLOUT_STATE_ROLLING_BACK))
    ended = pb.Rollout(
        id="r", service_id="web-id", started_at=NOW, finished_at=NOW + 7, state=pb.ROLLOUT_STATE_ROLLED_BACK
    )
    world.put(ended)
    world.put(changed(ended))
    found = await scraped(made)
    assert found.value("pyswarm_scheduling_seconds_count") == 1
    assert found.value("pyswarm_scheduling_seconds_sum") == pytest.approx(0.2)
    assert found.value("pyswarm_endpoint_confirm_seconds_sum", direction="in") == pytest.approx(0.03)
    assert found.value("pyswarm_endpoint_confirm_seconds_sum", direction="out") == pytest.approx(0.02)
    assert found.value("pyswarm_rollout_seconds_count", outcome="rolled_back") == 1
    assert found.value("pyswarm_rollout_seconds_sum", outcome="rolled_back") == 7
    assert found.value("pyswarm_rollout_seconds_count", outcome="completed") == 0


async def test_a_task_that_is_given_up_before_it_has_a_node_is_not_scheduled() -> None:
    world = World()
    made = Metrics(world, figures(), clock=lambda: NOW)
    world.put(task("web", node="", status=pb.TaskStatus(state=pb.TASK_STATE_PENDING)))
    world.put(task("web", node="", status=pb.TaskStatus(state=pb.TASK_STATE_SHUTDOWN)))
    assert (await scraped(made)).value("pyswarm_scheduling_seconds_count") == 0


async def test_loops_and_queues() -> None:
    made = Metrics(World(), figures(queues=lambda: {"loops": 7, "dispatcher": 0}))
    made.observe_loop("service/abc", 0.01, 0.02)
    made.observe_loop("service/def", -1.0, 0.02)
    made.began_to_lead()
    found = await scraped(made)
    assert found.value("pyswarm_reconcile_wait_seconds_count", loop="service") == 2
    assert found.value("pyswarm_reconcile_wait_seconds_sum", loop="service") == pytest.approx(0.01)
    assert found.value("pyswarm_reconcile_run_seconds_sum", loop="service") == pytest.approx(0.04)
    assert found.value("pyswarm_reconcile_run_seconds_count", loop="drain") == 0
    assert found.value("pyswarm_reconcile_queue_depth", queue="loops") == 7
    assert found.value("pyswarm_leader_terms_total") == 1


async def test_a_metered_store_tells_of_each_call_and_changes_nothing() -> None:
    made = Metrics(World(), figures())
    inner = MemoryStore()
    store = MeteredStore(inner, made.observe_call)
    await store.txn([], [base.Put("/k", b"v")])
    assert (await store.get("/k")).value == b"v"  # type: ignore[union-attr]
    inner.set_available(False)
    with pytest.raises(StoreUnavailable):
        await store.list("/")
    found = await scraped(made)
    assert {c: found.value("pyswarm_etcd_call_seconds_count", call=c) for c in ("txn", "get", "list", "grant")} == {
        "txn": 1,
        "get": 1,
        "list": 1,
        "grant": 0,
    }
    assert found.value("pyswarm_etcd_errors_total", call="list", error="StoreUnavailable") == 1


async def test_calls_and_streams_are_counted_by_code() -> None:
    made = Metrics(World(), figures())
    async with Cluster.make(serve=False) as cluster:
        await cluster.lead()
        server = grpc.aio.server(interceptors=[made.rpc, ErrorInterceptor()])
        control_grpc.add_ControlServicer_to_server(cluster.control(), server)
        wire_grpc.add_DispatcherServicer_to_server(cluster.servicer, server)
        identity = cluster.authority.issue(common_name="manager-1", role="manager")
        port = server.add_secure_port("127.0.0.1:0", tls.server_credentials(identity))
        await server.start()
        try:
            client = tls.client_credentials(cluster.authority.issue(common_name="me", role="client"))
            address = f"127.0.0.1:{port}"
            async with grpc.aio.secure_channel(address, client, options=tls.channel_options()) as channel:
                stub = control_grpc.ControlStub(channel)
                await stub.ListNodes(control.ListRequest())
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.GetService(control.Ref(ref="nobody"))
                unknown = channel.unary_unary("/pyswarm.v1.Control/Nothing")
                with pytest.raises(grpc.aio.AioRpcError):
                    await unknown(b"")
                session = wire_grpc.DispatcherStub(channel).Session()
                with pytest.raises(grpc.aio.AioRpcError):  # a client is no agent
                    await session.read()
                with pytest.raises(grpc.aio.AioRpcError):
                    async for _ in stub.WatchRollout(control.WatchRolloutRequest(rollout_id="nothing")):
                        pass
                held = await cluster_rollout(cluster, stub)
                await asyncio.wait_for(anext(aiter(held)), 5)
                found = await scraped(made)
                assert found.value("pyswarm_rpc_streams", method="Control/WatchRollout") == 1
                held.cancel()
                gauge = made.rpc._streams.labels("Control/WatchRollout")
                await eventually(lambda: gauge._value.get() == 0)
        finally:
            await server.stop(0)
    found = await scraped(made)
    assert found.value("pyswarm_rpc_total", method="Control/ListNodes", code="ok") == 1
    assert found.value("pyswarm_rpc_seconds_count", method="Control/ListNodes") == 1
    assert found.value("pyswarm_rpc_total", method="Control/GetService", code="not_found") == 1
    assert found.value("pyswarm_rpc_total", method="Control/GetService", code="ok") == 0
    assert found.value("pyswarm_rpc_total", method="Dispatcher/Session", code="permission_denied") == 1
    assert found.value("pyswarm_rpc_total", method="Control/WatchRollout", code="not_found") == 1
    assert found.value("pyswarm_rpc_total", method="Control/WatchRollout", code="cancelled") == 1
    assert not found.has("pyswarm_rpc_total", method="Control/Nothing")
    assert not found.has("pyswarm_rpc_seconds_count", method="Dispatcher/Session")


async def test_every_method_of_the_protos_has_a_series() -> None:
    found = await scraped(Metrics(World(), figures()))
    methods = set()
    for path in (REPOSITORY / "protos").rglob("*.proto"):
        service = ""
        for line in path.read_text().splitlines():
            if words := re.match(r"(service|\s+rpc) (\w+)", line):
                service = words[2] if words[1] == "service" else service
                if words[1] != "service":
                    methods.add(f"{service}/{words[2]}")
    assert len(methods) > 20
    assert {dict(labels)["method"] for labels in found.samples["pyswarm_rpc_total"]} == methods


async def cluster_rollout(cluster: Cluster, stub: control_grpc.ControlAsyncStub):  # type: ignore[no-untyped-def]
    """A stream that stays open."""
    await cluster.put(
        pb.Service(id="s", rollout_id="r"), pb.Rollout(id="r", service_id="s", state=pb.ROLLOUT_STATE_RUNNING)
    )
    return stub.WatchRollout(control.WatchRolloutRequest(rollout_id="r"))
