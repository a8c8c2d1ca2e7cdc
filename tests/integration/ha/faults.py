"""The faults that the suite inflicts on a host, each with its mending, and what it may cost."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pyswarm_cli.lab import host as lab_hosts
from pyswarm_cli.lab import lifecycle
from pyswarm_core.v1 import objects_pb2 as pb
from tests.integration.ha.ha_lab import HaLab
from tests.integration.ha.witness import Witness

Inflict = Callable[[HaLab, Witness], contextlib.AbstractContextManager[None]]
WORKER = "host-5"  # the victim where it is a host; clients do not enter by it
CLIENTS = 12


@dataclass(frozen=True, slots=True)
class Fault:
    """`inflict` does it on entry, and on exit what mends it; it may wait in between for what is to be seen. `lost`:
    how many requests may fail, at most. `entry_lost`: clients must not enter by WORKER."""

    name: str
    inflict: Inflict
    lost: int = 0
    entry_lost: bool = False
    may_roll_back: bool = False


def state_of(witness: Witness, lab: HaLab, host: str) -> int:
    node = witness.nodes.get(lab.layout.host(host).node_id)
    return node.state if node is not None else 0


def is_down(lab: HaLab, host: str) -> Callable[[Witness], bool]:
    return lambda w: state_of(w, lab, host) == pb.NODE_STATE_DOWN


def follower(lab: HaLab, witness: Witness) -> str:
    return next(h.name for h in lab.layout.managers if h.name != witness.leader)


def etcd_leader(lab: HaLab) -> str:
    """The host whose member leads etcd."""
    for host in lab.layout.managers:
        script = (
            "ETCDCTL_API=3 etcdctl --cacert /etc/pyswarm/etcd-tls/ca.pem --cert /etc/pyswarm/tls/cert.pem "
            f"--key /etc/pyswarm/tls/key.pem --endpoints https://{host.address}:2379 endpoint status -w fields"
        )
        fields = dict(line.split(" : ", 1) for line in lab.inside(host.name, script).splitlines() if " : " in line)
        if fields['"MemberID"'] == fields['"Leader"']:
            return host.name
    raise AssertionError("no member leads etcd")


# ---- processes ----


@contextlib.contextmanager
def killed(lab: HaLab, host: str, daemon: str) -> Iterator[None]:
    lab.kill(host, daemon)
    try:
        yield
    finally:
        lab.start(host, daemon)


def _manager_killed(lab: HaLab, witness: Witness) -> contextlib.AbstractContextManager[None]:
    return killed(lab, follower(lab, witness), "manager")


def _member_killed(lab: HaLab, witness: Witness) -> contextlib.AbstractContextManager[None]:
    return killed(lab, etcd_leader(lab), "etcd")


@contextlib.contextmanager
def _frozen_until_another_leads(lab: HaLab, witness: Witness) -> Iterator[None]:
    term = witness.leader_revision
    with lab.frozen(witness.leader, "manager"):
        witness.wait(lambda w: w.leader_revision not in (0, term), "the election of another leader")
        yield


@contextlib.contextmanager
def _member_frozen(lab: HaLab, witness: Witness) -> Iterator[None]:
    """The member that leads; until etcd has another leader, which the next write tells."""
    with lab.frozen(etcd_leader(lab), "etcd"):
        revision = witness.revision
        witness.wait(lambda w: w.since(revision), "a write without that member")
        yield


def _agent_killed(lab: HaLab, witness: Witness) -> contextlib.AbstractContextManager[None]:
    return killed(lab, WORKER, "agent")


@contextlib.contextmanager
def _agent_frozen_until_down(lab: HaLab, witness: Witness) -> Iterator[None]:
    with lab.frozen(WORKER, "agent"):
        witness.wait(is_down(lab, WORKER), f"{WORKER} down")
        yield


def _container(lab: HaLab, witness: Witness) -> tuple[str, list[int]]:
    """A task of web that serves, and its processes, by the machine's pids."""
    here = [t for t in witness.tasks_of("web") if t.node_id == lab.layout.host(WORKER).node_id]
    for task in here:
        if task.status.state == pb.TASK_STATE_RUNNING and (pids := pids_of(task.id)):
            return task.id, pids
    raise AssertionError(f"no task of web runs on {WORKER}\n{witness.story()}")


def pids_of(task_id: str) -> list[int]:
    """Processes of the task's container, by the machine's pids."""
    done = subprocess.run(["grep", "-ls", task_id, *_proc_cgroups()], capture_output=True, text=True)
    return [int(line.split("/")[2]) for line in done.stdout.splitlines()]


def first_of(task_id: str) -> list[int]:
    """Of these, the container's own first process: probes come and go beside it."""
    return [pid for pid in pids_of(task_id) if _pid_inside(pid) == "1"]


