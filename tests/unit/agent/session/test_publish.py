"""Log requests answered over real gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.support.fake_manager import FakeManager
from tests.unit.agent.fakes import until

from pyswarm_agent.publish import LogPublisher
from pyswarm_agent.session_grpc import GrpcConnector
from pyswarm_core import tls
from pyswarm_core.v1 import dispatcher_pb2 as wire


class FakeReader:
    """Two batches of each task's lines; what is followed never ends."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, float, bool]] = []
        self.closed: list[str] = []
        self.broken: set[str] = set()

    async def read(
        self, task_id: str, *, tail: int = -1, since: float = 0.0, follow: bool = False
    ) -> AsyncIterator[list[wire.LogLine]]:
        self.asked.append((task_id, tail, since, follow))
        try:
            for number in (1, 2):
                yield [wire.LogLine(task_id=task_id, line=f"{task_id}-{number}".encode())]
                if task_id in self.broken:
                    raise OSError(5, "Input/output error")
            if follow:
                await asyncio.Event().wait()
        finally:
            self.closed.append(task_id)


@pytest.fixture(scope="module")
def authority() -> tls.Authority:
    return tls.Authority.create()


@pytest_asyncio.fixture
async def manager(authority: tls.Authority, tmp_path: Path) -> AsyncIterator[FakeManager]:
    made = FakeManager(authority, tmp_path)
    await made.start()
    yield made
    await made.stop()


@pytest_asyncio.fixture
async def reader() -> FakeReader:
    return FakeReader()


@pytest_asyncio.fixture
async def publisher(manager: FakeManager, reader: FakeReader) -> AsyncIterator[LogPublisher]:
    made = LogPublisher(reader, GrpcConnector(manager.agent_tls("n1")).dispatcher, "n1")
    yield made
    await made.close()


def lines(manager: FakeManager, request_id: str) -> list[str]:
    return [line.line.decode() for batch in manager.logs.get(request_id, []) for line in batch.lines]


async def test_all_tasks_lines_and_the_end(manager: FakeManager, reader: FakeReader, publisher: LogPublisher) -> None:
    request = wire.LogRequest(request_id="r", task_ids=["a", "b"], tail=5, since=7.0)
    publisher.start(request, manager.address)
    await until(lambda: "r" in manager.log_streams_ended)
    assert sorted(lines(manager, "r")) == ["a-1", "a-2", "b-1", "b-2"]
    assert reader.asked == [("a", 5, 7.0, False), ("b", 5, 7.0, False)]
    first = manager.logs["r"][0]
    assert first.node_id == "n1" and not first.lines, "the first message names the request"


async def test_a_followed_log_ends_when_it_is_cancelled(
    manager: FakeManager, reader: FakeReader, publisher: LogPublisher
) -> None:
    publisher.start(wire.LogRequest(request_id="r", task_ids=["a"], tail=-1, follow=True), manager.address)
    await until(lambda: lines(manager, "r") == ["a-1", "a-2"])
    assert not manager.log_streams_ended
    publisher.cancel("r")
    await until(lambda: reader.closed == ["a"] and manager.log_streams_ended == ["r"])
    publisher.cancel("r")


async def test_a_manager_that_goes_away_ends_it(
    manager: FakeManager, reader: FakeReader, publisher: LogPublisher
) -> None:
    publisher.start(wire.LogRequest(request_id="r", task_ids=["a"], follow=True), manager.address)
    await until(lambda: len(lines(manager, "r")) == 2)
    publisher.cancel_all()
    await until(lambda: reader.closed == ["a"])


async def test_what_cannot_be_read_is_told(manager: FakeManager, reader: FakeReader, publisher: LogPublisher) -> None:
    reader.broken.add("a")
    publisher.start(wire.LogRequest(request_id="r", task_ids=["a", "b"]), manager.address)
    await until(lambda: "r" in manager.log_streams_ended)
    assert "b-2" in lines(manager, "r")
    assert manager.logs["r"][-1].error == "the log cannot be read: Input/output error"


async def test_nobody_there(reader: FakeReader, manager: FakeManager) -> None:
    made = LogPublisher(reader, GrpcConnector(manager.agent_tls("n1")).dispatcher, "n1")
    made.start(wire.LogRequest(request_id="r", task_ids=["a"]), "127.0.0.1:1")
    await until(lambda: not made._running)
    await made.close()
