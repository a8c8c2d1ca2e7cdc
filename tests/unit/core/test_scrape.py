"""The text of a scrape, the plain HTTP it is fetched by, and what every daemon tells."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram
from tests.support.manager import eventually
from tests.support.scrape import ask, get, parse

from pyswarm_core import tls
from pyswarm_core.errors import PreconditionFailed, StoreUnavailable
from pyswarm_core.scrape import http, text
from pyswarm_core.scrape.certificates import Certificates
from pyswarm_core.scrape.http import Page, reachable
from pyswarm_core.scrape.registry import new_registry


async def made(pieces: Iterator[str]) -> str:
    return (await text.render(pieces)).decode()


async def test_families_escape_and_never_tell_a_series_twice() -> None:
    family = text.Family("x_total", 'a "help"\nof two \\ lines', "counter")
    inside = text.labels({"a": 'q"uo\\te\n', "b": ""})
    family.add(1, inside)
    family.add(2, inside)
    family.add(3.5)
    found = parse(await made(iter(family)))
    assert found.types == {"x_total": "counter"} and found.helps == {"x_total": r'a "help"\nof two \\ lines'}
    assert found.value("x_total", a='q"uo\\te\n', b="") == 1
    assert sorted(found.samples["x_total"].values()) == [1, 3.5]


async def test_a_registry_is_told_without_created_series() -> None:
    registry = new_registry()
    counter = Counter("calls", "Calls.", ["to"], registry=registry)
    counter.labels('o"ne').inc(2)
    Histogram("took_seconds", "Time.", buckets=(0.1, 1.0), registry=registry).observe(0.5)
    found = parse(await made(text.of_registry(registry)))
    assert found.value("calls_total", to='o"ne') == 2 and found.types["calls_total"] == "counter"
    assert found.value("took_seconds_bucket", le="0.1") == 0 and found.value("took_seconds_bucket", le="+Inf") == 1
    assert found.value("pyswarm_build_info") == 1
    assert found.value("process_resident_memory_bytes") > 2**20
    assert not any("_created" in name for name in found.samples)


async def test_rendering_lets_others_run() -> None:
    """300 pieces of 1 ms of work each: somebody who wants to run every millisecond never waits for many of them."""

    def pieces() -> Iterator[str]:
        for _ in range(300):
            until = time.perf_counter() + 0.001
            while time.perf_counter() < until:
                pass
            yield "x\n"

    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    running = asyncio.create_task(other())
    assert await text.render(pieces()) == b"x\n" * 300
    running.cancel()
    assert turns >= 100


async def page() -> bytes:
    return b"figures\n"


async def test_what_http_answers() -> None:
    async def away() -> bytes:
        raise StoreUnavailable("not now")

    async def broken() -> bytes:
        raise KeyError("x")

    pages = {"/metrics": Page("text/x", page), "/away": Page("text/x", away), "/broken": Page("text/x", broken)}
    async with await http.serve("127.0.0.1:0", pages) as server:
        port = server.port
        status, headers, body = await get(port, "/metrics?x=1")
        assert (status, body, headers["content-type"], headers["content-length"]) == (
            "HTTP/1.1 200 OK",
            "figures\n",
            "text/x",
            "8",
        )
        status, headers, body = await get(port, "/metrics", "HEAD")
        assert status.endswith("200 OK") and body == "" and headers["content-length"] == "8"
        assert (await get(port, "/"))[0].startswith("HTTP/1.1 404")
        assert "/metrics" in (await get(port, "/"))[2]
        assert (await get(port, "/metrics", "POST"))[0].startswith("HTTP/1.1 405")
        assert (await get(port, "/away"))[::2] == ("HTTP/1.1 503 Service Unavailable", "not now\n")
        assert (await get(port, "/broken"))[0].startswith("HTTP/1.1 500")
        assert (await ask(port, "\r\n\r\n"))[0].startswith("HTTP/1.1 405")
        assert await ask(port, "GET /" + "x" * 40_000) == ("", {}, ""), "no answer at all"
        with pytest.raises(PreconditionFailed, match="--metrics-addr"):
            await http.serve(f"127.0.0.1:{port}", pages)


async def test_many_who_ask_at_once_cost_one_answer() -> None:
    calls = 0
    asked, may_answer = asyncio.Event(), asyncio.Event()

    async def slow() -> bytes:
        nonlocal calls
        calls += 1
        asked.set()
        await may_answer.wait()
        return b"x"

    server = http.Server({"/": Page("t", slow)})
    asking = [asyncio.create_task(server._answer(b"GET / HTTP/1.1\r\n\r\n")) for _ in range(6)]
    await asked.wait()
    asking[0].cancel()  # who asked first goes away; the others are answered all the same
    may_answer.set()
    assert all(answer.endswith(b"\r\n\r\nx") for answer in await asyncio.gather(*asking[1:]))
    assert calls == 1
    await server._answer(b"GET / HTTP/1.1\r\n\r\n")
    assert calls == 2


async def test_the_number_of_clients_is_bounded_and_closing_cuts_them_off() -> None:
    server = await http.serve("127.0.0.1:0", {"/": Page("t", page)})
    idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(http.MAX_CLIENTS)]
    await eventually(lambda: len(server._clients) == http.MAX_CLIENTS)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    assert await asyncio.wait_for(reader.read(), 5) == b"", "turned away"
    writer.close()
    server.close()
    for reader, writer in idle:
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


@pytest.mark.parametrize(
    ("listen", "found"),
    [
        ("127.0.0.1:9378", ""),
        ("127.9.9.9:9378", ""),
        ("localhost:9378", ""),
        ("[::1]:9378", ""),
        ("", ""),
        ("0.0.0.0:9400", "10.1.2.3:9400"),
        ("[::]:9400", "10.1.2.3:9400"),
        ("10.7.7.7:9378", "10.7.7.7:9378"),
        ("metrics.example:9378", "metrics.example:9378"),
    ],
)
def test_where_others_reach_it(listen: str, found: str) -> None:
    assert reachable(listen, "10.1.2.3") == found


async def test_certificates_are_read_anew_when_they_were_renewed(tmp_path: Path) -> None:
    authority = tls.Authority.create()
    authority.issue(common_name="n", role="manager", days=10).save(tmp_path)
    certificates = Certificates(
        {"node": tmp_path / "cert.pem", "ca": tmp_path / "ca.pem", "gone": tmp_path / "none.pem"}
    )

    async def expiry(name: str) -> float:
        found = parse(await made(piece for family in certificates.families() for piece in family))
        assert not found.has("pyswarm_certificate_expiry_timestamp_seconds", certificate="gone")
        start = found.value("pyswarm_certificate_start_timestamp_seconds", certificate=name)
        assert time.time() - 7200 < start < time.time()
        return found.value("pyswarm_certificate_expiry_timestamp_seconds", certificate=name)

    assert abs(await expiry("node") - time.time() - 10 * 86400) < 120
    assert await expiry("ca") - time.time() > 3000 * 86400
    authority.issue(common_name="n", role="manager", days=20).save(tmp_path)
    assert abs(await expiry("node") - time.time() - 20 * 86400) < 120
    (tmp_path / "cert.pem").write_text("no certificate")
    found = parse(await made(piece for family in certificates.families() for piece in family))
    assert not found.has("pyswarm_certificate_expiry_timestamp_seconds", certificate="node")


def test_registries_are_apart() -> None:
    assert isinstance(new_registry(), CollectorRegistry) and new_registry() is not new_registry()
