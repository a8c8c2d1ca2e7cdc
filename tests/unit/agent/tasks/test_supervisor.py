"""Runners and supervisor on a host made of Python: assignments in, statuses out, and restarts of the agent between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from tests.unit.agent.fakes import FakeHost, until
from tests.unit.agent.tasks.build import make_task, tcp_probe, told
from tests.unit.agent.tasks.supervised import Agent

from pyswarm_agent.interfaces import ContainerFailure, ImageConfig
from pyswarm_agent.tasks import events as ev
from pyswarm_agent.tasks.life import Phase
from pyswarm_agent.tasks.listens import Listens
from pyswarm_core.v1 import objects_pb2 as pb

BOOT = "3f0c"


@pytest_asyncio.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[..., Agent]]:
    agents: list[Agent] = []

    def build(host: FakeHost) -> Agent:
        agents.append(Agent(host, tmp_path))
        return agents[-1]

    yield build
    for agent in agents:
        await agent.supervisor.close()
        agent.journal.close()


async def test_from_assignment_to_nothing_left(make: Callable[..., Agent]) -> None:
    host = FakeHost()
    agent = make(host)
    task = make_task()
    agent.auths["s1"] = pb.RegistryAuth(id="s1", username="u")
    agent.assign(task, complete=True)
    await agent.reaches(pb.TASK_STATE_RUNNING)
    assert host.links.links == {"t1": ("10.128.64.2",)} and host.images.mounted == {"t1"}
    assert host.images.auths == [agent.auths["s1"]]
    assert host.runtime.containers["t1"].request.hostname == "t1"
    states = [s.state for s in agent.reports["t1"]]
    assert states == sorted(states) and states[0] == pb.TASK_STATE_PREPARING
    assert "pulling 1/2 layers" in [s.message for s in agent.reports["t1"]]
    host.network.open["t1"] = 1
    agent.assign(told(task, desired_state=pb.TASK_STATE_SHUTDOWN, leaving=True, released=True))
    await until(lambda: host.network.released == ["t1"])
    await asyncio.sleep(0.05)
    assert not host.runtime.containers["t1"].signals, "a connection is open"
    host.network.open["t1"] = 0
    await agent.reaches(pb.TASK_STATE_SHUTDOWN)
    await until(lambda: agent.reports["t1"][-1].state == pb.TASK_STATE_SHUTDOWN)
    assert not host.runtime.containers and not host.links.links and not host.images.mounted
    assert host.runtime.logs == {"t1"}, "logs stay until the manager forgets the task"
    agent.assign(removed=("t1",))
    await until(host.is_empty)
    await until(lambda: not agent.supervisor.lives())
    assert not agent.records.lives()


async def test_an_exclusive_task_that_is_given_up_while_it_waits_for_its_permit_never_starts(
    make: Callable[..., Agent],
) -> None:
    """Its agent was frozen there, and another one runs in its place by now."""
    host = FakeHost()
    host.fuses.slow.clear()
    agent = make(host)
    task = make_task()
    task.spec.exclusive = True
    agent.assign(task, complete=True)
    await until(lambda: host.fuses.waiting == 1)
    given_up = told(task, desired_state=pb.TASK_STATE_SHUTDOWN)
    given_up.status.state = pb.TASK_STATE_ORPHANED
    agent.assign(given_up, complete=True)
    host.fuses.slow.set()
    await agent.reaches(pb.TASK_STATE_SHUTDOWN)
    await until(lambda: not host.runtime.containers)
    assert not host.runtime.starts


async def test_thirty_starts_overlap_but_not_all_at_once(make: Callable[..., Agent]) -> None:
    host = FakeHost()
    host.runtime.delay = 0.02
    agent = make(host)
    tasks = [make_task(f"t{i}") for i in range(30)]
    for i, task in enumerate(tasks):
        task.addresses[0].address = f"10.128.64.{i + 2}"
    agent.assign(*tasks, complete=True)
    for task in tasks:
        await agent.reaches(pb.TASK_STATE_RUNNING, task.id)
    assert 4 <= host.runtime.most_busy <= 8
    assert set(host.runtime.starts.values()) == {1}


async def test_a_restart_touches_no_container(make: Callable[..., Agent]) -> None:
    host = FakeHost()
    agent = make(host)
    await agent.supervisor.recover(BOOT)
    task = make_task()
    agent.assign(task, complete=True)
    await agent.reaches(pb.TASK_STATE_RUNNING)
    container = host.runtime.containers["t1"]
    await agent.kill()
    agent = make(host)
    await agent.supervisor.recover(BOOT)
    assert agent.state() == pb.TASK_STATE_RUNNING
    agent.assign(task, complete=True)
    await asyncio.sleep(0.02)
    assert host.runtime.containers["t1"] is container and not container.signals and host.runtime.starts["t1"] == 1
    host.runtime.finish("t1", 2)
    host.logs.lines["t1"] = ["last"]
    await agent.reaches(pb.TASK_STATE_FAILED)
    assert host.network.died == ["t1"]
    status = agent.reports["t1"][-1]
    assert status.error == "exited with code 2"


async def test_one_that_is_waited_for_is_waited_for_again_after_a_restart(make: Callable[..., Agent]) -> None:
    host = FakeHost()
    host.ports.silent = True
    agent = make(host)
    task = make_task()
    task.ports.add(target=80, published=8080)
    agent.assign(task, complete=True)
    await until(lambda: host.ports.started)
    await agent.kill()
    agent = make(host)
    await agent.supervisor.recover(BOOT)
    first, second = host.ports.started
    assert (second.listens, second.pid, second.addresses) == (first.listens, 1001, ("10.128.64.2",))
    assert second.listens == Listens((80,), every=True) and agent.state() == pb.TASK_STATE_STARTING
    second.report(())
    assert agent.state() == pb.TASK_STATE_RUNNING


async def test_a_crash_is_never_called_running(make: Callable[..., Agent]) -> None:
    host = FakeHost()
    host.ports.silent = True
    agent = make(host)
    agent.assign(make_task(), complete=True)
    await until(lambda: host.ports.started)
    host.runtime.finish("t1", 3)
    await agent.reaches(pb.TASK_STATE_FAILED)
    assert pb.TASK_STATE_RUNNING not in [s.state for s in agent.reports["t1"]]
    assert host.ports.started[0].stopped and not host.network.died


async def test_kills_at_every_stage_of_a_start(make: Callable[..., Agent]) -> None:
    """Whenever the agent is killed on the way to RUNNING, the next one brings the task there, with one start."""
    for waits in range(12):
        host = FakeHost()
        host.runtime.delay = 0.001
        agent = make(host)
        task = make_task(f"k{waits}")
        agent.assign(task, complete=True)
        for _ in range(waits):
            await asyncio.sleep(0)
        await asyncio.sleep(0.0008 * (waits % 4))
        await agent.kill()
        agent = make(host)
        await agent.supervisor.recover(BOOT)
        agent.assign(task, complete=True)
        await agent.reaches(pb.TASK_STATE_RUNNING, task.id)
        assert host.runtime.starts[task.id] == 1
        agent.assign(complete=True)
        await until(host.is_empty)
        await until(lambda agent=agent: not agent.supervisor.lives())  # type: ignore[misc]
        await agent.kill()


async def test_what_died_meanwhile_and_what_is_an_orphan(make: Callable[..., Agent]) -> None:
    host = FakeHost()
    agent = make(host)
    agent.assign(make_task(), complete=True)
    await agent.reaches(pb.TASK_STATE_RUNNING)
    await agent.kill()
    host.runtime.finish("t1", 137, oom=True)
    host.links.links["orphan"] = ("10.128.64.9",)
    host.runtime.logs.add("orphan")
    agent = make(host)
    await agent.supervisor.recover(BOOT)
    await agent.reaches(pb.TASK_STATE_FAILED)
    assert "memory" in agent.reports["t1"][-1].error
    assert "orphan" not in host.links.links and "orphan" not in host.runtime.logs


async def test_a_reboot_fails_what_ran_and_prepares_what_had_not_begun(make: Callable[..., Agent]) -> None:
    host = FakeHost()
    agent = make(host)
    await agent.supervisor.recover(BOOT)
    ready = make_task("t2", desired_state=pb.TASK_STATE_READY)
    ready.addresses[0].address = "10.128.64.3"
    agent.assign(make_task(), ready, complete=True)
    await agent.reaches(pb.TASK_STATE_RUNNING)
    await agent.reaches(pb.TASK_STATE_READY, "t2")
    await agent.kill()
    host.runtime.containers.clear()
    host.links.links.clear()
    host.images.mounted.clear()
    agent = make(host)
    await agent.supervisor.recover("another")
    await agent.reaches(pb.TASK_STATE_FAILED)
    assert agent.reports["t1"][-1].ended_with_host
    await until(lambda: "t2" in host.runtime.containers)
    agent.assign(told(ready, desired_state=pb.TASK_STATE_RUNNING))
    await agent.reaches(pb.TASK_STATE_RUNNING, "t2")
    assert host.runtime.starts == {"t1": 1, "t2": 1}


async def test_a_drain_goes_on_after_a_restart_with_its_old_deadline(make: Callable[..., Agent]) -> None:
    host = FakeHost()
    agent = make(host)
    task = make_task()
    task.spec.drain_timeout = 0.4
    agent.assign(task, complete=True)
    await agent.reaches(pb.TASK_STATE_RUNNING)
    host.network.open["t1"] = 2
    task = told(task, desired_state=pb.TASK_STATE_SHUTDOWN, released=True)
    agent.assign(task)
    await until(lambda: bool(host.network.released))
    life = agent.supervisor.life("t1")
    assert life is not None
    await agent.kill()
    agent = make(host)
    await agent.supervisor.recover(BOOT)
    again = agent.supervisor.life("t1")
    assert again is not None and again.phase is Phase.DRAINING and again.deadline == life.deadline
    agent.assign(task, complete=True)
    await agent.reaches(pb.TASK_STATE_SHUTDOWN)
    assert agent.reports["t1"][-1].drain.open_at_stop == 2


async def test_a_wall_clock_that_is_set_back_lengthens_neither_drain_nor_grace(make: Callable[..., Agent]) -> None:
    host = FakeHost()
    host.runtime.ignored.add("TERM")
    agent = make(host)
    task = make_task()
    task.spec.drain_timeout = task.spec.container.stop_grace = 0.3
    agent.assign(task, complete=True)
    await agent.reaches(pb.TASK_STATE_RUNNING)
    host.network.open["t1"] = 1
    agent.assign(told(task, desired_state=pb.TASK_STATE_SHUTDOWN, released=True))
    await until(lambda: bool(host.network.released))
    agent.set_back = 3600.0
    signals = host.runtime.containers["t1"].signals
    await until(lambda: signals == ["TERM"], what="the end of the drain")
    agent.set_back = 7200.0
    await agent.reaches(pb.TASK_STATE_SHUTDOWN)
    assert signals == ["TERM", "KILL"]


async def test_an_address_is_given_on_only_when_the_link_is_gone(make: Callable[..., Agent]) -> None:
    host = FakeHost()
    agent = make(host)
    agent.assign(make_task("t1"), complete=True)
    await agent.reaches(pb.TASK_STATE_RUNNING)
    host.runtime.delay = 0.05  # a slow clean-up; FakeLinks refuses an address that another link has
    host.runtime.finish("t1", 1)
    await agent.reaches(pb.TASK_STATE_FAILED)
    agent.assign(make_task("t2"))
    await agent.reaches(pb.TASK_STATE_RUNNING, "t2")
    assert list(host.links.links) == ["t2"]


async def test_probes_are_started_after_a_restart_as_they_were(make: Callable[..., Agent]) -> None:
    host = FakeHost()
    host.images.config = ImageConfig(probe=tcp_probe(), stop_signal="SIGQUIT")
    agent = make(host)
    agent.assign(make_task(), complete=True)
    await agent.reaches(pb.TASK_STATE_STARTING)
    await until(lambda: len(host.probes.started) == 1)
    host.probes.of("t1").report(pb.HEALTH_HEALTHY, "")
    await agent.reaches(pb.TASK_STATE_RUNNING)
    await agent.kill()
    agent = make(host)
    await agent.supervisor.recover(BOOT)
    assert len(host.probes.started) == 2 and host.probes.of("t1").health == pb.HEALTH_HEALTHY
    host.probes.of("t1").report(pb.HEALTH_UNHEALTHY, "status 500")
    assert agent.state() == pb.TASK_STATE_RUNNING
    task = agent.supervisor.network_tasks()["t1"]
    assert task.status.health == pb.HEALTH_UNHEALTHY
    agent.assign(complete=True)
    await until(lambda: host.probes.of("t1").stopped and not agent.supervisor.lives())
    assert host.is_empty()


@pytest.mark.parametrize("where", ["pull", "create", "links", "start", "template"])
async def test_failures_on_the_way_end_clean(make: Callable[..., Agent], where: str) -> None:
    host = FakeHost()
    task = make_task()
    if where == "pull":
        host.images.failures.append(host.images.failure("no such tag", final=True))
    elif where == "create":
        host.runtime.failures["create"] = [ContainerFailure("no such command", final=True)]
    elif where == "links":
        host.links.failures += [RuntimeError("kernel says no")] * 3
    elif where == "start":
        host.runtime.failures["start"] = [ContainerFailure("no such command", final=True)]
    else:
        task.spec.container.env.append("A={{.Nope}}")
    agent = make(host)
    agent.assign(task, complete=True)
    await agent.reaches(pb.TASK_STATE_FAILED if where == "start" else pb.TASK_STATE_REJECTED)
    await until(lambda: not (host.runtime.containers or host.links.links or host.images.mounted))
    assert agent.reports["t1"][-1].error and not host.network.died


async def test_unwanted_while_it_is_pulled_or_made(make: Callable[..., Agent]) -> None:
    for slow in ("pull", "create"):
        host = FakeHost()
        agent = make(host)
        task = make_task(slow)
        if slow == "pull":
            host.images.gate.clear()
        else:
            host.runtime.delay = 0.05
        agent.assign(task, complete=True)
        await until(lambda host=host: host.images.pulls)  # type: ignore[misc]
        await asyncio.sleep(0.01)
        agent.assign(told(task, desired_state=pb.TASK_STATE_SHUTDOWN))
        await agent.reaches(pb.TASK_STATE_SHUTDOWN, slow)
        agent.assign(complete=True)
        await until(host.is_empty)
        assert not host.runtime.starts
        await agent.kill()


async def test_cleaning_is_tried_again(make: Callable[..., Agent]) -> None:
    host = FakeHost()
    agent = make(host)
    agent.assign(make_task(), complete=True)
    await agent.reaches(pb.TASK_STATE_RUNNING)
    host.runtime.failures["delete"] = [OSError("device is busy")]
    host.runtime.finish("t1", 0)
    await until(lambda: "device is busy" in agent.reports["t1"][-1].message)
    await until(lambda: not host.runtime.containers)
    assert agent.state() == pb.TASK_STATE_COMPLETE


async def test_what_the_network_is_told(make: Callable[..., Agent]) -> None:
    host = FakeHost()
    agent = make(host)
    task = make_task()
    agent.assign(task, complete=True)
    await agent.reaches(pb.TASK_STATE_RUNNING)
    await asyncio.sleep(0.01)
    changes = agent.network_changes
    view = agent.supervisor.network_tasks()
    assert view["t1"].status.state == pb.TASK_STATE_RUNNING and view["t1"].addresses
    assert agent.supervisor.network_tasks()["t1"] is view["t1"], "the same object while nothing changed"
    agent.supervisor.feed("t1", ev.Redirected(7.0))
    assert agent.network_changes == changes, "nothing that rules depend on"
    host.runtime.finish("t1", 1)
    await agent.reaches(pb.TASK_STATE_FAILED)
    assert agent.supervisor.dead() == {"t1"} and agent.network_changes > changes
    agent.assign(told(task, addresses_free=True))
    assert not agent.supervisor.network_tasks()
