"""Thresholds, checks on a loopback server, and the prober."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.agent.fakes import FakeRuntime, until

from pyswarm_agent.health.checks import Result, check
from pyswarm_agent.health.prober import Prober
from pyswarm_agent.health.threshold import Terms, Threshold
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

TERMS = Terms(interval=10.0, timeout=1.0, retries=3, start_period=20.0)


def test_it_is_looked_at_often_until_it_is_healthy() -> None:
    threshold, now, pauses = Threshold(TERMS, 100.0), 100.0, []
    for _ in range(7):
        threshold, pause = threshold.after(False, now)
        pauses.append(pause)
        now += pause
    assert pauses == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0] and threshold.health == pb.HEALTH_STARTING
    threshold, pause = threshold.after(True, now)
    assert threshold.health == pb.HEALTH_HEALTHY and pause == 10.0


def test_a_slow_starter_has_its_start_period_and_its_retries() -> None:
    threshold, now = Threshold(TERMS, 100.0), 100.0
    while threshold.health == pb.HEALTH_STARTING:
        threshold, pause = threshold.after(False, now)
        now += pause
    assert now - pause == pytest.approx(100.0 + 20.0 + 3 * 10.0)
    assert threshold.health == pb.HEALTH_UNHEALTHY


def test_after_that_only_failures_in_a_row_count() -> None:
    threshold = Threshold(TERMS, 0.0, pb.HEALTH_HEALTHY)
    for passed in (False, False, True, False, False):
        threshold, pause = threshold.after(passed, 1.0)
        assert threshold.health == pb.HEALTH_HEALTHY and pause == 10.0
    threshold, _ = threshold.after(False, 1.0)
    assert threshold.health == pb.HEALTH_UNHEALTHY
    threshold, _ = threshold.after(True, 1.0)
    assert threshold.health == pb.HEALTH_HEALTHY


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 5), st.sampled_from([0.0, 0.5, 40.0]))
def test_health_never_goes_back_to_starting(results: list[bool], retries: int, start_period: float) -> None:
    threshold, now = Threshold(Terms(5.0, 1.0, retries, start_period), 0.0), 0.0
    failures = 0
    for passed in results:
        before = threshold.health
        threshold, pause = threshold.after(passed, now)
        failures = 0 if passed else failures + 1
        if before != pb.HEALTH_STARTING:
            assert threshold.health != pb.HEALTH_STARTING and pause == 5.0
        if before == pb.HEALTH_HEALTHY and threshold.health == pb.HEALTH_UNHEALTHY:
            assert failures >= retries
        assert (threshold.health == pb.HEALTH_HEALTHY) or not passed
        assert pause <= 5.0
        now += pause


def test_defaults() -> None:
    assert Terms.of(spec.Probe()) == Terms(30.0, 30.0, 3, 0.0)
    assert Terms.of(spec.Probe(interval=1, timeout=2, retries=4, start_period=5)) == Terms(1.0, 2.0, 4, 5.0)


class Server:
    """Answers every connection with the bytes given, or says nothing."""

    def __init__(self) -> None:
        self.answer: bytes | None = b"HTTP/1.1 200 OK\r\n\r\n"
        self.requests: list[bytes] = []
        self.port = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            if self.answer is None:
                await reader.read()
            else:
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    listener = await asyncio.start_server(made.handle, "127.0.0.1", 0)
    made.port = listener.sockets[0].getsockname()[1]
    yield made
    listener.close()


async def look(probe: spec.Probe, timeout: float = 2.0) -> Result:
    return await check(probe, "t1", "127.0.0.1", timeout, FakeRuntime())


@pytest.mark.parametrize(
    ("answer", "passed", "output"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\nbody", True, ""),
        (b"HTTP/1.0 302 Found\r\n\r\n", True, ""),
        (b"HTTP/1.1 503 Not Yet\r\n\r\n", False, "GET /health: 503 Not Yet"),
        (b"HTTP/1.1 404\r\n\r\n", False, "GET /health: 404"),
        (b"SSH-2.0-x\r\n", False, "the answer is not HTTP"),
        (b"x" * 100_000, False, "the answer is not HTTP"),
        (b"", False, "the connection was closed without an answer"),
    ],
)
async def test_http(server: Server, answer: bytes, passed: bool, output: str) -> None:
    server.answer = answer
    probe = spec.Probe(http=spec.HttpCheck(port=server.port, path="health"))
    assert await look(probe) == Result(passed, output)
    assert server.requests[0].startswith(b"GET /health HTTP/1.1\r\nHost: 127.0.0.1")


async def test_http_that_does_not_answer(server: Server) -> None:
    server.answer = None
    assert await look(spec.Probe(http=spec.HttpCheck(port=server.port, path="/")), 0.2) == Result(
        False, "no answer within 0.2 s"
    )


async def test_tcp(server: Server) -> None:
    assert await look(spec.Probe(tcp=spec.TcpCheck(port=server.port))) == Result(True)
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    result = await look(spec.Probe(tcp=spec.TcpCheck(port=port)))
    assert not result.passed and "refused" in result.output.lower()


async def test_commands() -> None:
    runtime = FakeRuntime()
    probe = spec.Probe(command=spec.StringList(values=["check", "-x"]))
    result = await check(probe, "t1", "", 1.0, runtime)
    assert not result.passed and result.output == "it does not run"
    runtime.containers["t1"] = None  # type: ignore[assignment]
    assert (await check(probe, "t1", "", 1.0, runtime)).passed
    runtime.outputs["check -x"] = (3, "\n no\n luck\n" + "y" * 500)
    result = await check(probe, "t1", "", 1.0, runtime)
    assert not result.passed and len(result.output) == 301
    runtime.outputs["check -x"] = (3, "")
    assert (await check(probe, "t1", "", 1.0, runtime)).output == "exit code 3"
    runtime.failures["execute"] = [TimeoutError()]
    assert (await check(probe, "t1", "", 1.0, runtime)).output == "no answer within 1 s"


class Flaky:
    def __init__(self, *results: int) -> None:
        self.results = list(results)
        self.at: list[float] = []

    async def execute(self, task_id: str, argv: Sequence[str], timeout: float) -> tuple[int, str]:
        self.at.append(time.monotonic())
        return (self.results.pop(0) if self.results else 0), "said"


async def test_the_prober_reports_changes_alone() -> None:
    flaky = Flaky(1, 1, 0, 0, 1, 1, 0)
    prober = Prober(flaky, time.time)
    heard: list[tuple[int, str]] = []
    probe = spec.Probe(command=spec.StringList(values=["x"]), interval=0.02, retries=2, start_period=5.0)
    probing = prober.start("t1", "", probe, time.time(), pb.HEALTH_STARTING, lambda h, o: heard.append((h, o)))
    await until(lambda: len(heard) == 3)
    probing.stop()
    assert heard == [(pb.HEALTH_HEALTHY, ""), (pb.HEALTH_UNHEALTHY, "said"), (pb.HEALTH_HEALTHY, "")]
    looks = len(flaky.at)
    await asyncio.sleep(0.06)
    assert len(flaky.at) == looks, "stopped"


async def test_a_task_that_was_healthy_before_the_agents_restart_is_not_reported_again() -> None:
    flaky = Flaky()
    heard: list[int] = []
    probe = spec.Probe(command=spec.StringList(values=["x"]), interval=0.01)
    probing = Prober(flaky, time.time).start("t1", "", probe, 1.0, pb.HEALTH_HEALTHY, lambda h, o: heard.append(h))
    await until(lambda: len(flaky.at) >= 3)
    probing.stop()
    assert not heard
