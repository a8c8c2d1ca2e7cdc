"""`pyswarm service logs`."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import Any

import click

from pyswarm_cli import exits
from pyswarm_cli.client import Cluster
from pyswarm_cli.commands.shared import with_cluster
from pyswarm_cli.flags.options import Parsed
from pyswarm_cli.output.tables import short_id
from pyswarm_cli.output.times import rfc3339
from pyswarm_cli.parse.durations import duration
from pyswarm_cli.parse.numbers import whole
from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import dispatcher_pb2 as wire


def tail_count(text: str) -> int:
    return -1 if text == "all" else whole(text, "--tail", 0, 2**31 - 1)


def since_time(text: str) -> float:
    """10m (ago), a unix time, or RFC 3339 (without an offset: UTC) → unix seconds."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=at.tzinfo or UTC).timestamp()
    except ValueError:
        pass
    try:
        return time.time() - duration(text)
    except InvalidInput:
        raise InvalidInput(f"'{text}' is no time; write 10m, or 2026-01-31T12:00:00Z") from None


@click.command("logs")
@click.argument("ref", metavar="SERVICE|TASK")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is printed from now on.")
@click.option(
    "-n", "--tail", type=Parsed("n", tail_count), default="all", metavar="N|all", help="The last N lines of each task."
)
@click.option("--since", type=Parsed("time", since_time), metavar="TIME", help="Not before 10m ago, or a time.")
@click.option("-t", "--timestamps", is_flag=True, help="When each line was printed.")
@click.option("--raw", is_flag=True, help="The lines alone.")
@click.option("--no-task-ids", is_flag=True, help="Tasks by name only.")
@with_cluster
def logs(
    cluster: Cluster,
    ref: str,
    follow: bool,
    tail: int,
    since: float | None,
    timestamps: bool,
    raw: bool,
    no_task_ids: bool,
) -> None:
    """Show what the containers of a service or task print, all of them merged in order of time."""
    printer = Printer(timestamps, raw, no_task_ids)
    request = control.LogsRequest(ref=ref, tail=tail, since=since or 0, follow=follow)
    try:
        while True:
            try:
                for batch in cluster.stream(lambda stub: stub.Logs, request):
                    printer.show(batch)
                return
            except exits.ClusterUnreachable:
                if not follow or not printer.begun:
                    raise
                # another manager goes on where this one stopped
                request = control.LogsRequest(ref=ref, tail=-1, since=printer.reached, follow=True)
                printer.resume()
    except KeyboardInterrupt:
        raise exits.Interrupted("") from None


class Printer:
    def __init__(self, timestamps: bool, raw: bool, no_task_ids: bool) -> None:
        self._timestamps = timestamps
        self._raw = raw
        self._ids = not no_task_ids
        self._names: dict[str, str] = {}
        self._seen: dict[str, float] = {}  # task id → time of its last line
        self._skip: dict[str, float] = {}
        self.begun = False

    @property
    def reached(self) -> float:
        return min(self._seen.values(), default=0.0)

    def resume(self) -> None:
        """Lines up to here have been shown already."""
        self._skip = dict(self._seen)

    def show(self, batch: control.LogsResponse) -> None:
        self.begun = True
        for warning in batch.warnings:
            click.echo(f"warning: {warning}", err=True)
        for source in batch.sources:
            task_id = f".{short_id(source.task_id)}" if self._ids else ""
            self._names[source.task_id] = f"{source.task_name}{task_id}@{source.hostname}"
        for line in batch.lines:
            if line.at > self._skip.get(line.task_id, 0.0):
                self._seen[line.task_id] = line.at
                self._print(line)
        sys.stdout.flush()
        sys.stderr.flush()

    def _print(self, line: wire.LogLine) -> None:
        out: Any = (sys.stderr if line.is_stderr else sys.stdout).buffer
        width = max((len(name) for name in self._names.values()), default=0)
        prefix = "" if self._raw else f"{self._names.get(line.task_id, line.task_id).ljust(width)} | "
        when = f"{rfc3339(line.at)} " if self._timestamps else ""
        out.write(f"{when}{prefix}".encode() + line.line + b"\n")
