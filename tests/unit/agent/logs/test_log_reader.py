"""Reading and rotating, with a writer that does with its file what conmon does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path, PosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyswarm_agent.logs import files
from pyswarm_agent.logs.cursor import Cursor
from pyswarm_agent.logs.reader import LogReader
from pyswarm_agent.logs.rotation import LogRotator, Rotated, rotate


class Writer:
    """Writes CRI lines; opens its file anew when told so on its fifo, and only then. Also stands in for the runtime."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.ctl = folder / "ctl"
        os.mkfifo(self.ctl)
        self._fifo = os.open(self.ctl, os.O_RDWR | os.O_NONBLOCK)
        self._file = self._open()
        self.prints = True
        self.clock = 1_000_000.0

    def _open(self) -> int:
        return os.open(files.numbered(self.folder, 0), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def reopen_if_told(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            if os.read(self._fifo, 4096).startswith(b"2 "):
                os.close(self._file)
                self._file = self._open()
                return True
        return False

    def write(self, text: str, *, tag: str = "F", stream: str = "stdout") -> None:
        self.clock += 1
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(self.clock))
        os.write(self._file, f"{stamp}.000000000+00:00 {stream} {tag} {text}\n".encode())

    def rotated(self, max_file: int = 3) -> Rotated:
        return Rotated("t", self.folder, self.ctl, max_size=200, max_file=max_file)

    def rotate(self, max_file: int = 3) -> None:
        rotate(self.rotated(max_file))
        assert self.reopen_if_told()

    def close(self) -> None:
        os.close(self._fifo)
        os.close(self._file)

    # what the reader wants of a runtime

    def log_folder(self, task_id: str) -> Path:
        return self.folder

    def may_print(self, task_id: str) -> bool:
        return self.prints


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    writer = Writer(tmp_path / "logs")
    yield writer
    writer.close()


async def read_all(writer: Writer, *, tail: int = -1, since: float = 0.0) -> list[str]:
    reader = LogReader(writer)
    return [line.line.decode() async for batch in reader.read("t", tail=tail, since=since) for line in batch]


async def test_all_lines_come_in_order_across_rotated_files(writer: Writer) -> None:
    for number in range(30):
        if number % 10 == 0 and number:
            writer.rotate()
        writer.write(f"line {number}")
    assert [path.name for path in files.listed(writer.folder)] == [
        "container.log.2",
        "container.log.1",
        "container.log",
    ]
    assert await read_all(writer) == [f"line {n}" for n in range(30)]


@pytest.mark.parametrize("tail", [0, 1, 9, 10, 11, 25, 30, 31])
async def test_tail_reaches_back_over_files(writer: Writer, tail: int) -> None:
    for number in range(30):
        if number % 10 == 0 and number:
            writer.rotate()
        writer.write(f"line {number}")
    assert await read_all(writer, tail=tail) == [f"line {n}" for n in range(30)][30 - min(30, tail) :]


async def test_tail_counts_lines_and_not_pieces(writer: Writer) -> None:
    writer.write("first")
    writer.write("a", tag="P")
    writer.write("b", tag="P")
    writer.write("c")
    assert await read_all(writer, tail=1) == ["abc"]
    assert await read_all(writer, tail=2) == ["first", "abc"]


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=40),
    tail=st.integers(0, 45),
)
def test_tail_is_the_end_of_all(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[int, bool]], tail: int
) -> None:
    writer = Writer(tmp_path_factory.mktemp("logs") / "logs")
    try:
        for number, (length, rotates) in enumerate(lines):
            writer.write(f"{number} " + "x" * length)
            if rotates:
                writer.rotate(max_file=50)
        every = asyncio.run(read_all(writer))
        assert [line.split()[0] for line in every] == [str(n) for n in range(len(lines))]
        assert asyncio.run(read_all(writer, tail=tail)) == every[max(0, len(every) - tail) :]
    finally:
        writer.close()


async def test_a_tail_longer_than_a_block(writer: Writer) -> None:
    for number in range(3000):
        writer.write(f"{number} " + "y" * 200)
    found = await read_all(writer, tail=2500)
    assert [line.split()[0] for line in found] == [str(n) for n in range(500, 3000)]


async def test_since_leaves_out_what_is_older(writer: Writer) -> None:
    for number in range(5):
        writer.write(f"line {number}")
    assert await read_all(writer, since=writer.clock - 1) == ["line 3", "line 4"]


async def test_a_line_that_was_never_ended_comes_last(writer: Writer) -> None:
    writer.write("whole")
    writer.write("half", tag="P")
    assert await read_all(writer) == ["whole", "half"]


async def test_no_log_is_no_error(tmp_path: Path, writer: Writer) -> None:
    writer.folder = tmp_path / "nothing"
    assert await read_all(writer, tail=10) == []


async def test_last_lines_are_cut_and_decoded(writer: Writer) -> None:
    writer.write("x" * 2000)
    os.write(writer._file, b"2026-11-24T14:11:22Z stderr F caf\xff\r\n")
    lines = await LogReader(writer).last_lines("t", 10)
    assert [len(lines[0]), lines[1]] == [500, "caf\ufffd"]


