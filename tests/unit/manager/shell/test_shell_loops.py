"""The loops on a store in memory: with planners made for the test, and with the real ones."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager

import pytest
from tests.support.manager import Cluster, eventually
from tests.support.standing import StandingStore

from pyswarm_core.errors import Deposed
from pyswarm_core.kinds import LEADER_KEY, PREFIX
from pyswarm_core.store import base
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager import planners
from pyswarm_manager.dispatcher.acks import NodeAcks
from pyswarm_manager.loops import Loops, Planners
from pyswarm_manager.plan import Acks, Plan, Put, World, changed

NOTHING = Planners(
    allocate=lambda world, service_id, now, given: Plan(),
    converge=lambda world, acks, service_id, now, rng: Plan(),
    assign=lambda world, now: Plan(),
    drain=lambda world, acks, now: Plan(),
)


def replaced(**planners: Callable[..., Plan]) -> Planners:
    fields = {name: getattr(NOTHING, name) for name in Planners.__slots__}
    return Planners(**{**fields, **planners})


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster.make(serve=False) as cluster:
        await cluster.lead()
        yield cluster


@asynccontextmanager
async def running(
    cluster: Cluster, planners: Planners, catch_up: Callable[[int], Awaitable[None]] | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    loops = Loops(
        cluster.world,
        planners,
        cluster.writer,
        catch_up or cluster.cache.wait_for,
        NodeAcks(lambda: None),
        cluster.clock,
        random.Random(1),
    )
    task = asyncio.create_task(loops.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def service(name: str) -> pb.Service:
    return pb.Service(id=name, spec=spec.ServiceSpec(name=name))


def next_vip(world: World, service_id: str, now: float, given: Iterable[pb.Service]) -> Plan:
    """As the allocator: the lowest free number, or nothing when it has one."""
    found = world.services.get(service_id)
    if found is None or found.vips:
        return Plan()
    taken = {vip.address for other in (*world.services.values(), *given) for vip in other.vips}
    copy = changed(found)
    copy.vips.add(address=next(str(n) for n in range(1000) if str(n) not in taken))
    return Plan(steps=((Put(copy),),))


async def test_services_that_come_at_once_get_different_addresses(cluster: Cluster) -> None:
    async with running(cluster, replaced(allocate=next_vip)):
        await cluster.put(*(service(f"s{n}") for n in range(40)))
        await eventually(lambda: all(s.vips for s in cluster.world.services.values()))
    addresses = [s.vips[0].address for s in cluster.world.services.values()]
    assert len(set(addresses)) == 40


async def test_services_get_different_addresses_while_the_leaders_view_stands_still() -> None:
    store = StandingStore()
    async with Cluster.make(store=store, serve=False) as cluster:
        await cluster.lead()
        await cluster.put(*(service(f"s{n}") for n in range(5)))
        store.flows.clear()

        def addresses() -> list[str]:
            entries = store.list_now(PREFIX + "service/").entries
            return [vip.address for entry in entries for vip in pb.Service.FromString(entry.value).vips]

        async with running(cluster, replaced(allocate=next_vip), cluster.impatient):
            await eventually(lambda: len(addresses()) == 5)
            store.flows.set()
            await eventually(lambda: all(s.vips for s in cluster.world.services.values()))
        assert len(set(addresses())) == 5


async def test_a_plan_is_made_on_a_world_that_has_the_plan_before(cluster: Cluster) -> None:
    """Each run raises a counter by one. On an old world it would conflict, and be seen as a repetition."""
    seen: list[tuple[int, int]] = []

    def count(world: World, acks: Acks, service_id: str, now: float, rng: random.Random) -> Plan:
        found = world.services.get(service_id)
        if found is None or found.spec_version >= 20:
            return Plan()
        seen.append((found.spec_version, found.version))
        copy = changed(found)
        copy.spec_version += 1
        return Plan(steps=((Put(copy),),))

    async with running(cluster, replaced(converge=count)):
        await cluster.put(service("s"))
        await eventually(lambda: cluster.world.services["s"].spec_version == 20)
    assert [version for version, _ in seen] == list(range(20))


async def test_a_conflict_is_planned_anew_at_once(cluster: Cluster) -> None:
    runs = 0

    def race(world: World, acks: Acks, service_id: str, now: float, rng: random.Random) -> Plan:
        nonlocal runs
        found = world.services.get(service_id)
        if found is None or found.updated_at:
            return Plan()
        runs += 1
        copy = changed(found)
        copy.updated_at = 1
        if runs == 1:  # somebody is faster than this plan
            other = changed(found)
            other.spec_version = 7
            cluster.store.txn_now([], [base.Put("/pyswarm/v1/service/s", other.SerializeToString())])
        return Plan(steps=((Put(copy),),))

    async with running(cluster, replaced(converge=race)):
        await cluster.put(service("s"))
        await eventually(lambda: cluster.world.services["s"].updated_at)
    assert cluster.world.services["s"].spec_version == 7, "the other write is not lost"


async def test_a_planner_that_fails_does_not_stop_the_others(cluster: Cluster) -> None:
    def picky(world: World, acks: Acks, service_id: str, now: float, rng: random.Random) -> Plan:
        if service_id == "bad":
            raise ZeroDivisionError
        return next_vip(world, service_id, now, ())

    async with running(cluster, replaced(converge=picky)) as task:
        await cluster.put(service("bad"), service("good"))
        await eventually(lambda: cluster.world.services["good"].vips)
        assert not task.done()


async def test_a_planner_is_woken_at_the_time_it_names(cluster: Cluster) -> None:
    times: list[float] = []

    def later(world: World, now: float) -> Plan:
        times.append(now)
        return Plan(wake_at=now + 0.05 if len(times) < 3 else None)

    async with running(cluster, replaced(assign=later)):
        await eventually(lambda: len(times) == 3)
    assert all(b - a >= 0.05 for a, b in itertools.pairwise(times))


async def test_a_deposed_leader_stops_and_has_written_nothing(cluster: Cluster) -> None:
    async with running(cluster, replaced(allocate=next_vip)) as task:
        await eventually(lambda: True)
        cluster.store.txn_now([], [base.Delete(LEADER_KEY)])
        cluster.store.txn_now([], [base.Put(LEADER_KEY, b"")])
        await cluster.put(service("s"))
        with pytest.raises(Deposed):
            await asyncio.wait_for(task, 5)
    assert not cluster.world.services["s"].vips


async def test_the_real_planners_bring_thirty_tasks_to_running_in_few_transactions(cluster: Cluster) -> None:
    async with Cluster.make(store=cluster.store) as manager:
        term = await manager.lead()
        loops = Loops(
            manager.world,
            planners.real(),
            manager.writer,
            manager.cache.wait_for,
            term.acks,
            manager.clock,
            random.Random(1),
        )
        term.acks._advanced = loops.acknowledged
        network = pb.Network(id="net0", vni=4097, vip_range="10.128.0.0/18")
        network.spec.name, network.spec.subnet = "default", "10.128.0.0/16"
        await manager.put(network)
        agents = [manager.agent(f"n{n}", n) for n in (1, 2, 3)]
        looping = asyncio.create_task(loops.run())
        async with agents[0].running(), agents[1].running(), agents[2].running(), manager.client() as stub:
            await eventually(lambda: sum(n.serving for n in manager.world.nodes.values()) == 3)
            before = manager.store.revision
            container = spec.ContainerSpec(image="registry.test/web@sha256:" + "a" * 64)
            wanted = spec.ServiceSpec(name="web", replicas=30, task=spec.TaskSpec(container=container))
            await stub.CreateService(control.CreateServiceRequest(spec=wanted))
            await eventually(
                lambda: len(manager.world.tasks) == 30 and all(t.balanced_at for t in manager.world.tasks.values())
            )
            transactions = manager.store.revision - before
        looping.cancel()
        await asyncio.gather(looping, return_exceptions=True)
        manager.check_agents()
        assert sorted(len(a.starts) for a in agents) == [10, 10, 10]
        assert transactions < 40, "batched: 30 tasks pass 8 states each"
