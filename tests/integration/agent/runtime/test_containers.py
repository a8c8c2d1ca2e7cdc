"""Real containers: their life, what is enforced, commands inside, and logs."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest
from tests.integration.agent.runtime.containers import Containers, eventually

from pyswarm_agent.interfaces import ContainerFailure
from pyswarm_agent.logs import files
from pyswarm_agent.logs.rotation import LogRotator
from pyswarm_agent.runtime.stats import totals
from pyswarm_core.v1 import spec_pb2 as spec

# ---- life ----


async def test_create_start_wait_delete(containers: Containers) -> None:
    runtime = containers.runtime
    request = await containers.request("t1", "sh", "-c", "echo out; echo err >&2; exit 7")
    pid = await runtime.create(request)
    assert Path(f"/proc/{pid}").exists()
    [state] = await runtime.states()
    assert (state.pid, state.running, state.exit) == (pid, False, None)
    assert await runtime.create(request) == pid  # idempotent
    assert list(runtime.log_files("t1")) == [] or runtime.log_files("t1")[0].read_bytes() == b""

    await runtime.start("t1")
    async with asyncio.timeout(20):
        end = await runtime.wait("t1")
    assert (end.code, end.oom) == (7, False) and abs(end.at - time.time()) < 20
    assert await runtime.wait("t1") == end  # at once, again
    [state] = await runtime.states()
    assert (state.pid, state.running, state.exit) == (0, False, end) and state.started_at > 0
    assert sorted(await containers.logs.last_lines("t1", 10)) == ["err", "out"]

    await runtime.delete("t1")
    assert await runtime.states() == []
    assert await containers.logs.last_lines("t1", 1) != []  # logs stay until they are forgotten
    await runtime.delete("t1")
    await runtime.forget("t1")
    assert list(runtime.log_files("t1")) == []
    await runtime.forget("t1")


async def test_a_task_runs_once(crun: Containers) -> None:
    await crun.run("t1", "true")
    with pytest.raises(ContainerFailure, match="already") as failure:
        await crun.runtime.create(await crun.request("t1", "true"))
    assert failure.value.final


@pytest.mark.parametrize(("name", "code"), [("TERM", 143), ("SIGKILL", 137), ("10", 138)])
async def test_signals(containers: Containers, name: str, code: int) -> None:
    # Without a handler the first process of a pid namespace gets nothing but SIGKILL.
    script = "trap 'exit 143' TERM; trap 'exit 138' USR1; echo ready; while :; do sleep 0.1; done"
    await containers.start("t1", "sh", "-c", script)
    await containers.output_has("t1", "ready")
    await containers.runtime.kill("t1", name)
    async with asyncio.timeout(20):
        assert (await containers.runtime.wait("t1")).code == code
    await containers.runtime.kill("t1", name)  # gone: no error


async def test_delete_ends_a_container_that_runs_with_all_its_processes(containers: Containers) -> None:
    await containers.start("t1", "sh", "-c", "sleep 1001 & sleep 1001 & echo ready; wait")
    await containers.output_has("t1", "ready")
    pids = containers.runtime._cgroups.pids("t1")
    assert len(pids) == 3
    await containers.runtime.delete("t1")
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids) or await eventually(
        lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids)
    )


async def test_delete_of_a_container_that_was_never_started(containers: Containers) -> None:
    await containers.runtime.create(await containers.request("t1", "true"))
    await containers.runtime.delete("t1")
    assert await containers.runtime.states() == []


async def test_starts_in_parallel(crun: Containers) -> None:
    names = [f"p{number}" for number in range(20)]
    await asyncio.gather(*(crun.start(name, "sh", "-c", f"echo {name}; exec sleep 1002") for name in names))
    states = await crun.runtime.states()
    assert sorted(state.task_id for state in states if state.running) == sorted(names)
    assert len({state.pid for state in states}) == 20
    await asyncio.gather(*(crun.output_has(name, name) for name in names))
    usage = totals(crun.runtime)
    assert usage.containers == 20 and usage.pids >= 20 and usage.memory > 0 and usage.cpu_seconds > 0
    for name in names:
        await crun.runtime.kill(name, "KILL")
    ends = await asyncio.gather(*(crun.runtime.wait(name) for name in names))
    assert [end.code for end in ends] == [137] * 20
    await asyncio.gather(*(crun.remove(name) for name in names))


async def test_deleting_and_creating_at_the_same_time(crun: Containers) -> None:
    """The parent of the cgroups goes with the last container, and must not go under one that is being made."""

    async def live(name: str) -> None:
        for round_ in range(4):
            end, _ = await crun.run(f"{name}r{round_}", "true")
            assert end.code == 0
            await crun.remove(f"{name}r{round_}")

    await asyncio.gather(*(live(f"c{number}") for number in range(4)))


# ---- failures ----


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"user": "nobody-here"}, "no user 'nobody-here'"),
        ({"workdir": "/etc/passwd/x"}, "working directory"),
        ({"mounts": [spec.Mount(type=spec.MOUNT_TYPE_BIND, source="/no/such/source", target="/m")]}, "/no/such/source"),
        ({"cap_add": ["FLY"]}, "FLY"),
    ],
)
async def test_what_can_never_be_is_refused_for_good(
    crun: Containers, options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(ContainerFailure, match=sentence) as failure:
        await crun.runtime.create(await crun.request("t1", "true", **options))
    assert failure.value.final
    assert list((crun.folder / "run" / "containers").iterdir()) == []


@pytest.mark.parametrize("command", ["nosuch", "/no/such", "/etc/passwd"])
async def test_a_command_that_cannot_be_run(containers: Containers, command: str) -> None:
    with pytest.raises(ContainerFailure, match="command") as failure:
        await containers.start("t1", command)
    assert failure.value.final
    assert "\n" not in str(failure.value)
    await containers.runtime.delete("t1")


async def test_a_netns_that_is_not_there(crun: Containers) -> None:
    crun.netns = Path("/run/netns/pyswarm-no-such")
    with pytest.raises(ContainerFailure) as failure:
        await crun.start("t1", "true")
    assert not failure.value.final


# ---- limits ----


async def test_limits_are_in_the_kernel_and_enforced(containers: Containers) -> None:
    resources = spec.Resources(limit_memory=32 << 20, limit_nano_cpus=250_000_000, limit_pids=40)
    await containers.start("t1", "sh", "-c", "echo ready; exec sleep 1004", resources=resources)
    await containers.output_has("t1", "ready")
    script = (
        "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory/memory.memsw.limit_in_bytes memory.max "
        "memory.swap.max cpu/cpu.cfs_quota_us cpu.max pids/pids.max pids.max 2>/dev/null"
    )
    _, output = await containers.runtime.execute("t1", ["sh", "-c", script], 10)
    v1 = ["33554432", "33554432", "25000", "40"]
    v2 = ["33554432", "0", "25000 100000", "40"]
    assert output.splitlines() in (v1, v2), output
    # More than the threads that runc itself needs in there.
    many = "i=0; while [ $i -lt 50 ]; do sleep 5 & i=$((i + 1)); done; echo $?"
    _, output = await containers.runtime.execute("t1", ["sh", "-c", many], 20)
    assert "fork" in output or "Resource temporarily unavailable" in output


async def test_a_cpu_limit_slows_down(crun: Containers) -> None:
    await crun.start("t1", "sh", "-c", "while :; do :; done", resources=spec.Resources(limit_nano_cpus=200_000_000))
    before, began = crun.runtime.usage()["t1"].cpu_seconds or 0.0, time.monotonic()
    await asyncio.sleep(1.5)
    used = ((crun.runtime.usage()["t1"].cpu_seconds or 0.0) - before) / (time.monotonic() - began)
    assert 0.05 < used < 0.3


async def test_an_oom_kill_is_told(containers: Containers) -> None:
    end, _ = await containers.run(
        "t1", "sh", "-c", "head -c 100000000 /dev/zero | tail", resources=spec.Resources(limit_memory=16 << 20)
    )
    assert end.oom
    end, _ = await containers.run("t2", "tail", "/dev/zero", resources=spec.Resources(limit_memory=16 << 20))
    assert (end.code, end.oom) == (137, True)
    end, _ = await containers.run("t3", "true", resources=spec.Resources(limit_memory=16 << 20))
    assert not end.oom
    assert not Path("oom").exists(), "conmon leaves one where it runs"


# ---- commands inside ----


async def test_execute(containers: Containers) -> None:
    await containers.start("t1", "sleep", "1005", env=["COLOUR=green"], user="web", workdir="/srv")
    execute = containers.runtime.execute
    code, output = await execute("t1", ["sh", "-c", "echo $COLOUR; pwd; id -u; echo err >&2; exit 4"], 20)
    assert code == 4 and sorted(output.splitlines()) == ["/srv", "1000", "err", "green"]
    code, output = await execute("t1", ["sh", "-c", "seq 1 5000"], 20)
    assert code == 0 and len(output) <= 4096 and output.endswith("5000\n")
    code, output = await execute("t1", ["nosuch"], 20)
    assert code != 0 and "nosuch" in output
    code, _ = await execute("t1", ["sh", "-c", "kill -9 $$"], 20)
    assert code == 137
    status = (await execute("t1", ["grep", "-E", "CapEff|Seccomp:|NoNewPrivs", "/proc/self/status"], 20))[1].split()
    assert status[1::2] == ["0000000000000000", "1", "2"]


async def test_a_command_that_takes_too_long_is_killed_with_its_children(containers: Containers) -> None:
    await containers.start("t1", "sleep", "1006")
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        await containers.runtime.execute("t1", ["sh", "-c", "sleep 1007 & sleep 1007 | cat; true"], 0.5)
    assert time.monotonic() - began < 500  # and has not waited for the children's end
    _, processes = await containers.runtime.execute("t1", ["ps"], 20)
    assert "1006" in processes and "1007" not in processes
    bundle = containers.folder / "run" / "containers" / "t1"
    assert [path.name for path in bundle.iterdir() if path.name.startswith("exec-")] == []


async def test_what_a_command_leaves_behind_does_not_hold_it_up(crun: Containers) -> None:
    await crun.start("t1", "sleep", "1008")
    began = time.monotonic()
    assert (await crun.runtime.execute("t1", ["sh", "-c", "sleep 30 & echo started"], 20))[1] == "started\n"
    assert time.monotonic() - began < 30  # its sleep goes on


async def test_execute_where_nothing_runs(crun: Containers) -> None:
    with pytest.raises(ContainerFailure):
        await crun.runtime.execute("nobody", ["true"], 5)
    await crun.run("t1", "true")
    with pytest.raises(ContainerFailure):
        await crun.runtime.execute("t1", ["true"], 5)


# ---- logs ----


async def test_logs_are_rotated_without_a_loss(crun: Containers) -> None:
    script = (
        "for i in $(seq 1 3000); do echo line $i of a log that is meant to grow; "
        "[ $((i % 100)) = 0 ] && sleep 0.02; done; echo done"
    )
    await crun.start(
        "t1", "sh", "-c", f"sleep 0.5; {script}; exec sleep 1009", log=spec.LogPolicy(max_size=20_000, max_file=50)
    )
    rotator = asyncio.create_task(rotate_quickly(LogRotator(crun.runtime.rotated_logs)))
    found: list[str] = []

    async def follow() -> None:
        async for batch in crun.logs.read("t1", follow=True):
            found.extend(line.line.decode() for line in batch)

    following = asyncio.create_task(follow())
    try:
        await eventually(lambda: bool(found) and found[-1] == "done")
    finally:
        rotator.cancel()
    await crun.runtime.kill("t1", "KILL")
    async with asyncio.timeout(10):
        await following
    assert found == [*(f"line {i} of a log that is meant to grow" for i in range(1, 3001)), "done"]
    assert len(files.listed(crun.folder / "data" / "tasks" / "t1")) > 2
    assert await crun.logs.last_lines("t1", 2) == ["line 3000 of a log that is meant to grow", "done"]


async def rotate_quickly(rotator: LogRotator) -> None:
    while True:
        rotator.rotate_full(0.01)
        await asyncio.sleep(0.01)


async def test_long_lines_come_whole(crun: Containers) -> None:
    output = await crun.sh("head -c 50000 /dev/zero | tr '\\0' x; echo; echo short")
    assert output.splitlines() == ["x" * 50000, "short"]


async def test_following_a_container_that_has_not_printed_yet(crun: Containers) -> None:
    await crun.runtime.create(await crun.request("t1", "sh", "-c", "sleep 0.3; echo late; kill -9 $$"))

    async def follow() -> list[bytes]:
        return [line.line async for batch in crun.logs.read("t1", follow=True) for line in batch]

    following = asyncio.create_task(follow())
    await crun.runtime.start("t1")
    async with asyncio.timeout(20):
        assert await following == [b"late"]
    assert (await crun.runtime.wait("t1")).code in (128 + signal.SIGKILL, 0)
