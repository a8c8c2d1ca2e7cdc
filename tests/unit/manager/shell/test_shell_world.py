from __future__ import annotations

import random

from pyswarm_core.kinds import Stored
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.world import CachedWorld, Change


def put(world: CachedWorld, old: Stored | None, new: Stored) -> Stored:
    world.on_change("task", new.id, old, new)
    return new


def test_indexes_follow_creation_assignment_moves_and_deletion() -> None:
    world = CachedWorld()
    first = put(world, None, pb.Task(id="t1", service_id="s"))
    world.on_revision(1)
    assert world.tasks_of_service("s") == (first,)
    assert world.tasks_of_node("n") == ()
    second = put(world, first, pb.Task(id="t1", service_id="s", node_id="n"))
    world.on_revision(2)
    assert world.tasks_of_node("n") == (second,)
    assert world.tasks_of_service("s") == (second,)
    third = put(world, second, pb.Task(id="t1", service_id="s", node_id="m"))
    assert world.tasks_of_node("n") == ()
    assert world.tasks_of_node("m") == (third,)
    world.on_change("task", "t1", third, None)
    assert world.tasks_of_node("m") == world.tasks_of_service("s") == ()
    assert not world.tasks
    assert world.revision == 2


def test_indexes_equal_a_scan_after_any_changes() -> None:
    rng = random.Random(7)
    world = CachedWorld()
    for _ in range(3000):
        task_id = f"t{rng.randrange(40)}"
        old = world.tasks.get(task_id)
        if old is not None and rng.random() < 0.3:
            world.on_change("task", task_id, old, None)
        else:
            new = pb.Task(id=task_id, service_id=f"s{rng.randrange(4)}", node_id=rng.choice(["", "n1", "n2"]))
            put(world, old, new)
    for service in ("s0", "s1", "s2", "s3", "s4"):
        wanted = {t.id for t in world.tasks.values() if t.service_id == service}
        assert {t.id for t in world.tasks_of_service(service)} == wanted
    for node in ("n1", "n2"):
        assert {t.id for t in world.tasks_of_node(node)} == {t.id for t in world.tasks.values() if t.node_id == node}
    assert world.tasks_of_node("") == ()


def test_subscribers_hear_whole_revisions_and_a_faulty_one_does_not_stop_the_rest() -> None:
    world = CachedWorld()
    heard: list[tuple[list[Change], int]] = []

    def faulty(changes: object, revision: int) -> None:
        raise ValueError

    world.subscribe(faulty)
    cancel = world.subscribe(lambda changes, revision: heard.append((list(changes), revision)))
    node = pb.Node(id="n")
    world.on_change("node", "n", None, node)
    assert heard == []
    world.on_revision(5)
    world.on_revision(6)
    assert heard == [([Change("node", "n", None, node)], 5), ([], 6)]
    cancel()
    world.on_revision(7)
    assert len(heard) == 2
