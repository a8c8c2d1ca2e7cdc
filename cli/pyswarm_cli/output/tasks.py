"""Tasks as `service ps` and `node ps` show them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pyswarm_cli.output.messages import enum_name
from pyswarm_cli.output.tables import short_id
from pyswarm_cli.output.times import ago, rfc3339
from pyswarm_cli.parse.references import familiar
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb

HEADERS = ("ID", "NAME", "IMAGE", "NODE", "DESIRED STATE", "CURRENT STATE", "ERROR")
_STATES = pb.TaskState.DESCRIPTOR
_HEALTH = pb.Health.DESCRIPTOR


def state_name(state: int) -> str:
    return enum_name(_STATES, state)


def hostnames(nodes: Iterable[wire.NodeAddress]) -> dict[str, str]:
    return {node.node_id: node.hostname for node in nodes}


def name(task: pb.Task) -> str:
    """web.1; a global service's: web.NODE_ID."""
    return f"{task.service_name}.{task.slot or task.node_id}"


def error(task: pb.Task) -> str:
    """Why it failed; while it waits for a node, why it cannot be placed."""
    if task.status.error:
        return task.status.error
    return task.status.message if task.status.state <= pb.TASK_STATE_PENDING else ""


def ordered(tasks: Iterable[pb.Task]) -> list[pb.Task]:
    """By service, slot and node; of each place those that are wanted first, then the newest."""
    return sorted(
        tasks,
        key=lambda t: (
            t.service_name,
            t.slot,
            t.node_id if not t.slot else "",
            t.desired_state > pb.TASK_STATE_RUNNING,
            -t.created_at,
            t.id,
        ),
    )


def rows(tasks: Sequence[pb.Task], hosts: Mapping[str, str], now: float, no_trunc: bool) -> list[list[str]]:
    """`tasks` in order. All but the first of each place are history."""
    found, place = [], ""
    for task in tasks:
        own = name(task)
        container = task.spec.container
        image = familiar(container.image)
        if no_trunc and container.digest:
            image = f"{image}@{container.digest}"
        status = task.status
        current = f"{state_name(status.state).capitalize()} {ago(status.at or task.created_at, now)}"
        busy = pb.TASK_STATE_PENDING < status.state < pb.TASK_STATE_RUNNING and status.message
        found.append(
            [
                short_id(task.id, no_trunc),
                f" \\_ {own}" if own == place else own,
                image,
                hosts.get(task.node_id, short_id(task.node_id)),
                state_name(task.desired_state).capitalize(),
                f"{current} ({status.message})" if busy else current,
                error(task),
            ]
        )
        place = own
    return found


def to_object(task: pb.Task, hosts: Mapping[str, str]) -> dict[str, Any]:
    status = task.status
    return {
        "id": task.id,
        "name": name(task),
        "service": task.service_name,
        "slot": task.slot,
        "image": familiar(task.spec.container.image),
        "digest": task.spec.container.digest,
        "node": hosts.get(task.node_id, ""),
        "node_id": task.node_id,
        "desired_state": state_name(task.desired_state),
        "state": state_name(status.state),
        "health": enum_name(_HEALTH, status.health),
        "error": error(task),
        "message": status.message,
        "exit_code": status.exit_code if status.HasField("exit_code") else None,
        "addresses": [address.address for address in task.addresses],
        "created_at": rfc3339(task.created_at),
        "started_at": rfc3339(status.timings.started_at),
        "restarts": task.restarts,
    }


def matches(key: str, task: pb.Task, hosts: Mapping[str, str], wanted: str) -> bool:
    if key == "id":
        return task.id.startswith(wanted)
    if key == "name":
        return name(task).startswith(wanted)
    if key == "node":
        return wanted in (hosts.get(task.node_id), task.node_id) or (bool(wanted) and task.node_id.startswith(wanted))
    if key == "state":
        return state_name(task.status.state) == wanted.lower()
    return state_name(task.desired_state) == wanted.lower()


FILTERS = ("id", "name", "node", "desired-state", "state")
