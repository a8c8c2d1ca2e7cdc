"""What is counted from the world at a scrape."""

from __future__ import annotations

from typing import Any

from tests.support.scrape import Scrape
from tests.unit.manager.metrics.build import NOW, World, figures, node, scraped, service, task

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.metrics import Metrics


async def scrape(world: World, **changes: Any) -> Scrape:
    return await scraped(Metrics(world, figures(**changes), clock=lambda: NOW))


async def test_nodes() -> None:
    world = World()
    drained = node("host-2", state=pb.NODE_STATE_DOWN, serving=False)
    drained.spec.availability = spec.NODE_AVAILABILITY_DRAIN
    reserving = task("web")
    reserving.spec.resources.MergeFrom(spec.Resources(reserve_nano_cpus=1_500_000_000, reserve_memory=1 << 20))
    over = task("web", 2, status=pb.TaskStatus(state=pb.TASK_STATE_FAILED))
    over.spec.resources.reserve_memory = 1 << 25
    world.put(node("host-1"), drained, reserving, over)
    found = await scrape(world, unapplied=lambda: {"host-1-id": NOW - 3})
    assert found.value("pyswarm_nodes", state="ready", availability="active") == 1
    assert found.value("pyswarm_nodes", state="down", availability="drain") == 1
    assert found.value("pyswarm_nodes", state="down", availability="active") == 0
    assert len(found.samples["pyswarm_nodes"]) == 9, "all combinations are always there"
    assert found.value("pyswarm_node_ready", node="host-1", node_id="host-1-id") == 1
    assert found.value("pyswarm_node_ready", node="host-2") == 0
    assert found.value("pyswarm_node_serving", node="host-2") == 0
    assert found.value("pyswarm_node_session", node="host-1") == 1
    assert found.value("pyswarm_node_session", node="host-2") == 0
    assert found.value("pyswarm_node_ack_lag_seconds", node="host-1") == 3
    assert found.value("pyswarm_node_ack_lag_seconds", node="host-2") == 0
    assert found.value("pyswarm_node_running_tasks", node="host-1") == 1
    assert found.value("pyswarm_node_reserved_cpu_cores", node="host-1") == 1.5
    assert found.value("pyswarm_node_reserved_memory_bytes", node="host-1") == 1 << 20, "history reserves nothing"
    assert found.value("pyswarm_node_cpu_cores", node="host-1") == 4
    assert found.value("pyswarm_node_info", node="host-1", role="worker", version="1.2", address="10.90.0.11") == 1


async def test_services_and_tasks() -> None:
    world = World()
    web = service("web", replicas=6, spec_version=2)
    web.spec.task.container.image = "web:2"
    old = task("web", 3)
    old.spec.container.image = "web:1"
    same = task("web", 4)  # made from an older version that said the same of tasks
    same.spec.container.image = "web:2"
    running = pb.TaskStatus(state=pb.TASK_STATE_RUNNING, health=pb.HEALTH_UNHEALTHY)
    world.put(
        node("host-1"),
        node("host-2", state=pb.NODE_STATE_DOWN),
        web,
        task("web", 1, spec_version=2),
        task("web", 2, spec_version=2, status=running),
        old,
        same,
        task("web", 5, node="", status=pb.TaskStatus(state=pb.TASK_STATE_PENDING)),
        task("web", 6, node="host-2", spec_version=2),
        task("web", 7, id="history", status=pb.TaskStatus(state=pb.TASK_STATE_FAILED)),
        task("web", 8, id="leaving", desired_state=pb.TASK_STATE_SHUTDOWN, leaving=True, out_of_balancers_at=NOW),
    )
    found = await scrape(world)
    assert found.value("pyswarm_services") == 1
    for what, count in (("desired", 6), ("running", 5), ("healthy", 3), ("updated", 2), ("pending", 1)):
        assert found.value(f"pyswarm_service_{what}_tasks", service="web") == count, what
    assert found.value("pyswarm_tasks", state="running") == 6
    assert found.value("pyswarm_tasks", state="failed") == 1
    assert found.value("pyswarm_tasks", state="preparing") == 0
    assert not found.has("pyswarm_tasks", state="remove")
    assert found.value("pyswarm_service_restarts_total", service="web") == 0
    assert found.value("pyswarm_service_ack_lag_seconds", service="web") == 0


