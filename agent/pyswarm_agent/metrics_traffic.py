"""The balancer's figures of this host's tasks (its backends) and of their services; and how tasks left it.

A backend's figures go with its task. A service's are those of all tasks that it ever had on this host, while this agent
runs, and go when the service is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from pyswarm_agent.metrics_containers import identity
from pyswarm_agent.tasks.life import Life, Phase
from pyswarm_core.scrape.text import Family, labels
from pyswarm_proxy.counters import Traffic

ByName = Mapping[str, Traffic]
_NO_TRAFFIC = Traffic()

_TRAFFIC = (
    ("connections_total", "connections", "Connections to it, over whichever host they came in."),
    ("receive_bytes_total", "bytes_in", "Bytes to it."),
    ("transmit_bytes_total", "bytes_out", "Bytes from it."),
    ("resets_total", "resets", "Connections that it reset."),
)


@dataclass(slots=True)
class _Left:
    """Of one service's tasks on this host that left the balancers."""

    drains: int = 0
    seconds: float = 0.0
    cut: int = 0
    late: int = 0
    oom_kills: int = 0


class Leavings:
    """How tasks leave, from each new life of each of them. `changed` returns the seconds of a drain that has ended."""

    def __init__(self) -> None:
        self._draining: dict[str, float] = {}
        self._services: dict[str, _Left] = {}

    def changed(self, life: Life, now: float) -> float | None:
        if life.phase is Phase.DRAINING:
            self._draining.setdefault(life.id, now)
            return None
        since = self._draining.pop(life.id, None)
        if since is None:
            return None
        left = self._of(life)
        left.drains += 1
        left.seconds += max(0.0, now - since)
        left.cut += life.status.drain.open_at_stop
        return max(0.0, now - since)

    def ended(self, life: Life) -> None:
        left = self._of(life)
        left.late += life.status.drain.late_connections
        left.oom_kills += life.status.oom

    def draining_since(self, task_id: str) -> float | None:
        return self._draining.get(task_id)

    def of_service(self, service_id: str) -> _Left:
        return self._services.get(service_id) or _Left()

    def keep(self, service_ids: Iterable[str]) -> None:
        """Of the others nobody will ask again."""
        wanted = set(service_ids)
        self._services = {key: left for key, left in self._services.items() if key in wanted}

    def known(self) -> Iterable[str]:
        return self._services.keys()

    def _of(self, life: Life) -> _Left:
        return self._services.setdefault(life.task.service_id, _Left())


def families(
    lives: Mapping[str, Life],
    traffic: tuple[ByName, ByName],
    name_of: Callable[[str], str],
    leavings: Leavings,
    node: str,
    now: float,
) -> Iterator[Family]:
    """`traffic`: by task, and by service id. `name_of`: a service by id; "" = there is no such one."""
    by_task, by_service = traffic
    yield from _backends(lives, by_task, leavings, node, now)
    names = {service_id: name_of(service_id) for service_id in {*by_service, *leavings.known()}}
    names |= {life.task.service_id: life.task.service_name for life in lives.values()}
    services = {service_id: labels({"service": name}) for service_id, name in sorted(names.items()) if name}
    leavings.keep(services)
    for name, field, text in _TRAFFIC:
        family = Family(f"pyswarm_service_{name}", f"{text} All tasks that the service had on this host.", "counter")
        for service_id, inside in services.items():
            family.add(getattr(by_service.get(service_id, _NO_TRAFFIC), field), inside)
        yield family
    for name, field, text in (
        ("drains_total", "drains", "Its tasks that left the balancers of this host in order."),
        ("drain_seconds_total", "seconds", "Time that they waited for their connections to end."),
        ("cut_connections_total", "cut", "Connections still open when the drain timeout was over."),
        ("late_connections_total", "late", "Connections opened to a task after its host had taken it out: must be 0."),
        ("oom_kills_total", "oom_kills", "Its containers that ended because the kernel killed them for memory."),
    ):
        family = Family(f"pyswarm_service_{name}", text, "counter")
        for service_id, inside in services.items():
            family.add(getattr(leavings.of_service(service_id), field), inside)
        yield family


def _backends(
    lives: Mapping[str, Life], by_task: ByName, leavings: Leavings, node: str, now: float
) -> Iterator[Family]:
    inside = {task_id: labels(identity(lives[task_id], node)) for task_id in sorted(by_task) if task_id in lives}
    for name, field, text in _TRAFFIC:
        family = Family(f"pyswarm_backend_{name}", f"{text} One task of this host.", "counter")
        for task_id, names in inside.items():
            family.add(getattr(by_task[task_id], field), names)
        yield family
    draining = Family(
        "pyswarm_backend_draining_seconds", "How long a task has waited for its connections to end; 0 = it does not."
    )
    lag = Family(
        "pyswarm_backend_ack_lag_seconds",
        "How long a task that leaves has waited until all live nodes have confirmed that; 0 = it does not.",
    )
    for task_id, names in inside.items():
        since = leavings.draining_since(task_id)
        draining.add(max(0.0, now - since) if since is not None else 0.0, names)
        task = lives[task_id].task
        waits = task.leaving and not task.released
        lag.add(max(0.0, now - task.leaving_at) if waits else 0.0, names)
    yield draining
    yield lag
