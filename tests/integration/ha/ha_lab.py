"""Five hosts, three of them managers, whose daemons are killed, frozen and started without the command line."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pyswarm_cli.lab import daemons, layout, lifecycle, switch
from pyswarm_cli.lab import host as lab_hosts
from pyswarm_core.v1 import objects_pb2 as pb
from tests.integration.ha import hosts
from tests.integration.ha.witness import Witness
from tests.support.lab import PYSWARM, REGISTRY, LabUnderTest, eventually

PORT = 8080
# Quick to replace; a connection that is kept alive stays until the drain timeout.
WEB = (
    *("--publish", f"{PORT}:80", "--drain-timeout", "1s"),
    *("--update-monitor", "500ms", "--update-parallelism", "2"),
)


class Update:
    """`pyswarm service …` going on beside the test."""

    def __init__(self, lab: HaLab, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*PYSWARM, *arguments],
            env=lab.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.what = " ".join(arguments)
        self.lab = lab

    def finish(self, seconds: float = 150) -> int:
        """Its exit code."""
        try:
            self.output, _ = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            state = self._state()
            self.end()
            raise AssertionError(f"{self.what} did not end within {seconds:.0f} s; {self.output}\n{state}") from None
        return self.process.returncode

    def _state(self) -> str:
        """Whether the rollout stands still, or whoever follows it; and what the managers have said."""
        told = []
        for words in (("node", "ls"), ("service", "ps", "web"), ("service", "inspect", "web")):
            done = self.lab.run(*words)
            told.append(f"$ pyswarm {' '.join(words)}\n{done.stdout}{done.stderr}")
        for host in self.lab.layout.managers:
            said = (host.log / "manager.log").read_text(errors="replace")
            told.append(f"== manager of {host.name}\n{said[-6000:]}")
        return "\n".join(told)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.output = self.process.communicate()[0]


class HaLab(LabUnderTest):
    def __init__(self, name: str, config: Path) -> None:
        super().__init__(name, config)
        self._layout: layout.Lab | None = None
        self.version = ""  # of web, deployed last

    @property
    def layout(self) -> layout.Lab:
        if self._layout is None:
            self._layout = layout.load(self.name)
        return self._layout

    def pid(self, host: str, daemon: str) -> int:
        pid = lab_hosts.daemon_process(self.layout, self.layout.host(host), daemon)
        assert pid is not None, f"{daemon} of {host} does not run"
        return pid

    # ---- faults ----

    def kill(self, host: str, *names: str) -> float:
        """SIGKILL, all at once; returns the monotonic time just before. Waits until they are gone."""
        pids = [self.pid(host, name) for name in names]
        at = time.monotonic()
        for pid in pids:
            lab_hosts.send(pid, signal.SIGKILL)
        for name in names:
            daemons.kill(self.layout, self.layout.host(host), name)
        return at

    def start(self, host: str, *names: str) -> None:
        for name in names:
            daemons.start(self.layout, self.layout.host(host), name)
        for name in names:
            daemons.wait(self.layout, self.layout.host(host), name)

    def restore(self) -> None:
        """All hosts, daemons and cables as they were made."""
        switch.heal(self.layout)
        for host in self.layout.hosts:
            if lab_hosts.first_process(host) is not None:
                lab_hosts.freeze(self.layout, host, signal.SIGCONT)
        with ThreadPoolExecutor(5) as pool:
            list(pool.map(lambda host: lifecycle.start_host(self.layout, host), self.layout.hosts))

    def signal(self, host: str, daemon: str, number: signal.Signals) -> None:
        lab_hosts.send(self.pid(host, daemon), number)

    @contextlib.contextmanager
    def frozen(self, host: str, daemon: str) -> Iterator[None]:
        pid = self.pid(host, daemon)
        lab_hosts.send(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            lab_hosts.send(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def cut(self, *names: str, inbound: bool = True, outbound: bool = True) -> Iterator[None]:
        switch.cut(self.layout, [self.layout.host(n) for n in names], inbound=inbound, outbound=outbound)
        try:
            yield
        finally:
            switch.heal(self.layout)

    def inside(self, host: str, script: str) -> str:
        return hosts.inside(self.layout, self.layout.host(host), script)

    # ---- services ----

    def deploy_web(self, replicas: int, *flags: str) -> None:
        self.version = "v1"
        self.cli("service", "deploy", "web", f"{REGISTRY}/web:v1", "--replicas", str(replicas), *WEB, *flags)

    @contextlib.contextmanager
    def updating(self, *flags: str) -> Iterator[Update]:
        """A rolling update of web to its other version."""
        self.version = {"v1": "v2", "v2": "v1"}[self.version]
        update = Update(self, "service", "update", "web", "--image", f"{REGISTRY}/web:{self.version}", *flags)
        try:
            yield update
        finally:
            update.end()

    def web_is_updated(self, update: Update) -> None:
        """The rollout ended right, as the command line saw it, and as it is stored."""
        code = update.finish()
        assert code == 0, f"exit code {code}\n{update.output}"
        web = self.service("web")
        assert web["rollout"]["state"] == "completed", web["rollout"]
        assert web["rollout"]["receipt"]["failures"] == 0, web["rollout"]
        images = {t["image"] for t in self.running("web")}
        assert images == {f"{REGISTRY}/web:{self.version}"}

    def settle(self, witness: Witness, seconds: float = 90) -> None:
        """Wanted state, no leak, balancers equal to endpoints; nothing that may never be was seen on the way."""
        last: list[str] = []

        def settled() -> bool:
            last[:] = hosts.unsettled(self.layout, witness)
            return not last

        try:
            eventually(settled, "a settled cluster", seconds)
        except AssertionError:
            raise AssertionError("\n".join(["not settled:", *last, witness.story()])) from None
        assert not witness.findings, witness.findings
        twice = hosts.started_twice(self.layout)
        assert not twice, twice


def new_running(witness: Witness, rollout_tasks: Sequence[str]) -> int:
    """How many tasks of web run that were not among these."""
    known = set(rollout_tasks)
    return sum(t.id not in known and t.status.state == pb.TASK_STATE_RUNNING for t in witness.tasks_of("web"))


def clean(seen: dict[str, Any]) -> None:
    """No request failed."""
    assert seen["failed"] == 0, seen
    assert seen["sent"] > 100, seen
