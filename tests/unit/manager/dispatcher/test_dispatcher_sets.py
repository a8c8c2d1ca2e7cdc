"""What sessions are owed: assignments, and the cache of derived endpoints."""

from __future__ import annotations

import random

from pyswarm_core.kinds import Stored
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.dispatcher.assignments import AssignmentSet
from pyswarm_manager.dispatcher.attached import Attached
from pyswarm_manager.dispatcher.derived import EndpointCache
from pyswarm_manager.endpoints import derive
from pyswarm_manager.plan import World, changed
from pyswarm_manager.world import CachedWorld

KINDS = {
    pb.Task: "task",
    pb.Service: "service",
    pb.Node: "node",
    pb.Network: "network",
    pb.RegistryAuth: "registryauth",
}


class Store(CachedWorld):
    """A world that a test writes to."""

    def put(self, message: Stored) -> None:
        kind = KINDS[type(message)]
        copy = changed(message)
        copy.version = self.revision + 1
        self.on_change(kind, message.id, self._objects[kind].get(message.id), copy)
        self.on_revision(self.revision + 1)

    def drop(self, message: Stored) -> None:
        kind = KINDS[type(message)]
        self.on_change(kind, message.id, self._objects[kind].get(message.id), None)
        self.on_revision(self.revision + 1)


def task(task_id: str, state: int = pb.TASK_STATE_ASSIGNED, **fields: object) -> pb.Task:
    fields.setdefault("node_id", "n")
    return pb.Task(
        id=task_id,
        service_id="s",
        desired_state=pb.TASK_STATE_RUNNING,
        status=pb.TaskStatus(state=state),
        addresses=[pb.TaskAddress(network_id="net", address="10.0.0.1")],
        **fields,
    )


def test_the_first_set_is_complete_even_when_empty_and_then_nothing_follows() -> None:
    world = Store()
    assignments = AssignmentSet("n")
    first = assignments.update(world, ())
    assert first is not None and first.complete and first.seq == 1
    assert assignments.update(world, ()) is None


def test_only_what_the_agent_acts_on_is_sent_again() -> None:
    world = Store()
    world.put(task("t"))
    assignments = AssignmentSet("n")
    assert assignments.update(world, ()) is not None
    world.put(task("t", pb.TASK_STATE_RUNNING))
    assignments.touch(["t"])
    assert assignments.update(world, ()) is None, "its own status is no news to it"
    for change in ("leaving", "released", "addresses_free"):
        order = changed(world.tasks["t"])
        setattr(order, change, True)
        world.put(order)
        assignments.touch(["t"])
        update = assignments.update(world, ())
        assert update is not None and not update.complete
        assert [getattr(t, change) for t in update.tasks] == [True]
    world.drop(task("t"))
    assignments.touch(["t"])
    update = assignments.update(world, ())
    assert update is not None and list(update.removed_tasks) == ["t"]


def test_tasks_before_their_assignment_and_tasks_of_others_are_not_sent() -> None:
    world = Store()
    world.put(task("new", pb.TASK_STATE_PENDING))
    world.put(task("other", node_id="m"))
    update = AssignmentSet("n").update(world, ())
    assert update is not None and not update.tasks


def test_a_task_that_the_agent_has_and_the_manager_does_not_is_removed_from_it() -> None:
    world = Store()
    world.put(task("mine"))
    world.put(task("other", node_id="m"))
    assignments = AssignmentSet("n")
    assignments.update(world, ())
    mentioned = [assignments.mention(task_id, world) for task_id in ("mine", "other", "ghost")]
    assert mentioned == [False, True, True]
    update = assignments.update(world, ())
    assert update is not None and sorted(update.removed_tasks) == ["ghost", "other"]
    assert assignments.update(world, ()) is None


def test_credentials_of_finished_tasks_are_not_sent() -> None:
    world = Store()
    world.put(pb.RegistryAuth(id="s", password="x"))
    world.put(task("t", pb.TASK_STATE_FAILED))
    update = AssignmentSet("n").update(world, ())
    assert update is not None and not update.auths


def test_networks_of_all_services_and_those_with_blocks() -> None:
    world = Store()
    for name in ("attached", "with-block", "idle", "net"):
        world.put(pb.Network(id=name, blocks=[pb.Block(node_id="x")] if name == "with-block" else []))
    world.put(task("t"))
    update = AssignmentSet("n").update(world, {"attached"})
    assert update is not None
    assert sorted(n.id for n in update.networks) == ["attached", "net", "with-block"]


def test_the_network_of_a_new_address_comes_with_the_task() -> None:
    world = Store()
    world.put(pb.Network(id="net"))
    assignments = AssignmentSet("n")
    first = assignments.update(world, ())
    assert first is not None and not first.networks
    world.put(task("t"))
    assignments.touch(["t"])
    update = assignments.update(world, ())
    assert update is not None and [n.id for n in update.networks] == ["net"]


def test_touching_what_changes_gives_what_a_full_look_would() -> None:
    rng = random.Random(5)
    world = Store()
    assignments = AssignmentSet("n")
    have: dict[str, pb.Task] = {}
    for _ in range(2000):
        task_id = f"t{rng.randrange(30)}"
        if task_id in world.tasks and rng.random() < 0.3:
            world.drop(world.tasks[task_id])
        else:
            state = rng.choice([pb.TASK_STATE_NEW, pb.TASK_STATE_ASSIGNED, pb.TASK_STATE_RUNNING])
            world.put(task(task_id, state, node_id=rng.choice(["n", "n", "m"]), leaving=rng.random() < 0.5))
        assignments.touch([task_id])
        if rng.random() < 0.2 and (update := assignments.update(world, ())) is not None:
            have.update((t.id, t) for t in update.tasks)
            for removed in update.removed_tasks:
                del have[removed]
            whole = AssignmentSet("n").update(world, ())
            assert whole is not None
            assert {t.id: t.leaving for t in whole.tasks} == {i: t.leaving for i, t in have.items()}