def _pid_inside(pid: int) -> str:
    """In its innermost namespace; "" when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""
    return next((line.split()[-1] for line in status.splitlines() if line.startswith("NSpid:")), "")


def _proc_cgroups() -> list[str]:
    return [str(p) for p in Path("/proc").glob("[0-9]*/cgroup")]


@contextlib.contextmanager
def _container_killed(lab: HaLab, witness: Witness) -> Iterator[None]:
    task_id, pids = _container(lab, witness)
    for pid in pids:
        lab_hosts.send(pid, signal.SIGKILL)
    witness.wait(
        lambda w: task_id not in w.tasks or w.tasks[task_id].status.state > pb.TASK_STATE_RUNNING, "the task's end"
    )
    yield


@contextlib.contextmanager
def _container_frozen(lab: HaLab, witness: Witness) -> Iterator[None]:
    """For as long as some further writes of the rollout take."""
    _, pids = _container(lab, witness)
    for pid in pids:
        lab_hosts.send(pid, signal.SIGSTOP)
    try:
        revision = witness.revision
        witness.wait(lambda w: len(w.since(revision)) > 5, "progress of the rollout")
        yield
    finally:
        for pid in pids:
            lab_hosts.send(pid, signal.SIGCONT)


# ---- hosts ----


@contextlib.contextmanager
def _cut(lab: HaLab, witness: Witness, **way: bool) -> Iterator[None]:
    with lab.cut(WORKER, **way):
        witness.wait(is_down(lab, WORKER), f"{WORKER} down")
        yield


def _cut_off(lab: HaLab, witness: Witness) -> contextlib.AbstractContextManager[None]:
    return _cut(lab, witness)


def _deaf(lab: HaLab, witness: Witness) -> contextlib.AbstractContextManager[None]:
    return _cut(lab, witness, outbound=False)


def _mute(lab: HaLab, witness: Witness) -> contextlib.AbstractContextManager[None]:
    return _cut(lab, witness, inbound=False)


@contextlib.contextmanager
def _leaders_host_cut_off(lab: HaLab, witness: Witness) -> Iterator[None]:
    term = witness.leader_revision
    with lab.cut(witness.leader):
        witness.wait(lambda w: w.leader_revision not in (0, term), "the election of another leader")
        yield


@contextlib.contextmanager
def _rebooted(lab: HaLab, witness: Witness) -> Iterator[None]:
    host = lab.layout.host(WORKER)
    lab_hosts.power_off(lab.layout, host)
    lifecycle.start_host(lab.layout, host)
    yield


@contextlib.contextmanager
def _without_power(lab: HaLab, witness: Witness) -> Iterator[None]:
    host = lab.layout.host(WORKER)
    lab_hosts.power_off(lab.layout, host)
    try:
        witness.wait(is_down(lab, WORKER), f"{WORKER} down")
        yield
    finally:
        lifecycle.start_host(lab.layout, host)


# ---- the store ----


@contextlib.contextmanager
def _compacted_in_a_gap(lab: HaLab, witness: Witness) -> Iterator[None]:
    """Both followers are frozen while etcd forgets what they have not seen; one of them has to lead then."""
    leader, term = witness.leader, witness.leader_revision
    followers = [h.name for h in lab.layout.managers if h.name != leader]
    with contextlib.ExitStack() as stack:
        for name in followers:
            stack.enter_context(lab.frozen(name, "manager"))
        revision = witness.revision
        witness.wait(lambda w: len(w.since(revision)) > 10, "writes that they do not see")
        witness.compact()
        lab.kill(leader, "manager")
    try:
        witness.wait(lambda w: w.leader_revision not in (0, term), "the election of a manager that has missed history")
        yield
    finally:
        lab.start(leader, "manager")


FAULTS = (
    Fault("a follower killed", _manager_killed),
    Fault("the leader frozen until another leads", _frozen_until_another_leads),
    Fault("etcd's leader killed", _member_killed),
    Fault("etcd's leader frozen", _member_frozen),
    Fault("an agent killed", _agent_killed),
    Fault("an agent frozen until its node is down", _agent_frozen_until_down),
    Fault("a container killed", _container_killed, lost=CLIENTS, may_roll_back=True),
    Fault("a container frozen", _container_frozen),
    Fault("a host cut off", _cut_off, lost=3 * CLIENTS, entry_lost=True, may_roll_back=True),
    Fault("a host that hears nothing", _deaf, lost=3 * CLIENTS, entry_lost=True, may_roll_back=True),
    Fault("a host that nobody hears", _mute, lost=3 * CLIENTS, entry_lost=True, may_roll_back=True),
    Fault("the leader's host cut off", _leaders_host_cut_off, lost=3 * CLIENTS, entry_lost=True),
    Fault("a host rebooted", _rebooted, lost=3 * CLIENTS, entry_lost=True),
    Fault("a host without power", _without_power, lost=3 * CLIENTS, entry_lost=True, may_roll_back=True),
    Fault("etcd compacted in a gap of the watches", _compacted_in_a_gap),
)
