"""An exclusive service: whatever its host does, no second writer is there before the first one has ended.

The writer is a container that writes the machine's own boot time into a file of a volume, twenty times a second; what
is compared are these times, of all hosts, so nobody's clock or report has to be believed.
"""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Callable, Iterator

import pytest

from pyswarm_cli.lab import host as lab_hosts
from pyswarm_core.v1 import objects_pb2 as pb
from tests.integration.ha import hosts
from tests.integration.ha.faults import pids_of
from tests.integration.ha.ha_lab import HaLab
from tests.integration.ha.witness import Witness
from tests.support.lab import REGISTRY, SOAK, eventually

pytestmark = [pytest.mark.lab, pytest.mark.timeout(300)]

numbers = itertools.count(1)
WRITER = 'while true; do cut -d" " -f1 /proc/uptime >> /data/times-$HOSTNAME; usleep 50000; done'


def deploy(lab: HaLab) -> str:
    """Returns the name of its volume: one of its own in each test."""
    volume = f"db{next(numbers)}"
    lab.cli(
        *("service", "deploy", "db", f"{REGISTRY}/busybox:1", "--exclusive"),
        *("--mount", f"type=volume,source={volume},target=/data", "--hostname", "{{.Task.ID}}"),
        *("--constraint", "node.hostname != host-1", "--constraint", "node.hostname != host-2"),
        *("--constraint", "node.hostname != host-3", "--update-monitor", "500ms", "--stop-grace-period", "2s"),
        *("--", "sh", "-c", WRITER),
    )
    return volume


def running(witness: Witness) -> pb.Task:
    return next(t for t in witness.tasks_of("db") if t.status.state == pb.TASK_STATE_RUNNING and not t.leaving)


def host_of(lab: HaLab, task: pb.Task) -> str:
    return next(h.name for h in lab.layout.hosts if h.node_id == task.node_id)


def spans(lab: HaLab, volume: str) -> dict[str, tuple[float, float]]:
    """Task → the machine's boot times at which it wrote first and last, from the volumes on the hosts' disks."""
    found = {}
    for host in lab.layout.hosts:
        for path in host.data.glob(f"volumes/{volume}/**/times-*"):
            times = [float(line) for line in path.read_text().split()]
            if times:
                found[path.name.removeprefix("times-")] = (min(times), max(times))
    return found


def apart(lab: HaLab, volume: str) -> list[float]:
    """Seconds between the last write of one task and the first of the next; fails where there are none."""
    ordered = sorted(spans(lab, volume).values())
    gaps = [after[0] - before[1] for before, after in itertools.pairwise(ordered)]
    assert all(gap > 0 for gap in gaps), f"two wrote at the same time: {spans(lab, volume)}"
    return gaps


@contextlib.contextmanager
def cut_off(lab: HaLab, host: str) -> Iterator[None]:
    with lab.cut(host):
        yield


@contextlib.contextmanager
def agent_frozen(lab: HaLab, host: str) -> Iterator[None]:
    with lab.frozen(host, "agent"):
        yield


@contextlib.contextmanager
def agent_dead(lab: HaLab, host: str) -> Iterator[None]:
    lab.kill(host, "agent")
    try:
        yield
    finally:
        lab.start(host, "agent")


@contextlib.contextmanager
def all_frozen(lab: HaLab, host: str) -> Iterator[None]:
    """As a machine that is suspended: the fuse cannot act before it goes on either, and then at once. Up to that moment
    the old one may write: only a store that refuses it could prevent that (docs/adr/0014)."""
    lab_hosts.freeze(lab.layout, lab.layout.host(host), signal.SIGSTOP)
    try:
        yield
    finally:
        lab_hosts.freeze(lab.layout, lab.layout.host(host), signal.SIGCONT)


WAYS: dict[str, Callable[[HaLab, str], contextlib.AbstractContextManager[None]]] = {
    "its host is cut off": cut_off,
    "its agent is frozen": agent_frozen,
    "its agent is dead": agent_dead,
}


@pytest.mark.parametrize("way", WAYS if SOAK else ["its host is cut off"])
def test_the_old_one_ends_by_itself_before_the_next_one_starts(lab: HaLab, witness: Witness, way: str) -> None:
    volume = deploy(lab)
    old = running(witness)
    host = host_of(lab, old)
    assert pids_of(old.id)
    with WAYS[way](lab, host):
        witness.wait(
            lambda w: any(t.id != old.id and t.status.state == pb.TASK_STATE_RUNNING for t in w.tasks_of("db")),
            "another task",
        )
        # Nobody has told it anything, and it is gone.
        assert pids_of(old.id) == []
        assert host_of(lab, running(witness)) != host
        gaps = apart(lab, volume)
    lab.settle(witness)
    assert apart(lab, volume)
    print(f"{way}: {gaps} s between the last write and the first of the next one")


@pytest.mark.skipif(not SOAK, reason="in the full counts")
def test_one_that_is_frozen_with_its_whole_host_is_killed_when_it_goes_on(lab: HaLab, witness: Witness) -> None:
    deploy(lab)
    old = running(witness)
    host = host_of(lab, old)
    with all_frozen(lab, host):
        witness.wait(
            lambda w: any(t.id != old.id and t.status.state == pb.TASK_STATE_RUNNING for t in w.tasks_of("db")),
            "another task",
        )
    eventually(lambda: pids_of(old.id) == [], "the end of the old one")
    lab.settle(witness)


def test_an_update_and_a_drain_stop_it_first(lab: HaLab, witness: Witness) -> None:
    volume = deploy(lab)
    done = lab.run("service", "update", "db", "--update-order", "start-first")
    assert done.returncode in (1, 125) and len(done.stderr.strip().splitlines()) == 1, done.stderr
    lab.cli("service", "update", "db", "--env-add", "V=2")
    assert len(apart(lab, volume)) == 1
    host = host_of(lab, running(witness))
    lab.cli("node", "update", "--availability", "drain", host)
    try:
        witness.wait(lambda w: any(serving_elsewhere(w, lab, host)), "it on another host")
    finally:
        lab.cli("node", "update", "--availability", "active", host)
    assert len(apart(lab, volume)) == 2
    lab.settle(witness)


def serving_elsewhere(witness: Witness, lab: HaLab, host: str) -> Iterator[bool]:
    for task in witness.tasks_of("db"):
        yield hosts.serves(task) and task.node_id != lab.layout.host(host).node_id
