"""The journal: what was put is there again, whatever byte the agent was killed at."""

from __future__ import annotations

import asyncio
import errno
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm_agent.journal import Change, Disk, Journal, JournalFailure
from pyswarm_core.errors import PreconditionFailed

Table = dict[tuple[str, str], bytes]
changes = st.tuples(
    st.sampled_from(["life", "fence"]),
    st.sampled_from(["", "a", "b", "c"]),
    st.one_of(st.none(), st.binary(max_size=20)),
)


def content(journal: Journal) -> Table:
    return {(kind, key): value for kind in ("life", "fence") for key, value in journal.items(kind).items()}


def reopened(path: Path) -> Table:
    journal = Journal(path)
    journal.open()
    found = content(journal)
    journal.close()
    return found


def apply(table: Table, change: Change) -> Table:
    kind, key, value = change
    rest = {k: v for k, v in table.items() if k != (kind, key)}
    return rest if value is None else {**rest, (kind, key): value}


@settings(max_examples=100, deadline=None)
@given(writes=st.lists(changes, max_size=30), compact_at=st.sampled_from([1, 60, 10**6]), cut=st.integers(0, 40))
def test_every_prefix_of_the_file_is_a_state_that_was(
    tmp_path_factory: pytest.TempPathFactory, writes: list[Change], compact_at: int, cut: int
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    journal = Journal(path, compact_at=compact_at)
    journal.open()
    history: list[Table] = [{}]
    for change in writes:
        journal.write([change])
        history.append(apply(history[-1], change))
        assert content(journal) == history[-1]
    journal.close()
    assert reopened(path) == history[-1]
    if compact_at == 10**6:
        whole = path.read_bytes()
        path.write_bytes(whole[: max(0, len(whole) - cut)])
        found = reopened(path)
        assert found in history
        assert reopened(path) == found, "the rest was cut off for good"


def test_a_batch_is_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.open()
    journal.put("life", "a", b"old")
    before = path.stat().st_size
    journal.write([("life", "a", b"new"), ("life", "b", b"new"), ("fence", "", b"7")])
    journal.close()
    whole = path.read_bytes()
    for length in range(before, len(whole)):
        path.write_bytes(whole[:length])
        assert reopened(path) == {("life", "a"): b"old"}


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.open()
    journal.put("life", "a", b"first")
    journal.put("life", "b", b"second")
    journal.close()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert reopened(path) == {("life", "a"): b"first"}


class CountingDisk(Disk):
    flushes = 0

    def flush(self, fd: int) -> None:
        self.flushes += 1
        super().flush(fd)


async def test_many_syncs_share_few_flushes(tmp_path: Path) -> None:
    disk = CountingDisk()
    journal = Journal(tmp_path / "journal", disk=disk)
    journal.open()

    async def put(key: str) -> None:
        journal.put("life", key, b"x")
        await journal.sync()

    await asyncio.gather(*(put(str(i)) for i in range(30)))
    journal.close()
    assert 1 <= disk.flushes <= 2
    assert len(reopened(tmp_path / "journal")) == 30


class SmallDisk(Disk):
    """Takes five bytes of a write, and then no more, while it is full."""

    full = False

    def write(self, fd: int, data: memoryview) -> int:
        if not self.full:
            return super().write(fd, data)
        if len(data) > 5:
            return super().write(fd, data[:5])
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_full_disk_is_told_by_sync_and_mended_when_there_is_room(tmp_path: Path) -> None:
    path, disk = tmp_path / "journal", SmallDisk()
    journal = Journal(path, disk=disk)
    journal.open()
    journal.put("life", "a", b"1")
    disk.full = True
    journal.put("life", "b", b"2")
    with pytest.raises(JournalFailure, match="free disk space"):
        await journal.sync()
    journal.put("life", "c", b"3")
    assert reopened_copy(path, tmp_path / "copy") == {("life", "a"): b"1"}
    disk.full = False
    await journal.sync()
    journal.close()
    assert {key for _, key in reopened(path)} == {"a", "b", "c"}


def reopened_copy(path: Path, copy: Path) -> Table:
    copy.write_bytes(path.read_bytes())
    return reopened(copy)


def test_one_agent_for_one_folder(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.open()
    with pytest.raises(PreconditionFailed, match="another agent is using"):
        Journal(tmp_path / "journal").open()
    journal.close()
    Journal(tmp_path / "journal").open()


def test_it_is_for_root_only(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "agent" / "journal")
    journal.open()
    journal.put("life", "a", b"x")
    journal.close()
    assert (tmp_path / "agent" / "journal").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("compact_at", [300, 10**6])
def test_a_killed_writer_loses_nothing_that_it_had_put(tmp_path: Path, compact_at: int) -> None:
    """A real process, killed by SIGKILL in the middle of its work, at whatever byte."""
    program = f"""
import sys
from pathlib import Path
from pyswarm_agent.journal import Journal
journal = Journal(Path(sys.argv[1]), compact_at={compact_at})
journal.open()
n = 0
while True:
    n += 1
    journal.write([("life", "n", str(n).encode()), ("life", str(n % 7), str(n).encode())])
    print(n, flush=True)
"""
    path = tmp_path / "journal"
    last = 0
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            for _ in range(200):
                writer.stdout.readline()
            writer.kill()
            rest = [line for line in writer.stdout.read().split(b"\n")[:-1] if line]
        last = int(rest[-1]) if rest else 200
        found = reopened(path)
        n = int(found["life", "n"])
        assert n >= last
        assert found["life", str(n % 7)] == str(n).encode()
