"""One crash at every single write point: `python -m tests.simulation.crashes [SCENARIO…]`.

Each scenario runs once to count its write points: before and after each transaction of a manager, before each record of
an agent's journal. Then once more for each of them: the process that is about to write, or has just written, is killed
there and started again; everything must end as if nothing had happened, and nothing forbidden may happen on the way."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from tests.simulation import virtual
from tests.simulation.checked import Checked
from tests.simulation.checks.settled import unsettled
from tests.simulation.cluster import Cluster
from tests.simulation.run import quiet
from tests.simulation.user import User
from tests.simulation.virtual import later

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

SETTLED_WITHIN = 300.0  # simulated seconds
BACK_AFTER = 1.5


@dataclass(frozen=True, slots=True)
class Point:
    """The `number`-th write of a manager (before or after it), or of an agent's journal."""

    who: str
    number: int


KINDS = ("manager before", "manager after", "agent")


@dataclass(frozen=True, slots=True)
class Result:
    scenario: str
    point: Point | None
    points: Counter[str]
    wrong: str
    story: tuple[str, ...] = ()


class Scene:
    """What a scenario does with its cluster; it is there, with one service of three tasks."""

    def __init__(self, cluster: Cluster, user: User) -> None:
        self.cluster = cluster
        self.user = user
        self.rng = random.Random(1)

    @property
    def service(self) -> pb.Service:
        return next(one for one in self.cluster.truth.services.values() if one.spec.name == "web")

    async def create(self) -> None:
        update = spec.UpdatePolicy(parallelism=1, monitor=1.0, deadline=120)
        container = spec.ContainerSpec(image="sim/good:v1", stop_grace=1.0)
        container.probe.CopyFrom(spec.Probe(command=spec.StringList(values=["check"]), interval=2.0, retries=2))
        wanted = spec.ServiceSpec(name="web", replicas=3, update=update, rollback=update)
        wanted.task.container.CopyFrom(container)
        wanted.task.drain_timeout = 1.0
        wanted.ports.add(target=80, published=8080)
        while not any(one.spec.name == "web" for one in self.cluster.truth.services.values()):
            await self.user.create(wanted, self.rng)  # its manager may be killed while it is asked
            await asyncio.sleep(0.5)

    async def change(self, image: str) -> None:
        while self.service.spec.task.container.image != f"docker.io/{image}" and self.service.spec_version < 2:
            await self.user.change_image("web", image, self.rng)
            await asyncio.sleep(0.5)

    async def finished(self) -> None:
        truth = self.cluster.truth
        await self.cluster.until(lambda: truth.rollouts[self.service.rollout_id].finished_at > 0, SETTLED_WITHIN)

    def rollout(self) -> pb.Rollout:
        return self.cluster.truth.rollouts[self.service.rollout_id]


async def deploy(scene: Scene) -> str:
    await scene.create()
    await scene.finished()
    return "" if scene.rollout().state == pb.ROLLOUT_STATE_COMPLETED else "the deploy did not complete"


async def update(scene: Scene) -> str:
    await scene.change("sim/good:v2")
    await scene.finished()
    return "" if scene.rollout().state == pb.ROLLOUT_STATE_COMPLETED else "the update did not complete"


async def roll_back(scene: Scene) -> str:
    before = spec.ServiceSpec()
    before.CopyFrom(scene.service.spec)
    await scene.change("sim/crash:v2")
    await scene.finished()
    if scene.rollout().state != pb.ROLLOUT_STATE_ROLLED_BACK:
        return "the update was not rolled back"
    return "" if scene.service.spec == before else "the spec is not what it was"


async def drain(scene: Scene) -> str:
    truth = scene.cluster.truth
    node_id = min(task.node_id for task in truth.tasks.values())
    while truth.nodes[node_id].spec.availability != spec.NODE_AVAILABILITY_DRAIN:
        await scene.user.set_availability(node_id, spec.NODE_AVAILABILITY_DRAIN, scene.rng)
        await asyncio.sleep(0.5)

    def is_empty() -> bool:
        return not any(task.status.state < pb.TASK_STATE_COMPLETE for task in truth.tasks_of_node(node_id))

    return "" if await scene.cluster.until(is_empty, SETTLED_WITHIN) else "the node was not emptied"


