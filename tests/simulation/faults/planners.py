"""Faults of what decides: orchestrator, rollout, scheduler, allocator."""

from __future__ import annotations

from typing import Any

from tests.simulation.faults.planted import LATE, fault, is_large, replace

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.allocator import addresses
from pyswarm_manager.allocator import service as vips
from pyswarm_manager.allocator.ranges import parse_range, to_text
from pyswarm_manager.orchestrator import history, selection, settle, view
from pyswarm_manager.plan import Put
from pyswarm_manager.rollout import batches, completion, machine, progress
from pyswarm_manager.scheduler import filters
from pyswarm_manager.scheduler.filters import Filter


def _large(view: Any, *_: Any, **__: Any) -> bool:
    return is_large(view.world)


@fault("planners")
def the_old_task_goes_before_the_new_one_serves() -> None:
    replace(settle, "_may_go", lambda before: lambda *given, is_new, leeway: not is_new, _large)


@fault("planners")
def host_ports_are_not_looked_at() -> None:
    def make(before: Any) -> Any:
        def init(self: Any, task: Any) -> None:
            before(self, task)
            self.demand.ports = ()

        return init

    replace(filters.RoomFilters, "__init__", make, lambda self, task: len(task.container.env) >= 1)


def _lets_through(*refusals: Filter) -> None:
    def make(before: Any) -> Any:
        def node_refusal(node: Any) -> Any:
            refusal = before(node)
            return None if refusal is not None and refusal.by in refusals else refusal

        return node_refusal

    replace(filters, "node_refusal", make, lambda node: node.version > LATE)


@fault("planners")
def tasks_are_placed_on_drained_nodes() -> None:
    _lets_through(Filter.DRAINED, Filter.PAUSED)


@fault("planners")
def tasks_are_placed_on_nodes_that_are_down() -> None:
    _lets_through(Filter.DOWN)


@fault("planners")
def an_address_is_free_when_its_task_is_over() -> None:
    def make(before: Any) -> Any:
        def init(self: Any, network: Any, nodes: Any, tasks: Any) -> None:
            before(self, network, nodes, [task for task in tasks if task.status.state < pb.TASK_STATE_COMPLETE])

        return init

    replace(addresses._Pool, "__init__", make, lambda self, network, nodes, *_: len(nodes) >= 5)


@fault("planners")
def every_service_gets_the_same_vip() -> None:
    replace(
        vips,
        "next_vip",
        lambda before: lambda world, network, *_: to_text(parse_range(network.vip_range).first + 1),
        is_large,
    )


@fault("planners")
def every_node_gets_the_same_block() -> None:
    replace(
        addresses._Pool,
        "_free_index",
        lambda before: lambda self: 0,
        lambda self: self._network.spec.name != "default" and len(self._of_node) >= 4,
    )


@fault("planners")
def a_rollback_keeps_environment_and_replicas() -> None:
    def make(before: Any) -> Any:
        def roll_back(given: Any, rollout: Any, reason: str) -> Any:
            advance = before(given, rollout, reason)
            for write in advance.writes:
                if isinstance(write, Put) and isinstance(write.message, pb.Service):
                    write.message.spec.replicas = given.service.spec.replicas
                    write.message.spec.task.container.env[:] = given.service.spec.task.container.env
            return advance

        return roll_back

    replace(machine, "_roll_back", make, _large)


@fault("planners")
def a_slot_whose_task_failed_stays_empty() -> None:
    def make(before: Any) -> Any:
        def next_start(slot: Any, task_spec: Any, now: float) -> Any:
            start = before(slot, task_spec, now)
            return None if start is not None and start.quick_failures else start

        return next_start

    for module in (settle, batches):
        replace(
            module, "next_start", make, lambda slot, *_: slot.key[0] >= 2 and any(t.version > LATE for t in slot.past)
        )


@fault("planners")
def tasks_are_forgotten_with_their_addresses() -> None:
    def make(before: Any) -> Any:
        def forgotten(given: Any) -> Any:
            more = [task for slot in given.slots.values() for task in slot.past if not task.addresses_free]
            return before(given) + more

        return forgotten

    replace(history, "forgotten_tasks", make, _large)


@fault("planners")
def an_overtaken_rollout_goes_on_for_ever() -> None:
    replace(machine, "supersede", lambda before: lambda given: [], _large)


@fault("planners")
def a_drained_node_keeps_its_tasks() -> None:
    for module in (settle, selection, batches):
        replace(module, "is_misplaced", lambda before: lambda *given: False, is_large)


@fault("planners")
def parallelism_is_not_kept() -> None:
    replace(view.View, "parallelism", lambda before: property(lambda self: 20), _large)


@fault("planners")
def surplus_tasks_stay() -> None:
    replace(selection, "_least_worth", lambda before: lambda *given: [], is_large)


@fault("planners")
def a_rollout_is_complete_too_soon() -> None:
    def make(before: Any) -> Any:
        def is_complete(given: Any, rollout: Any) -> bool:
            return all(p.phase != pb.SLOT_PHASE_FAILED and p.new_task_id for p in rollout.slots)

        return is_complete

    replace(completion, "is_complete", make, _large)


@fault("planners")
def a_host_that_restarts_fails_a_rollout() -> None:
    def make(before: Any) -> Any:
        def next_start(slot: Any, task_spec: Any, now: float) -> Any:
            return None

        return next_start

    replace(
        progress,
        "next_start",
        make,
        lambda slot, *_: any(task.status.ended_with_host and task.version > LATE for task in slot.tasks),
    )
