"""What the end of a rollout means: an exit code, and sentences. Pure."""

from __future__ import annotations

from pyswarm_cli import exits
from pyswarm_core.v1 import objects_pb2 as pb


def exit_code(rollout: pb.Rollout) -> int:
    """Of a rollout that is finished."""
    if rollout.state == pb.ROLLOUT_STATE_SUPERSEDED:
        return exits.ERROR  # what was asked for has not converged, and will not
    if rollout.deadline_passed:
        return exits.DEADLINE_PASSED
    if rollout.state == pb.ROLLOUT_STATE_ROLLED_BACK:
        return exits.ROLLED_BACK
    if rollout.state == pb.ROLLOUT_STATE_PAUSED:
        return exits.PAUSED
    return exits.CONVERGED


def verdict(rollout: pb.Rollout) -> str:
    """The last line of the progress."""
    name = rollout.service_name
    match rollout.state:
        case pb.ROLLOUT_STATE_COMPLETED:
            return f"verify: service {name} converged"
        case pb.ROLLOUT_STATE_ROLLED_BACK:
            return f"rollback: service {name} converged on its previous spec"
        case pb.ROLLOUT_STATE_PAUSED:
            return f"paused: the rollout of service {name} has stopped where it is"
        case pb.ROLLOUT_STATE_SUPERSEDED:
            return f"superseded: a newer change of service {name} took over"
    return ""


def sentence(rollout: pb.Rollout) -> str:
    """For everything that did not simply converge: what happened, why, and what to do. "" when it converged."""
    code = exit_code(rollout)
    name = rollout.service_name
    if code == exits.CONVERGED:
        return ""
    if rollout.state == pb.ROLLOUT_STATE_SUPERSEDED:
        return (
            f"a newer change of service {name} took over before this one had converged; follow that one with "
            f"'pyswarm service watch {name}'"
        )
    reason = (rollout.reason or ("the deadline passed" if rollout.deadline_passed else "too many tasks failed")).rstrip(
        "."
    )
    if rollout.state == pb.ROLLOUT_STATE_ROLLED_BACK:
        return f"service {name} was rolled back to its previous spec: {reason}"
    if rollout.state == pb.ROLLOUT_STATE_PAUSED:
        what = "the rollback" if rollout.generation or rollout.kind == pb.ROLLOUT_KIND_ROLLBACK else "the rollout"
        return (
            f"{what} of service {name} is paused: {reason}; deploy a better spec, or remove it with "
            f"'pyswarm service rm {name}'"
        )
    return f"service {name} is at its new spec, but late: {reason}"


def receipt(rollout: pb.Rollout) -> str:
    """One line: what the rollout did to connections."""
    found = rollout.receipt
    took = ""
    if rollout.finished_at > rollout.started_at > 0:
        took = f" in {rollout.finished_at - rollout.started_at:.1f}s"
    started = sum(task.is_new and task.started_at > 0 for task in found.tasks)
    return (
        f"receipt: {_count(started, 'task')} started, {found.replaced} replaced{took}, "
        f"{_count(found.failures, 'failure')}, "
        f"{_count(found.late_connections, 'connection')} opened after leaving, {found.open_at_stop} open at stop, "
        f"{_count(found.resets, 'reset')}"
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