async def test_a_global_service_wants_what_it_has_and_one_that_goes_wants_none() -> None:
    world = World()
    everywhere = service("agent", replicas=0)
    everywhere.spec.mode = spec.SERVICE_MODE_GLOBAL
    world.put(everywhere, task("agent", 0, id="a"), task("agent", 0, id="b"), service("web", 3, removing=True))
    found = await scrape(world)
    assert found.value("pyswarm_service_desired_tasks", service="agent") == 2
    assert found.value("pyswarm_service_desired_tasks", service="web") == 0


async def test_two_services_of_one_name_do_not_spoil_the_scrape() -> None:
    world = World()
    twin = service("web", 7)
    twin.id = "other"
    world.put(service("web", 3), twin)
    assert (await scrape(world)).value("pyswarm_service_desired_tasks", service="web") == 3


async def test_the_lag_of_confirmations() -> None:
    world = World()
    fresh = pb.TaskStatus(state=pb.TASK_STATE_RUNNING, timings=pb.Timings(healthy_at=NOW - 4))
    leaving = {"desired_state": pb.TASK_STATE_SHUTDOWN, "leaving": True, "leaving_at": NOW - 7}
    world.put(
        node("host-1"),
        *(service(name) for name in ("in", "out", "left", "never")),
        task("in", status=fresh, balanced_at=0),
        task("out", **leaving),
        task("left", **leaving, out_of_balancers_at=NOW - 6),
        task("never", **leaving, balanced_at=0),
    )
    found = await scrape(world)
    lags = {dict(k)["service"]: v for k, v in found.samples["pyswarm_service_ack_lag_seconds"].items()}
    assert lags == {"in": 4, "out": 7, "left": 0, "never": 0}


async def test_the_newest_rollout_of_each_service() -> None:
    world = World()
    world.put(
        *(service(name) for name in ("good", "bad", "now", "none")),
        pb.Rollout(id="older", service_id="good-id", state=pb.ROLLOUT_STATE_SUPERSEDED),
        pb.Rollout(
            id="good-rollout", service_id="good-id", state=pb.ROLLOUT_STATE_COMPLETED, started_at=10, finished_at=15
        ),
        pb.Rollout(
            id="bad-rollout",
            service_id="bad-id",
            state=pb.ROLLOUT_STATE_ROLLED_BACK,
            started_at=10,
            finished_at=30,
            failed=True,
            failures=2,
        ),
        pb.Rollout(id="now-rollout", service_id="now-id", started_at=NOW - 8, deadline_passed=True),
    )
    found = await scrape(world)
    assert found.value("pyswarm_rollout_state", service="good", state="completed") == 1
    assert not found.has("pyswarm_rollout_state", service="good", state="superseded")
    assert found.value("pyswarm_rollout_duration_seconds", service="good") == 5
    assert found.value("pyswarm_rollout_failed", service="good") == 0
    assert found.value("pyswarm_rollout_state", service="bad", state="rolled_back") == 1
    assert found.value("pyswarm_rollout_failed", service="bad") == 1
    assert found.value("pyswarm_rollout_failures", service="bad") == 2
    assert found.value("pyswarm_rollout_finish_timestamp_seconds", service="bad") == 30
    assert found.value("pyswarm_rollout_duration_seconds", service="now") == 8
    assert found.value("pyswarm_rollout_finish_timestamp_seconds", service="now") == 0
    assert found.value("pyswarm_rollout_failed", service="now") == 1
    assert not found.has("pyswarm_rollout_state", service="none")
    assert found.value("pyswarm_rollouts", state="superseded") == 1
    assert found.value("pyswarm_rollouts", state="paused") == 0


async def test_only_the_leader_tells_of_the_cluster() -> None:
    world = World()
    world.put(node("host-1"), service("web"), task("web"))
    found = await scrape(world, is_leader=lambda: False, leader_known=lambda: False)
    assert found.value("pyswarm_is_leader") == 0 and found.value("pyswarm_leader_known") == 0
    assert found.value("pyswarm_store_revision") == 1
    told = {name.removesuffix("_total") for name in found.samples}
    assert not {name for name in told if name.startswith(("pyswarm_service", "pyswarm_node", "pyswarm_task"))}


async def test_series_of_what_is_gone_are_gone() -> None:
    world = World()
    web, one = service("web"), node("host-1")
    world.put(one, web, task("web"))
    made = Metrics(world, figures(), clock=lambda: NOW)
    assert (await scraped(made)).has("pyswarm_service_desired_tasks", service="web")
    world.delete(web)
    world.delete(one)
    found = await scraped(made)
    for name, samples in found.samples.items():
        assert not any({"service", "node"} & {key for key, _ in has} for has in samples), name