async def follow(writer: Writer, act: Callable[[list[str]], object], **options: int) -> list[str]:
    """Follows while `act` runs in a thread and sees what has come so far."""
    found: list[str] = []

    async def read() -> None:
        async for batch in LogReader(writer).read("t", follow=True, **options):
            found.extend(line.line.decode() for line in batch)

    reading = asyncio.create_task(read())
    await asyncio.to_thread(act, found)
    writer.prints = False
    async with asyncio.timeout(10):
        await reading
    return found


async def test_following_misses_and_repeats_nothing_across_rotations(writer: Writer) -> None:
    def act(_: list[str]) -> None:
        for number in range(400):
            writer.write(f"line {number}")
            if number % 40 == 39:
                rotate(writer.rotated(max_file=20))
                # conmon goes on writing into the renamed file until it looks at its fifo
                writer.write(f"late {number}")
                assert writer.reopen_if_told()
                time.sleep(0.06)

    found = await follow(writer, act)
    expected = [text for n in range(400) for text in ([f"line {n}", f"late {n}"] if n % 40 == 39 else [f"line {n}"])]
    assert found == expected


class RotatedWhileListed(PosixPath):
    """A folder whose files are renamed right after they were listed, as often as told."""

    writer: Writer
    times = 0

    def iterdir(self) -> Generator[RotatedWhileListed, None, None]:
        listed = list(super().iterdir())
        if self.times:
            self.times -= 1
            self.writer.rotate(max_file=9)
        yield from listed


@pytest.mark.parametrize("when", ["begins", "moves on"])
@pytest.mark.parametrize("tail", [-1, 3])
def test_a_rotation_between_listing_and_opening_costs_no_line(writer: Writer, when: str, tail: int) -> None:
    folder = RotatedWhileListed(writer.folder)
    folder.writer = writer
    writer.write("first")
    folder.times = when == "begins"
    cursor = Cursor(folder, tail=tail)
    try:
        found = [line.text for line in cursor.read()]
        writer.rotate()
        writer.write("second")
        folder.times = when == "moves on"
        while lines := cursor.read():
            found += [line.text for line in lines]
        assert found == [b"first", b"second"]
    finally:
        cursor.close()


async def test_following_begins_with_the_tail(writer: Writer) -> None:
    for number in range(10):
        writer.write(f"line {number}")

    def act(found: list[str]) -> None:
        deadline = time.monotonic() + 10
        while len(found) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        writer.write("new")

    assert await follow(writer, act, tail=2) == ["line 8", "line 9", "new"]


async def test_following_goes_on_with_the_oldest_that_is_left_when_its_file_was_deleted(writer: Writer) -> None:
    writer.write("seen")
    cursor = Cursor(writer.folder)
    try:
        assert [line.text for line in cursor.read()] == [b"seen"]
        for number in range(6):
            writer.rotate(max_file=2)
            writer.write(f"line {number}")
        assert [line.text for line in cursor.read()] == [b"line 4"]
        assert [line.text for line in cursor.read()] == [b"line 5"]
        assert cursor.read() == []
    finally:
        cursor.close()


def test_rotation_keeps_to_its_limits(writer: Writer) -> None:
    rotator = LogRotator(lambda: [writer.rotated(max_file=3)])
    for number in range(200):
        writer.write(f"line {number}")
        rotator.rotate_full(1.0)
        writer.reopen_if_told()
    kept = files.listed(writer.folder)
    assert [path.name for path in kept] == ["container.log.2", "container.log.1", "container.log"]
    assert all(path.stat().st_size < 300 for path in kept)
    assert b"line 199" in b"".join(path.read_bytes() for path in kept)


def test_with_one_file_the_full_one_goes(writer: Writer) -> None:
    rotator = LogRotator(lambda: [writer.rotated(max_file=1)])
    for number in range(50):
        writer.write(f"line {number}")
        rotator.rotate_full(1.0)
        writer.reopen_if_told()
    assert [path.name for path in files.listed(writer.folder)] == ["container.log"]


def test_nothing_is_renamed_when_nobody_would_open_a_new_file(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    (folder / "container.log").write_bytes(b"x" * 1000)
    LogRotator(lambda: [Rotated("t", folder, tmp_path / "no-fifo", 100, 3)]).rotate_full(1.0)
    os.mkfifo(tmp_path / "fifo")
    LogRotator(lambda: [Rotated("t", folder, tmp_path / "fifo", 100, 3)]).rotate_full(1.0)
    assert [path.name for path in files.listed(folder)] == ["container.log"]


def test_a_log_that_grows_fast_is_looked_at_sooner(writer: Writer) -> None:
    rotator = LogRotator(lambda: [Rotated("t", writer.folder, writer.ctl, 1000, 3)])
    assert rotator.rotate_full(2.0) == 2.0
    for _ in range(5):
        writer.write("x" * 60)
    assert rotator.rotate_full(0.5) < 1.0
