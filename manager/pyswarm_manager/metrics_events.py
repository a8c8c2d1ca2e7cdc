"""What happens in the cluster, counted as the world changes, while this manager leads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.api.views import FINISHED
from pyswarm_manager.plan import World
from pyswarm_manager.world import Change

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_SCHEDULING = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_ROLLOUT = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
_CONFIRMING = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Events:
    """A `world.Subscriber`. `restarts`: by service id; a service that is gone is not in it."""

    def __init__(self, world: World, registry: CollectorRegistry, is_leader: Callable[[], bool]) -> None:
        from prometheus_client import Histogram

        self.restarts: dict[str, int] = {}
        self._world = world
        self._is_leader = is_leader
        self._scheduling = Histogram(
            "pyswarm_scheduling_seconds",
            "From a task's creation until it had a node and addresses.",
            buckets=_SCHEDULING,
            registry=registry,
        )
        self._rollout = Histogram(
            "pyswarm_rollout_seconds",
            "How long rollouts took, by the state in which they ended.",
            ["outcome"],
            buckets=_ROLLOUT,
            registry=registry,
        )
        for state in sorted(FINISHED):
            self._rollout.labels(_outcome(state))
        self._confirming = Histogram(
            "pyswarm_endpoint_confirm_seconds",
            "From a task's becoming (in) or ceasing to be (out) an endpoint until all live nodes had confirmed it.",
            ["direction"],
            buckets=_CONFIRMING,
            registry=registry,
        )
        for direction in ("in", "out"):
            self._confirming.labels(direction)

    def changed(self, changes: Sequence[Change], revision: int) -> None:
        leads = self._is_leader()
        for change in changes:
            if change.kind == "service" and change.new is None:
                self.restarts.pop(change.id, None)
            elif not leads or change.new is None:
                continue
            elif change.kind == "task":
                self._task(cast("pb.Task | None", change.old), cast("pb.Task", change.new))
            elif change.kind == "rollout" and change.old is not None:
                self._finished(cast("pb.Rollout", change.old), cast("pb.Rollout", change.new))

    def _task(self, old: pb.Task | None, new: pb.Task) -> None:
        if old is None:
            before = self._world.tasks.get(new.predecessor_id)
            # One that is moved takes its predecessor's count over.
            if new.restarts > (before.restarts if before is not None else 0):
                self.restarts[new.service_id] = self.restarts.get(new.service_id, 0) + 1
            return
        if old.status.state < pb.TASK_STATE_ASSIGNED <= new.status.state <= pb.TASK_STATE_RUNNING:
            self._scheduling.observe(max(0.0, new.status.at - new.created_at))
        if not old.balanced_at and new.balanced_at:
            # By the agent's clock, which may differ.
            since = new.status.timings.healthy_at or new.status.at
            self._confirming.labels("in").observe(max(0.0, new.balanced_at - since))
        if not old.out_of_balancers_at and new.out_of_balancers_at and new.leaving_at:
            self._confirming.labels("out").observe(max(0.0, new.out_of_balancers_at - new.leaving_at))

    def _finished(self, old: pb.Rollout, new: pb.Rollout) -> None:
        if old.state not in FINISHED and new.state in FINISHED:
            self._rollout.labels(_outcome(new.state)).observe(max(0.0, new.finished_at - new.started_at))


def _outcome(state: pb.RolloutState.ValueType) -> str:
    return pb.RolloutState.Name(state).removeprefix("ROLLOUT_STATE_").lower()
