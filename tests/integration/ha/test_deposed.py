"""A leader that was deposed without knowing it writes nothing.

Etcd does not say who wrote. So the new leader is frozen as soon as it leads, and then the old one is let loose: while
the new one's lease lasts, whatever is written of tasks, rollouts and nodes would be the old one's.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyswarm_cli.lab import host as lab_hosts
from pyswarm_core.membership.member import API_PORT, ETCD_PORT
from tests.integration.ha.faults import WORKER, first_of
from tests.integration.ha.ha_lab import PORT, HaLab, clean, new_running
from tests.integration.ha.witness import Witness
from tests.support.lab import SOAK

pytestmark = pytest.mark.lab

TABLE = "ha_test"


@contextlib.contextmanager
def frozen(lab: HaLab, host: str) -> Iterator[None]:
    with lab.frozen(host, "manager"):
        yield


@contextlib.contextmanager
def deaf(lab: HaLab, host: str) -> Iterator[None]:
    """No answer of etcd comes in; what its manager asks and writes does arrive there."""
    with _dropped(lab, host, "input", f"tcp sport {ETCD_PORT}"):
        yield


@contextlib.contextmanager
def mute(lab: HaLab, host: str) -> Iterator[None]:
    """Nothing that its manager says reaches etcd; what etcd says comes in."""
    with _dropped(lab, host, "output", f"tcp dport {ETCD_PORT}"):
        yield


@contextlib.contextmanager
def _dropped(lab: HaLab, host: str, hook: str, what: str) -> Iterator[None]:
    lab.inside(
        host,
        f"nft 'table ip {TABLE} {{ chain c {{ type filter hook {hook} priority -200; {what} drop; }}; }}'",
    )
    try:
        yield
    finally:
        lab.inside(host, f"nft delete table ip {TABLE}")


WAYS: dict[str, Callable[[HaLab, str], contextlib.AbstractContextManager[None]]] = {
    "frozen": frozen,
    "does not hear etcd": deaf,
    "is not heard by etcd": mute,
}


@pytest.mark.timeout(400)
@pytest.mark.parametrize("way", WAYS if SOAK else ["does not hear etcd"])
@pytest.mark.parametrize("number", range(3 if SOAK else 1))
def test_it_writes_nothing(lab: HaLab, witness: Witness, report: Path, way: str, number: int) -> None:
    lab.deploy_web(6)
    before = [t.id for t in witness.tasks_of("web")]
    with lab.load(PORT, report) as seen, lab.updating() as update:
        witness.wait(lambda w: new_running(w, before) >= 1, "a task of the new version")
        old, term = witness.leader, witness.leader_revision
        log = lab.layout.host(old).log / "manager.log"
        said = log.stat().st_size
        began = time.monotonic()
        with contextlib.ExitStack() as pause:
            with WAYS[way](lab, old):
                witness.wait(lambda w: w.leader_revision not in (0, term), "the election of another leader")
                print(f"{way}: another leads after {time.monotonic() - began:.2f} s")
                new, new_term = witness.leader, witness.leader_revision
                pause.enter_context(lab.frozen(new, "manager"))
                revision = witness.quiet_revision()
                assert witness.leader_revision == new_term, "too late: the new leader's term is over"
            # The old one is loose, and the new one cannot write. (Until etcd ends its term: then another may.)
            witness.wait(lambda w: w.leader_revision != new_term, "the end of the frozen leader's term")
            ended = next(w for w in witness.since(revision, ("leader",)))
            written = [w for w in witness.since(revision) if w.revision < ended.revision]
            assert written == [], f"{old} has written {written} under a term that is over"
        lab.web_is_updated(update)
        words = log.read_text(errors="replace")[said:]
        assert "leadership lost" in words or "deposed" in words, words
    lab.settle(witness)
    clean(seen)
    # It follows, and serves the API as any other.
    assert {n["hostname"]: n["manager_status"] for n in lab.json("node", "ls")}[old] in ("reachable", "leader")


@contextlib.contextmanager
def old_leader(lab: HaLab, host: str) -> Iterator[subprocess.Popen[str]]:
    """In the place of the manager of this host."""
    where = lab.layout.host(host)
    script = Path(__file__).with_name("old_leader.py")
    words = [sys.executable, str(script), f"{where.address}:{API_PORT}", "/etc/pyswarm/tls"]
    process = subprocess.Popen(
        lab_hosts.enter(lab.layout, where, words), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.communicate(timeout=30)


@pytest.mark.timeout(200)
def test_it_is_not_obeyed(lab: HaLab, witness: Witness) -> None:
    """An agent that has heard of a newer term ends the session, whatever it is told."""
    lab.deploy_web(5)  # one for each host
    worker = lab.layout.host(WORKER)
    held = {t.id: first_of(t.id) for t in witness.tasks_of("web") if t.node_id == worker.node_id}
    assert held and all(held.values())
    managers = [h.name for h in lab.layout.managers]
    for name in managers:
        lab.kill(name, "manager")
    try:
        with old_leader(lab, managers[0]) as process:
            assert process.stdout is not None
            heard = (line.strip() for line in process.stdout)
            assert next(heard) == "ready"
            for _ in range(3):  # who obeyed would stay
                assert worker.node_id in heard, "it ended before the worker's agent came"
            assert {task_id: first_of(task_id) for task_id in held} == held
    finally:
        for name in managers:
            lab.start(name, "manager")
    lab.settle(witness)
    assert {task_id: first_of(task_id) for task_id in held} == held
