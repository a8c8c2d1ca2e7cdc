"""All of etcd away, or every manager: containers and traffic go on, a task that dies is succeeded by its own agent, the
command line says what is wrong; and when they return, the managers adopt what they find, and nothing restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyswarm_cli.lab import host as lab_hosts
from pyswarm_core.v1 import objects_pb2 as pb
from tests.integration.ha import hosts
from tests.integration.ha.faults import CLIENTS, WORKER, first_of, pids_of
from tests.integration.ha.ha_lab import PORT, HaLab
from tests.integration.ha.witness import Witness
from tests.support.lab import SOAK, LabUnderTest, eventually

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]

REPLICAS = 5


@pytest.mark.parametrize("number", range(3 if SOAK else 1))
@pytest.mark.parametrize("daemon", ["etcd", "manager"] if SOAK else ["etcd"])
def test_all_of_them_away(lab: HaLab, witness: Witness, report: Path, daemon: str, number: int) -> None:
    lab.deploy_web(REPLICAS)
    lab.settle(witness)
    before = {t.id: t for t in witness.tasks_of("web")}
    processes = {task_id: first_of(task_id) for task_id in before}
    assert all(len(found) == 1 for found in processes.values()), processes
    victim = next(t for t in before.values() if t.node_id == lab.layout.host(WORKER).node_id)
    with lab.load(PORT, report) as seen:
        for host in lab.layout.managers:
            lab.kill(host.name, daemon)
        sentence = _refusal(lab)
        for pid in pids_of(victim.id):
            lab_hosts.send(pid, 9)
        successor = eventually(lambda: _successor(lab, victim.id), "a successor, made by the agent")
        running = first_of(successor)
        for host in lab.layout.managers:
            lab.start(host.name, daemon)
        witness.wait(
            lambda w: successor in w.tasks and w.tasks[successor].status.state == pb.TASK_STATE_RUNNING,
            "the adoption of the successor",
        )
        lab.settle(witness)
    after = {t.id: t for t in witness.tasks_of("web") if not hosts.is_over(t)}
    assert after.keys() == before.keys() - {victim.id} | {successor}
    assert after[successor].predecessor_id == victim.id
    assert after[successor].slot == victim.slot
    for task_id, task in after.items():
        assert first_of(task_id) == (running if task_id == successor else processes[task_id])
        if task_id != successor:
            assert task.status.timings.started_at == before[task_id].status.timings.started_at
    print(f"no {daemon}: {seen['sent']} requests, {seen['failed']} failed: {sentence}")
    assert seen["failed"] <= CLIENTS, seen  # what the container that died was answering


def _refusal(lab: LabUnderTest) -> str:
    """What the command line says to a change, and to a question that cannot be answered."""
    done = lab.run("service", "scale", "web=6")
    assert done.returncode == 1, done.stdout + done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert "etcd" in lines[0] or "manager" in lines[0], lines
    return lines[0]


def _successor(lab: HaLab, dead: str) -> str:
    """A container that runs on the host beside, or instead of, the dead one's."""
    seen = hosts.look(lab.layout, lab.layout.host(WORKER))
    return next((i for i, alive in seen.containers.items() if alive and i != dead), "")
