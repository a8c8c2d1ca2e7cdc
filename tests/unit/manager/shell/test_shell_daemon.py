"""The smaller parts of the daemon: settings, discovery keys, running together, codes of errors."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import pytest
from tests.support.manager import Cluster, eventually

from pyswarm_core import errors
from pyswarm_core.errors import Deposed, InvalidInput, StoreUnavailable
from pyswarm_core.kinds import LEADER_KEY
from pyswarm_core.store import base
from pyswarm_core.together import run_together
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.announce import Announcer
from pyswarm_manager.api.errors import code_of
from pyswarm_manager.settings import Settings

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
