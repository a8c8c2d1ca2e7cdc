"""The agent, conmon or the host go first: what is found afterwards."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.agent.runtime.containers import Containers, eventually, processes_with

from pyswarm_agent.interfaces import ContainerState
from pyswarm_agent.runtime import processes
from pyswarm_agent.runtime.exits import LOST
from pyswarm_agent.runtime.monitor import Identity
from pyswarm_core.v1 import spec_pb2 as spec

STANDIN = Path(__file__).with_name("standin.py")


async def with_killed_agent(containers: Containers, *tasks: str, prefix: tuple[str, ...] = ()) -> dict[str, int]:
    """Another process makes these tasks and is killed with SIGKILL; task id → pid."""
    for task in tasks:
        await containers.mounter.mount(task.partition(":")[0], "base", containers.layers, "base")
    command = [
        *prefix,
        *(sys.executable, str(STANDIN), str(containers.folder), containers.name, str(containers.netns)),
        *(containers.settings.runtime, str(containers.folder / "rootfs"), *tasks),
    ]
    agent = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert agent.stdout is not None
    pids: dict[str, int] = {}
    try:
        async with asyncio.timeout(60):
            while (line := (await agent.stdout.readline()).decode().split()) != ["ready"]:
                pids[line[0]] = int(line[1])
    finally:
        agent.kill()
        await agent.wait()
    return pids


def by_id(states: list[ContainerState]) -> dict[str, ContainerState]:
    return {state.task_id: state for state in states}


async def test_a_new_agent_finds_all_and_touches_nothing(containers: Containers) -> None:
    pids = await with_killed_agent(containers, "a", "b", "c:created")
    runtime = containers.restarted()
    found = by_id(list(await runtime.states()))
    assert {task: (s.pid, s.running, s.exit) for task, s in found.items()} == {
        "a": (pids["a"], True, None),
        "b": (pids["b"], True, None),
        "c": (pids["c"], False, None),
    }
    ticks = (await containers.output("a")).count("tick")
    await eventually(lambda: containers.output("a"), lambda output: output.count("tick") > ticks + 2)

    waiting = asyncio.create_task(runtime.wait("a"))
    await asyncio.sleep(0)
    await runtime.kill("a", "TERM")
    async with asyncio.timeout(20):
        assert (await waiting).code == 9
    await runtime.start("b")  # a second time: nothing happens
    await runtime.start("c")
    await containers.output_has("c", "tick 3")
    assert (await runtime.execute("c", ["hostname"], 10)) == (0, "standin\n")


async def test_an_end_while_no_agent_was_there(containers: Containers) -> None:
    pids = await with_killed_agent(containers, "a")
    await containers.output_has("a", "tick 0")  # its trap is set: a first process ignores what it does not handle
    os.kill(pids["a"], signal.SIGTERM)
    runtime = containers.restarted()
    async with asyncio.timeout(20):
        assert (await runtime.wait("a")).code == 9
    [state] = await runtime.states()
    assert state.exit is not None and state.exit.code == 9 and state.pid == 0


async def test_killed_between_starting_and_writing_it_down(containers: Containers) -> None:
    await with_killed_agent(containers, "a")
    paths = containers.runtime._folders.of("a")
    paths.started.unlink()
    runtime = containers.restarted()
    [state] = await runtime.states()
    assert state.running and state.started_at > 0 and paths.started.exists()


async def test_killed_while_creating(containers: Containers) -> None:
    """Whatever is there of it is removed, and the container is made anew."""
    request = await containers.request("a", "sleep", "1010")
    await with_killed_agent(containers, "a:created")
    paths = containers.runtime._folders.of("a")
    paths.identity.unlink()  # the last thing that `create` writes
    first = processes.read_pid(paths.conmon_pid)
    runtime = containers.restarted()
    [state] = await runtime.states()
    assert (state.pid, state.running, state.exit) == (0, False, None)
    pid = await runtime.create(request)
    await runtime.start("a")
    [state] = await runtime.states()
    assert state.running and state.pid == pid
    await eventually(lambda: processes.find(first) is None or not processes.find(first).is_alive())  # type: ignore[union-attr]
    # conmon alone: the container's first process has the runtime's arguments until it executes its own
    await eventually(lambda: len(processes_with(str(paths.bundle))) == 1)


async def test_killed_at_any_moment_of_creating(crun: Containers) -> None:
    """The agent's process dies 0 … 60 ms after it began; the next one succeeds every time."""
    for number in range(8):
        task = f"k{number}"
        request = await crun.request(task, "sleep", "1011")
        creating = await asyncio.create_subprocess_exec(
            *(sys.executable, str(STANDIN), str(crun.folder), crun.name, str(crun.netns)),
            *(crun.settings.runtime, str(crun.folder / "rootfs"), f"{task}:created"),
            stdout=asyncio.subprocess.DEVNULL,
        )
        await eventually(lambda task=task: (crun.folder / "run" / "containers" / task).exists())
        await asyncio.sleep(number * 0.008)
        creating.kill()
        await creating.wait()
        runtime = crun.restarted()
        await runtime.create(request)
        await runtime.start(task)
        states = by_id(list(await runtime.states()))
        assert states[task].running
        await crun.remove(task)
        assert processes_with(f"{crun.folder}/run/containers/{task}") == []
        assert not (crun.folder / "run" / "containers" / task).exists()


async def test_what_a_killed_runtime_had_mounted_is_removed(crun: Containers) -> None:
    """crun mounts its own program on a temporary file for a moment."""
    await crun.runtime.create(await crun.request("t1", "true"))
    for folder in (crun.folder / "run" / "containers" / "t1", crun.folder / "run" / "scratch"):
        (folder / "crun.abcdef").touch()
        subprocess.run(["mount", "--bind", "/bin/true", str(folder / "crun.abcdef")], check=True)
    await crun.restarted().delete("t1")
    assert list((crun.folder / "run" / "scratch").iterdir()) == []
    assert str(crun.folder / "run") not in Path("/proc/self/mountinfo").read_text()


