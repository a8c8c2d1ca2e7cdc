"""The smaller parts of the daemon: settings, metrics, discovery keys, running together, codes of errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest
from tests.support.etcd import free_port
from tests.support.manager import Cluster, eventually

from pyswarm_core import errors
from pyswarm_core.errors import Deposed, InvalidInput, PreconditionFailed, StoreUnavailable
from pyswarm_core.kinds import LEADER_KEY
from pyswarm_core.store import base
from pyswarm_core.store.memory import MemoryStore
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager import metrics
from pyswarm_manager.announce import Announcer
from pyswarm_manager.api.errors import code_of
from pyswarm_manager.settings import Settings
from pyswarm_manager.together import run_together
from pyswarm_manager.world import CachedWorld

SETTINGS = Settings(manager_id="m", advertise="10.0.0.1:2377", etcd_endpoints=("10.0.0.1:2379",))


@pytest.mark.parametrize(
    "wrong",
    [
        {"manager_id": ""},
        {"etcd_endpoints": ()},
        {"advertise": "10.0.0.1"},
        {"listen": "host:port"},
        {"listen": ":2377"},
        {"metrics_addr": "127.0.0.1:99999"},
        {"lease_ttl": 1},
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused_with_a_sentence(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match=r"^[A-Z].*\.$"):
        replace(SETTINGS, **wrong)


def test_every_error_has_a_code() -> None:
    def all_of(kind: type[BaseException]) -> list[type[BaseException]]:
        return [kind, *(deeper for sub in kind.__subclasses__() for deeper in all_of(sub))]

    own = [k for k in all_of(errors.PyswarmError) if k.__module__ == errors.__name__]
    for kind in own:
        error = kind(5) if kind is errors.Compacted else kind("x")
        code = code_of(error)  # type: ignore[arg-type]
        if kind not in (errors.PyswarmError, errors.Compacted):
            assert code != grpc.StatusCode.INTERNAL, kind
    assert code_of(StoreUnavailable("x")) == grpc.StatusCode.UNAVAILABLE


async def test_what_runs_together_ends_together_and_the_error_is_not_wrapped() -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("forever")

    async def fail() -> None:
        raise Deposed("x")

    async def finish() -> None:
        return

    with pytest.raises(Deposed):
        await run_together(forever(), fail())
    await run_together(forever(), finish())
    together = asyncio.create_task(run_together(forever(), forever()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    together.cancel()
    with pytest.raises(asyncio.CancelledError):
        await together
    assert ended == ["forever"] * 4


async def get(address: str, request: str) -> tuple[str, str]:
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request.encode())
    head, _, body = (await asyncio.wait_for(reader.read(), 5)).decode().partition("\r\n\r\n")
    writer.close()
    return head.split("\r\n")[0], body


def full_world() -> CachedWorld:
    world = CachedWorld()
    world.on_change("node", "n", None, pb.Node(id="n", state=pb.NODE_STATE_READY))
    service = pb.Service(id="s", spec=spec.ServiceSpec(name="web", replicas=3))
    world.on_change("service", "s", None, service)
    for number, state in enumerate((pb.TASK_STATE_RUNNING, pb.TASK_STATE_RUNNING, pb.TASK_STATE_FAILED)):
        health = pb.HEALTH_UNHEALTHY if number else pb.HEALTH_NONE
        task = pb.Task(id=f"t{number}", service_id="s", status=pb.TaskStatus(state=state, health=health))
        task.desired_state = pb.TASK_STATE_RUNNING
        world.on_change("task", task.id, None, task)
    world.on_change("rollout", "r", None, pb.Rollout(id="r", service_id="s"))
    world.on_revision(77)
    return world


async def test_metrics_are_served_and_count_the_cluster() -> None:
    figures = metrics.Figures(lambda: True, lambda: 4, lambda: {"loops": 2})
    made = metrics.Metrics(full_world(), figures)
    made.observe_loop("service/abc", 0.01, 0.02)
    made.observe_loop("service/def", 0.01, 0.02)
    made.observe_call("txn", 0.003, StoreUnavailable("x"))
    address = f"127.0.0.1:{free_port()}"
    server = await metrics.serve(address, made.registry)
    async with server:
        status, body = await get(address, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status == "HTTP/1.1 200 OK"
        for line in (
            "pyswarm_is_leader 1.0",
            "pyswarm_store_revision 77.0",
            "pyswarm_agent_sessions 4.0",
            'pyswarm_nodes{state="ready"} 1.0',
            'pyswarm_tasks{state="running"} 2.0',
            'pyswarm_tasks{state="failed"} 1.0',
            'pyswarm_rollouts{state="running"} 1.0',
            "pyswarm_rollouts_active 1.0",
            'pyswarm_queue_depth{queue="loops"} 2.0',
            'pyswarm_service_desired{service="web"} 3.0',
            'pyswarm_service_running{service="web"} 2.0',
            'pyswarm_service_healthy{service="web"} 1.0',
            'pyswarm_loop_wait_seconds_count{loop="service"} 2.0',
            'pyswarm_etcd_errors_total{call="txn",error="StoreUnavailable"} 1.0',
        ):
            assert line in body.splitlines(), line
        assert (await get(address, "GET / HTTP/1.1\r\n\r\n"))[0].startswith("HTTP/1.1 404")
        assert (await get(address, "POST /metrics HTTP/1.1\r\n\r\n"))[0].startswith("HTTP/1.1 405")
        assert (await get(address, "GET /" + "x" * 40_000)) == ("", "")
        with pytest.raises(PreconditionFailed, match="cannot be used"):
            await metrics.serve(address, made.registry)


async def test_a_metered_store_tells_of_each_call_and_changes_nothing() -> None:
    calls: list[tuple[str, str]] = []
    inner = MemoryStore()
    store = metrics.MeteredStore(inner, lambda call, took, error: calls.append((call, type(error).__name__)))
    await store.txn([], [base.Put("/k", b"v")])
    assert (await store.get("/k")).value == b"v"  # type: ignore[union-attr]
    inner.set_available(False)
    with pytest.raises(StoreUnavailable):
        await store.list("/")
    assert calls == [("txn", "NoneType"), ("get", "NoneType"), ("list", "StoreUnavailable")]


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster.make(serve=False) as cluster:
        await cluster.lead()
        yield cluster


def fence(cluster: Cluster) -> base.Compare:
    return base.Compare(LEADER_KEY, base.Field.CREATE, cluster.leader_revision)


def discovered(cluster: Cluster) -> dict[str, list[str]]:
    """Service name → its endpoints' task names."""
    entries = cluster.store.list_now("/pyswarm/discovery/services/").entries
    values = [json.loads(entry.value) for entry in entries]
    return {value["name"]: [e["task"] for e in value["endpoints"]] for value in values}