def test_attached_networks_are_counted() -> None:
    def on(service_id: str, *networks: str) -> pb.Service:
        return pb.Service(id=service_id, vips=[pb.Vip(network_id=network) for network in networks])

    attached = Attached([on("a", "x", "y")])
    assert set(attached.networks) == {"x", "y"}
    assert not attached.change(None, on("b", "x"))
    assert attached.change(None, on("c", "z"))
    assert not attached.change(on("a", "x", "y"), on("a", "y"))
    assert attached.change(on("b", "x"), None)
    assert attached.change(on("c", "z"), on("c", "w")), "one came and one went"
    assert set(attached.networks) == {"y", "w"}


class Replica:
    """What one session's agent has, by a cursor."""

    def __init__(self) -> None:
        self.cursor: int | None = None
        self.services: dict[str, ep.ServiceEndpoints] = {}
        self.complete = 0

    def follow(self, cache: EndpointCache) -> int:
        delta = cache.since(self.cursor)
        if delta.is_complete:
            self.services.clear()
            self.complete += 1
        self.services.update((s.service_id, s) for s in delta.services)
        for service_id in delta.removed:
            self.services.pop(service_id, None)
        self.cursor = delta.cursor
        return len(delta.services) + len(delta.removed)


def serve(world: Store, service_id: str, running: bool = True) -> None:
    world.put(pb.Service(id=service_id, spec=spec.ServiceSpec(name=service_id, replicas=1)))
    state = pb.TASK_STATE_RUNNING if running else pb.TASK_STATE_ASSIGNED
    one = task(f"{service_id}.1", state)
    one.service_id = service_id
    world.put(one)


def test_replicas_at_any_pace_end_with_the_same_whatever_happened() -> None:
    rng = random.Random(3)
    world, cache = Store(), EndpointCache(derive)
    world.put(pb.Node(id="n", state=pb.NODE_STATE_READY))
    replicas = [Replica() for _ in range(4)]
    names = [f"s{n}" for n in range(12)]
    for step in range(600):
        name = rng.choice(names)
        match rng.randrange(3):
            case 0:
                serve(world, name, running=rng.random() < 0.5)
            case 1 if name in world.services:
                for one in world.tasks_of_service(name):
                    world.drop(one)
                world.drop(world.services[name])
        cache.refresh(world, name, float(step))
        for pace, replica in enumerate(replicas, 1):
            if step % (pace * pace) == 0:
                replica.follow(cache)
    truth = {i: e for i in names if (e := derive.derive(world, i, 0.0, 0.0)) and (i in world.services or e.endpoints)}
    for replica in replicas:
        replica.follow(cache)
        assert replica.services.keys() == truth.keys()
        assert all(list(replica.services[i].endpoints) == list(truth[i].endpoints) for i in truth)
        assert replica.complete == 1


def test_a_delta_costs_what_has_changed_and_an_equal_derivation_nothing() -> None:
    world, cache, replica = Store(), EndpointCache(derive), Replica()
    world.put(pb.Node(id="n", state=pb.NODE_STATE_READY))
    for n in range(300):
        serve(world, f"s{n}")
        cache.refresh(world, f"s{n}", 0.0)
    assert replica.follow(cache) == 300
    cache.refresh(world, "s7", 1.0)
    assert replica.follow(cache) == 0
    world.drop(world.tasks["s7.1"])
    cache.refresh(world, "s7", 2.0)
    assert replica.follow(cache) == 1


def test_who_has_missed_too_many_removals_gets_everything() -> None:
    world, cache, slow = Store(), EndpointCache(derive, graves=5), Replica()
    slow.follow(cache)
    for n in range(10):
        serve(world, f"s{n}")
        cache.refresh(world, f"s{n}", 0.0)
    slow.follow(cache)
    for n in range(10):
        world.drop(world.tasks[f"s{n}.1"])
        world.drop(world.services[f"s{n}"])
        cache.refresh(world, f"s{n}", 0.0)
    slow.follow(cache)
    assert slow.services == {}
    assert slow.complete == 2


class OneHold:
    """A deriver: holds for 30 s from when it became empty."""

    serving = True

    def derive(self, world: World, service_id: str, now: float, empty_since: float | None) -> ep.ServiceEndpoints:
        held = not self.serving and empty_since is not None and now < empty_since + 30
        return ep.ServiceEndpoints(service_id=service_id, hold=held)

    def hold_until(self, world: World, service_id: str, now: float, empty_since: float | None) -> float | None:
        if self.serving or empty_since is None or now >= empty_since + 30:
            return None
        return empty_since + 30

    def is_serving(self, world: World, service_id: str) -> bool:
        return self.serving


def test_a_hold_is_counted_from_the_moment_the_service_became_empty() -> None:
    world, deriver = Store(), OneHold()
    cache = EndpointCache(deriver)
    world.put(pb.Service(id="s"))
    assert cache.refresh(world, "s", 0.0) is None
    deriver.serving = False
    assert cache.refresh(world, "s", 100.0) == 130.0
    assert cache.refresh(world, "s", 110.0) == 130.0, "looking again does not prolong it"
    assert cache.since(None).services[0].hold
    assert cache.refresh(world, "s", 130.0) is None
    assert not cache.since(None).services[0].hold
    deriver.serving = True
    cache.refresh(world, "s", 140.0)
    deriver.serving = False
    assert cache.refresh(world, "s", 150.0) == 180.0
