"""--update-* and --rollback-*: how a service's tasks are replaced, and how that is taken back."""

from __future__ import annotations

from typing import Any

from pyswarm_cli.flags.model import Apply, Flag, Options
from pyswarm_cli.flags.scalars import Service, choice, count
from pyswarm_cli.parse import durations, numbers
from pyswarm_core.v1 import spec_pb2 as spec

ORDERS = choice(start_first=spec.UPDATE_ORDER_START_FIRST, stop_first=spec.UPDATE_ORDER_STOP_FIRST)
UPDATE_FAILURE_ACTIONS = choice(
    rollback=spec.FAILURE_ACTION_ROLLBACK, pause=spec.FAILURE_ACTION_PAUSE, continue_=spec.FAILURE_ACTION_CONTINUE
)
# A rollback that fails is not rolled back in turn.
ROLLBACK_FAILURE_ACTIONS = choice(pause=spec.FAILURE_ACTION_PAUSE, continue_=spec.FAILURE_ACTION_CONTINUE)
PARALLELISM = count("the parallelism", 0, numbers.MAX_REPLICAS)


def default_policy(which: str) -> spec.UpdatePolicy:
    """What holds when nothing is said. Sent whole as soon as one field is given: 0 of the others has a meaning."""
    return spec.UpdatePolicy(
        parallelism=1,
        monitor=5,
        order=spec.UPDATE_ORDER_START_FIRST,
        failure_action=spec.FAILURE_ACTION_ROLLBACK if which == "update" else spec.FAILURE_ACTION_PAUSE,
        deadline=600,
    )


def policy(service: Service, which: str) -> spec.UpdatePolicy:
    """The policy `update` or `rollback` of a spec, to be changed."""
    if not service.HasField(which):  # type: ignore[arg-type]
        getattr(service, which).CopyFrom(default_policy(which))
    found: spec.UpdatePolicy = getattr(service, which)
    return found


def _set(which: str, field: str) -> Apply:
    def apply(service: Service, value: Any, _: Options) -> None:
        setattr(policy(service, which), field, value)

    return apply


def _flags(which: str) -> tuple[Flag, ...]:
    what = "an update" if which == "update" else "a rollback"
    actions = UPDATE_FAILURE_ACTIONS if which == "update" else ROLLBACK_FAILURE_ACTIONS
    names = "pause, continue or rollback" if which == "update" else "pause or continue"
    return (
        Flag(f"{which}-parallelism", f"Tasks that {what} replaces at a time; 0: all.", _set(which, "parallelism"),
             PARALLELISM, "N"),
        Flag(f"{which}-delay", f"Between one batch of {what} and the next.", _set(which, "delay"),
             durations.duration, "TIME"),
        Flag(f"{which}-order", "start-first or stop-first.", _set(which, "order"), ORDERS, "ORDER"),
        Flag(f"{which}-monitor", "A task that fails within this time counts as a failure.", _set(which, "monitor"),
             durations.positive_duration, "TIME"),
        Flag(f"{which}-failure-action", f"When {what} fails: {names}.", _set(which, "failure_action"), actions,
             "ACTION"),
        Flag(f"{which}-max-failure-ratio", "Part of the tasks that may fail, 0 to 1.",
             _set(which, "max_failure_ratio"), numbers.ratio, "RATIO"),
        Flag(f"{which}-deadline", f"{what[0].upper()}{what[1:]} that takes longer has failed.",
             _set(which, "deadline"), durations.positive_duration, "TIME"),
    )  # fmt: skip


POLICIES = _flags("update") + _flags("rollback")
