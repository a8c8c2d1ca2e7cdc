"""One service as one planning run sees it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.orchestrator import selection, slots
from pyswarm_manager.orchestrator.fitness import Matches, best, is_gone, is_lost, is_unhealthy
from pyswarm_manager.orchestrator.slots import Key, Slot
from pyswarm_manager.plan import World

ACTIVE = (pb.ROLLOUT_STATE_RUNNING, pb.ROLLOUT_STATE_ROLLING_BACK)


@dataclass(frozen=True, slots=True)
class View:
    """`rollout`: the service's newest, in whatever state; None for a service that never had one."""

    world: World
    service: pb.Service
    rollout: pb.Rollout | None
    slots: Mapping[Key, Slot]
    selection: selection.Selection
    now: float
    rng: random.Random
    matches: Matches

    @staticmethod
    def of(world: World, service: pb.Service, now: float, rng: random.Random, matches: Matches) -> View:
        is_global = service.spec.mode == spec.SERVICE_MODE_GLOBAL
        grouped = slots.group(world.tasks_of_service(service.id), is_global=is_global)
        select = selection.global_ if is_global else selection.replicated
        rollout = world.rollouts.get(service.rollout_id)
        chosen = select(world, service, grouped, matches)
        return View(world, service, rollout, grouped, chosen, now, rng, matches)

    @property
    def wanted(self) -> tuple[Slot, ...]:
        return self.selection.wanted

    @property
    def target(self) -> spec.TaskSpec:
        return self.service.spec.task

    @property
    def is_active(self) -> bool:
        """A rollout is being carried out."""
        return self.rollout is not None and self.rollout.state in ACTIVE

    @property
    def is_paused(self) -> bool:
        """The newest rollout was given up: nothing changes its version by itself."""
        return self.rollout is not None and self.rollout.state == pb.ROLLOUT_STATE_PAUSED

    @property
    def is_backward(self) -> bool:
        """The newest rollout goes, or went, back to an earlier spec: the rollback policy holds."""
        return self.rollout is not None and (
            self.rollout.generation > 0 or self.rollout.kind == pb.ROLLOUT_KIND_ROLLBACK
        )

    @property
    def policy(self) -> spec.UpdatePolicy:
        """While a rollout is carried out, its own; afterwards the update policy."""
        return self.service.spec.rollback if self.is_active and self.is_backward else self.service.spec.update

    @property
    def parallelism(self) -> int:
        """Slots at a time; 0 in the policy means all."""
        return self.policy.parallelism or max(1, len(self.wanted))

    def current(self, slot: Slot) -> pb.Task | None:
        """The slot's living task of the service's spec: None while there is none that is of use."""
        usable = [
            task
            for task in slot.wanted
            if task.spec == self.target
            and not is_unhealthy(task)
            and not self.is_away(task)
            and not self._is_kept_out(task)
        ]
        return best(self.world, usable)

    def _is_kept_out(self, task: pb.Task) -> bool:
        """Of a global service, made just before its node was paused, which takes nothing new and keeps what runs."""
        node = self.world.nodes.get(task.node_id)
        paused = node is not None and node.spec.availability == spec.NODE_AVAILABILITY_PAUSE
        return paused and task.status.state < pb.TASK_STATE_ASSIGNED

    def is_away(self, task: pb.Task) -> bool:
        return is_lost(self.world, task) or is_gone(self.world, task)

    def living(self) -> Iterator[tuple[Slot, pb.Task]]:
        """Every task that is not terminal, on a node that is alive or on no node yet."""
        for slot in self.slots.values():
            for task in slot.wanted + slot.going:
                if not self.is_away(task):
                    yield slot, task