async def node_loss(scene: Scene) -> str:
    cluster = scene.cluster
    scene.cluster.kill_host("host-4")
    lost = lambda: cluster.truth.nodes["node-4"].state == pb.NODE_STATE_DOWN  # noqa: E731
    if not await cluster.until(lost, 60):
        return "the loss was not noticed"
    await asyncio.sleep(10.0)
    cluster.start_host("host-4")
    return ""


SCENARIOS: dict[str, Callable[[Scene], Awaitable[str]]] = {
    "deploy": deploy,
    "update": update,
    "roll back": roll_back,
    "drain": drain,
    "node loss": node_loss,
}


def play(scenario: str, point: Point | None) -> Result:
    """`point` None: nobody is killed, and the points are counted."""
    quiet()
    return virtual.run(_play(scenario, point))


async def _play(scenario: str, point: Point | None) -> Result:
    cluster = Cluster(7, nodes=4)
    checked = Checked(cluster)
    points: Counter[str] = Counter()
    scene = Scene(cluster, checked.user)
    try:
        cluster.start()
        await cluster.until(cluster.nodes_ready, 60)
        if scenario != "deploy":
            await scene.create()
            await scene.finished()
            await asyncio.sleep(3.0)
        _arm(cluster, point, points)
        wrong = await SCENARIOS[scenario](scene)
        if not wrong:
            await cluster.until(lambda: not unsettled(cluster), SETTLED_WITHIN)
            wrong = "; ".join(unsettled(cluster)[:4])
    finally:
        checked.close()
    finding = cluster.findings.first
    if finding is not None:
        return Result(scenario, point, points, f"{finding.invariant}: {finding.text}", finding.story)
    return Result(scenario, point, points, wrong, tuple(cluster.trace.story((), 60)) if wrong else ())


def _arm(cluster: Cluster, point: Point | None, points: Counter[str]) -> None:
    def is_here(who: str) -> bool:
        points[who] += 1
        return point is not None and point == Point(who, points[who])

    def at_manager_write(manager: object, after: bool) -> None:
        for name, running in list(cluster.managers.items()):
            if running is manager and is_here(KINDS[after]):
                cluster.kill_manager(name)
                later(BACK_AFTER, cluster.start_manager, name)

    def at_journal_write(agent: object) -> None:
        for name, running in list(cluster.agents.items()):
            if running is agent and is_here("agent"):
                cluster.kill_agent(name)
                later(BACK_AFTER, cluster.start_agent, name)

    cluster.at_manager_write = at_manager_write
    cluster.at_journal_write = at_journal_write


def points_of(scenario: str) -> list[Point]:
    counted = play(scenario, None)
    assert not counted.wrong, f"{scenario} goes wrong without a crash: {counted.wrong}"
    return [Point(who, number) for who in KINDS for number in range(1, counted.points[who] + 1)]


def _one(given: tuple[str, Point]) -> Result:
    return play(*given)


def play_all(scenarios: Sequence[str], jobs: int, every: int = 1) -> list[Result]:
    """All points, or every so many."""
    todo = [(scenario, point) for scenario in scenarios for point in points_of(scenario)[::every]]
    if jobs == 1:
        return [_one(one) for one in todo]
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=200) as pool:
        return list(pool.map(_one, todo, chunksize=8))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.crashes", description=__doc__)
    parser.add_argument("scenarios", nargs="*", default=[], choices=[*SCENARIOS, []])
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--every", type=int, default=1, help="only one point in so many")
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        again = os.environ | {"PYTHONHASHSEED": "0", "GRPC_ENABLE_FORK_SUPPORT": "0"}
        os.execve(sys.executable, [sys.executable, "-m", "tests.simulation.crashes", *sys.argv[1:]], again)

    from tests.simulation import crashes

    results = crashes.play_all(arguments.scenarios or list(SCENARIOS), arguments.jobs, arguments.every)
    wrong = [result for result in results if result.wrong]
    for result in wrong[:5]:
        print("\n".join(result.story))
    for result in wrong:
        print(f"{result.scenario}, {result.point}: {result.wrong}")
    for scenario in SCENARIOS:
        of_it = [result for result in results if result.scenario == scenario]
        print(f"{scenario:10} {len(of_it)} crashes, {sum(bool(result.wrong) for result in of_it)} went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