def service(name: str) -> pb.Service:
    return pb.Service(id=name, spec=spec.ServiceSpec(name=name, replicas=1))


def task(name: str, state: int = pb.TASK_STATE_RUNNING) -> pb.Task:
    return pb.Task(
        id=f"{name}-task",
        service_id=name,
        service_name=name,
        slot=1,
        node_id="n",
        desired_state=pb.TASK_STATE_RUNNING,
        status=pb.TaskStatus(state=state),
        addresses=[pb.TaskAddress(network_id="net", address="10.0.0.9")],
    )


async def test_discovery_keys_follow_the_services(cluster: Cluster) -> None:
    cluster.store.txn_now([], [base.Put("/pyswarm/discovery/services/stale", b'{"name":"stale","endpoints":[]}')])
    await cluster.put(pb.Node(id="n", state=pb.NODE_STATE_READY), service("web"))
    announcing = asyncio.create_task(Announcer(cluster.world, cluster.store, fence(cluster), cluster.clock).run())
    try:
        await eventually(lambda: discovered(cluster) == {"web": []})
        await cluster.put(task("web"), service("db"))
        await eventually(lambda: discovered(cluster) == {"web": ["web.1"], "db": []})
        await cluster.put(pb.Node(id="n", state=pb.NODE_STATE_DOWN))
        await eventually(lambda: discovered(cluster) == {"web": [], "db": []})
        cluster.store.set_available(False)
        await asyncio.sleep(0.05)
        cluster.store.set_available(True)
        await cluster.delete(service("db"))
        await eventually(lambda: discovered(cluster) == {"web": []})
        before = cluster.store.revision
        await cluster.put(task("web", pb.TASK_STATE_PREPARING))
        await asyncio.sleep(0.4)
        assert cluster.store.revision == before + 1, "nothing is written that is there already"
    finally:
        announcing.cancel()
        await asyncio.gather(announcing, return_exceptions=True)


async def test_a_deposed_leader_announces_nothing(cluster: Cluster) -> None:
    old = fence(cluster)
    await cluster.lead()
    await cluster.put(service("web"))
    with pytest.raises(Deposed):
        await asyncio.wait_for(Announcer(cluster.world, cluster.store, old, cluster.clock).run(), 5)
    assert discovered(cluster) == {}
