"""Nodes on which a service keeps failing: avoided for a while, unless there is no other."""

from __future__ import annotations

from collections.abc import Iterable

from pyswarm_core.v1 import objects_pb2 as pb

FAILURES = 5
WINDOW = 300.0  # seconds in which that many failures make a node avoided …
AVOIDED_FOR = 300.0  # … for so long after the last of them


def avoided_nodes(tasks: Iterable[pb.Task], now: float) -> frozenset[str]:
    """Ids. `tasks`: all of one service, with the history that the store keeps."""
    failed_at: dict[str, list[float]] = {}
    for task in tasks:
        failed = task.status.state in (pb.TASK_STATE_FAILED, pb.TASK_STATE_REJECTED)
        if failed and task.node_id and now - task.status.at < WINDOW + AVOIDED_FOR:
            failed_at.setdefault(task.node_id, []).append(task.status.at)
    return frozenset(node_id for node_id, times in failed_at.items() if _avoided(sorted(times), now))


def _avoided(times: list[float], now: float) -> bool:
    return any(
        last - first <= WINDOW and now - last < AVOIDED_FOR
        for first, last in zip(times, times[FAILURES - 1 :], strict=False)
    )