async def test_conmon_is_killed_and_the_container_lives_on(containers: Containers) -> None:
    await containers.start("t1", "sh", "-c", "trap 'exit 6' TERM; echo ready; while :; do sleep 0.1; done")
    await containers.output_has("t1", "ready")
    identity = Identity.load(containers.runtime._folders.of("t1").identity)
    assert identity is not None and identity.conmon is not None
    waiting = asyncio.create_task(containers.runtime.wait("t1"))
    await asyncio.sleep(0)
    os.kill(identity.conmon.pid, signal.SIGKILL)
    await eventually(lambda: not identity.conmon.is_alive())
    [state] = await containers.restarted().states()
    assert state.running and state.pid == identity.container.pid and not waiting.done()
    await containers.runtime.kill("t1", "TERM")
    async with asyncio.timeout(20):
        end = await waiting
    # The kernel tells the code since Linux 6.15, or while the process is a zombie.
    assert end.code in (6, LOST)
    assert (await containers.runtime.wait("t1")).code == end.code
    [state] = await containers.restarted().states()
    assert state.exit is not None and state.exit.code == end.code


async def test_conmon_and_container_are_killed_while_no_agent_is_there(containers: Containers) -> None:
    await with_killed_agent(containers, "a")
    identity = Identity.load(containers.runtime._folders.of("a").identity)
    assert identity is not None and identity.conmon is not None
    os.kill(identity.conmon.pid, signal.SIGKILL)
    os.kill(identity.container.pid, signal.SIGKILL)
    runtime = containers.restarted()
    async with asyncio.timeout(20):
        end = await runtime.wait("a")
    assert end.code in (137, LOST)
    [state] = await runtime.states()
    assert state.exit is not None and not state.running


async def test_the_host_was_restarted(crun: Containers) -> None:
    """The run directory is empty then, the data directory is not."""
    await crun.start("t1", "sh", "-c", "echo before; exec sleep 1012")
    await crun.output_has("t1", "before")
    await crun.runtime.kill("t1", "KILL")
    await crun.runtime.wait("t1")
    await crun.runtime._oci.delete("t1")
    crun.runtime._cgroups.remove("t1")
    shutil.rmtree(crun.folder / "run")
    runtime = crun.restarted()
    [state] = await runtime.states()
    assert state.exit is not None and state.exit.code == LOST and not state.running
    assert (await runtime.wait("t1")).code == LOST
    assert await crun.logs.last_lines("t1", 5) == ["before"]
    await runtime.delete("t1")
    assert await runtime.states() == []


async def test_a_number_that_now_belongs_to_another_process_is_left_alone(crun: Containers) -> None:
    await crun.start("t1", "sleep", "1013")
    paths = crun.runtime._folders.of("t1")
    identity = Identity.load(paths.identity)
    assert identity is not None
    await crun.runtime.kill("t1", "KILL")
    await crun.runtime.wait("t1")
    stranger = subprocess.Popen(["sleep", "1014"])
    try:
        reused = processes.Process(stranger.pid, identity.container.started)
        Identity(reused, reused).save(paths.identity)
        await crun.runtime.kill("t1", "KILL")
        await crun.runtime.delete("t1")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("runtime", ["crun", "runc"])
async def test_cgroup_v1_alone(tmp_path: Path, runtime: str) -> None:
    """As in a lab host: the agent sees v1 controllers and nothing beside them."""
    from tests.integration.agent.runtime.containers import NEEDS, missing

    from pyswarm_agent.runtime.cgroups import Cgroups, Layout

    if os.geteuid() != 0 or missing(runtime):
        pytest.skip(NEEDS)
    if Cgroups.detect("x").layout is not Layout.HYBRID:
        pytest.skip("this machine's layout is the only one that can be tried on it")
    containers = Containers(tmp_path, runtime)
    try:
        cover = 'mount -t tmpfs none /sys/fs/cgroup/unified && exec "$0" "$@"'
        pids = await with_killed_agent(containers, "a", prefix=("unshare", "--mount", "sh", "-c", cover))
        [state] = await containers.runtime.states()
        assert state.running and state.pid == pids["a"]
        assert await containers.runtime.execute("a", ["hostname"], 20) == (0, "standin\n")
        usage = containers.runtime.usage()["a"]
        assert usage.memory_limit == 32 << 20 and usage.memory and usage.pids
        assert not Path("/sys/fs/cgroup/unified", containers.name, "a").exists()
        await containers.runtime.kill("a", "TERM")
        async with asyncio.timeout(20):
            assert (await containers.runtime.wait("a")).code == 9
    finally:
        await containers.close()
    assert containers.left() == []


async def test_an_oom_kill_without_conmon_is_still_told(crun: Containers) -> None:
    await crun.start(
        "t1", "sh", "-c", "while [ ! -e /go ]; do sleep 0.05; done; exec tail /dev/zero",
        resources=spec.Resources(limit_memory=16 << 20),
    )  # fmt: skip
    identity = Identity.load(crun.runtime._folders.of("t1").identity)
    assert identity is not None and identity.conmon is not None
    os.kill(identity.conmon.pid, signal.SIGKILL)
    await eventually(lambda: not identity.conmon.is_alive())
    await crun.runtime.execute("t1", ["touch", "/go"], 20)
    async with asyncio.timeout(30):
        end = await crun.runtime.wait("t1")
    assert end.oom and end.code in (137, LOST)
