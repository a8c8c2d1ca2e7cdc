"""Containers under the names that cAdvisor gives these figures, so that dashboards and alerts made for it work. Pure.

A container has a series while its control group is there: what was counted of a removed task goes with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pyswarm_agent.metrics_readings import GroupFigures, LinkFigures, Readings
from pyswarm_agent.tasks.life import Life
from pyswarm_core.scrape.text import Family, Kind, labels

INTERFACE = "eth0"  # what a container calls its end


@dataclass(frozen=True, slots=True)
class _Row:
    """A metric that is one field of the group's figures."""

    name: str
    field: str
    text: str
    kind: Kind = "gauge"
    extra: str = ""  # more labels


_GROUP = (
    _Row("container_cpu_usage_seconds_total", "cpu", "CPU time used.", "counter", 'cpu="total"'),
    _Row("container_cpu_user_seconds_total", "cpu_user", "CPU time used in user mode.", "counter"),
    _Row("container_cpu_system_seconds_total", "cpu_system", "CPU time used by the kernel for it.", "counter"),
    _Row("container_cpu_cfs_periods_total", "periods", "Periods in which its CPU limit was enforced.", "counter"),
    _Row(
        "container_cpu_cfs_throttled_periods_total",
        "throttled_periods",
        "Periods in which it was throttled.",
        "counter",
    ),
    _Row("container_cpu_cfs_throttled_seconds_total", "throttled", "Time for which it was throttled.", "counter"),
    _Row("container_memory_usage_bytes", "memory", "Memory in use, page cache included."),
    _Row("container_memory_max_usage_bytes", "memory_peak", "The most that this ever was."),
    _Row(
        "container_memory_working_set_bytes",
        "working_set",
        "Memory in use without page cache that was not used lately: what cannot be taken away from it.",
    ),
    _Row("container_memory_rss", "rss", "Anonymous memory, bytes."),
    _Row("container_memory_cache", "cache", "Page cache, bytes."),
    _Row("container_memory_swap", "swap", "Memory that is swapped out, bytes."),
    _Row(
        "container_oom_events_total",
        "oom_kills",
        "Processes of it that the kernel killed for want of memory.",
        "counter",
    ),
    _Row("container_processes", "processes", "Processes."),
    _Row("container_threads", "threads", "Threads."),
    _Row("container_threads_max", "threads_limit", "Limit of threads; 0 = none."),
    _Row("container_spec_cpu_quota", "cpu_quota", "CPU time for each period, microseconds; 0 = no limit."),
    _Row("container_spec_cpu_period", "cpu_period", "Length of a period, microseconds."),
    _Row("container_spec_cpu_shares", "cpu_shares", "CPU shares."),
    _Row("container_spec_memory_limit_bytes", "memory_limit", "Memory limit; 0 = none."),
    _Row("container_spec_memory_swap_limit_bytes", "memory_swap_limit", "Swap limit; 0 = none."),
)
_LINK = (
    _Row("container_network_receive_bytes_total", "received", "Bytes received.", "counter"),
    _Row("container_network_receive_packets_total", "received_packets", "Packets received.", "counter"),
    _Row("container_network_receive_errors_total", "received_errors", "Errors while receiving.", "counter"),
    _Row(
        "container_network_receive_packets_dropped_total",
        "received_dropped",
        "Packets to it that were dropped.",
        "counter",
    ),
    _Row("container_network_transmit_bytes_total", "sent", "Bytes sent.", "counter"),
    _Row("container_network_transmit_packets_total", "sent_packets", "Packets sent.", "counter"),
    _Row("container_network_transmit_errors_total", "sent_errors", "Errors while sending.", "counter"),
    _Row(
        "container_network_transmit_packets_dropped_total",
        "sent_dropped",
        "Packets from it that were dropped.",
        "counter",
    ),
)


def identity(life: Life, node: str) -> dict[str, str]:
    """The labels of one task everywhere. `node`: this host's name."""
    task = life.task
    return {
        "name": f"{task.service_name}.{task.slot or node}",
        "service": task.service_name,
        "task": task.id,
        "slot": str(task.slot),
        "node": node,
    }


def families(lives: Mapping[str, Life], readings: Readings, node: str, parent: str) -> Iterator[str]:
    """`parent`: of the groups, as cAdvisor's `id` has it. Yields "" to pause at."""
    made = {row.name: Family(row.name, row.text, row.kind) for row in (*_GROUP, *_LINK)}
    reserved = Family("container_spec_memory_reservation_limit_bytes", "Memory reserved for it; 0 = none.")
    started = Family("container_start_time_seconds", "When it was started, unix time.")
    for task_id, figures in readings.groups.items():
        life = lives.get(task_id)
        if life is None:
            continue
        inside = _labels(life, node, parent)
        _add(made, _GROUP, figures, inside)
        link = readings.links.get(task_id)
        if link is not None:
            _add(made, _LINK, link, f'{inside},interface="{INTERFACE}"')
        reserved.add(life.task.spec.resources.reserve_memory, inside)
        if life.status.timings.started_at:
            started.add(life.status.timings.started_at, inside)
        yield ""
    for family in (*made.values(), reserved, started):
        yield from family


def _labels(life: Life, node: str, parent: str) -> str:
    about = {"id": f"/{parent}/{life.id}", "image": life.task.spec.container.image}
    return labels(about | identity(life, node))


def _add(made: Mapping[str, Family], rows: Iterable[_Row], figures: GroupFigures | LinkFigures, inside: str) -> None:
    for row in rows:
        value = getattr(figures, row.field)
        if value is not None:
            made[row.name].add(value, f"{inside},{row.extra}" if row.extra else inside)
