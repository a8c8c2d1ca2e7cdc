"""Puts a web service under load and counts what fails. Standard library only.

    python3 load.py [--seconds S] [--keep-alive N] [--new N] [--rate R] [--stream PATH] [--report FILE] URL [URL …]

Three kinds of clients, spread over the URLs: N that open a connection for every request, N that keep theirs, and one
download that is opened first and has to arrive whole. `--rate` is requests per second of each client (0: as fast as
answers come). Ends after S seconds or on SIGINT/SIGTERM, when every request under way has been answered, and prints one
JSON object: sent, failed, by kind; the reasons of failures; latencies in ms. A request fails when its connection is
refused or reset, when its answer is cut short or not 200, or after 15 s.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import datetime
import json
import pathlib
import signal
import sys
import time
import urllib.parse

TIMEOUT = 15.0


class Failed(Exception):
    pass


class Count:
    """What one kind of client saw."""

    def __init__(self) -> None:
        self.sent = 0
        self.failed = 0
        self.reasons: collections.Counter[str] = collections.Counter()
        self.when: list[str] = []  # each failed request was sent
        self.took: list[float] = []
        self.answers: collections.Counter[str] = collections.Counter()

    def report(self) -> dict[str, object]:
        took = sorted(self.took)

        def at(share: float) -> float:
            return round(1000 * took[min(len(took) - 1, int(share * len(took)))], 1) if took else 0.0

        return {
            "sent": self.sent,
            "failed": self.failed,
            "reasons": dict(self.reasons.most_common(5)),
            "when": self.when[:100],
            "ms": {"p50": at(0.5), "p99": at(0.99), "max": at(1)},
            "answers": dict(self.answers.most_common(20)),
        }


class Client:
    """One HTTP/1.1 connection at a time to one URL."""

    def __init__(self, url: str, count: Count, *, keep: bool) -> None:
        parts = urllib.parse.urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 80
        connection = "keep-alive" if keep else "close"
        self.request = (
            f"GET {parts.path or '/'} HTTP/1.1\r\nHost: {self.host}\r\nConnection: {connection}\r\n\r\n".encode()
        )
        self.count = count
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def once(self) -> None:
        self.count.sent += 1
        started, clock = time.perf_counter(), time.time()
        try:
            async with asyncio.timeout(TIMEOUT):
                body = await self._exchange()
        except (OSError, EOFError, Failed, TimeoutError) as error:
            self.count.failed += 1
            self.count.reasons[f"{type(error).__name__}: {error}"] += 1
            self.count.when.append(f"{datetime.datetime.fromtimestamp(clock, datetime.UTC):%H:%M:%S.%f} {self.host}")
            self.close()
        else:
            self.count.took.append(time.perf_counter() - started)
            self.count.answers[body.decode(errors="replace").strip()] += 1

    async def _exchange(self) -> bytes:
        if self.streams is None:
            self.streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self.streams
        writer.write(self.request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        if " 200 " not in head.split("\r\n")[0]:
            raise Failed(head.split("\r\n")[0])
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        body = await reader.readexactly(length)
        if "connection: close" in head:
            self.close()
        return body

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


async def client(url: str, count: Count, stop: asyncio.Event, *, keep: bool, rate: float) -> None:
    one = Client(url, count, keep=keep)
    while not stop.is_set():
        started = time.perf_counter()
        await one.once()
        pause = 1 / rate - (time.perf_counter() - started) if rate else 0
        if pause > 0:
            try:
                await asyncio.wait_for(stop.wait(), pause)
            except TimeoutError:
                continue
    one.close()


async def download(url: str, path: str, count: Count, opened: asyncio.Event) -> None:
    """A stream of numbered lines that has to arrive without a gap and to its end."""
    parts = urllib.parse.urlsplit(url)
    count.sent += 1
    started = time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {parts.hostname}\r\nConnection: close\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        opened.set()
        expected = 0
        while (line := (await reader.readline()).decode().strip()) != "end":
            if not line.startswith(f"{expected} of "):
                raise Failed(f"after {time.perf_counter() - started:.1f} s came {line!r}, not line {expected}")
            expected += 1
        writer.close()
    except (OSError, EOFError, Failed) as error:
        count.failed += 1
        count.reasons[f"{type(error).__name__}: {error}"] += 1
    else:
        count.took.append(time.perf_counter() - started)
        count.answers[f"{expected} lines"] += 1
    finally:
        opened.set()


async def run(options: argparse.Namespace) -> dict[str, object]:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    kinds = {"new": Count(), "keep_alive": Count(), "stream": Count()}
    started = time.time()
    workers = []
    if options.stream:
        opened = asyncio.Event()
        workers.append(asyncio.create_task(download(options.urls[0], options.stream, kinds["stream"], opened)))
        await opened.wait()
    for kind, number in (("new", options.new), ("keep_alive", options.keep_alive)):
        for n in range(number):
            url = options.urls[n % len(options.urls)]
            keep = kind == "keep_alive"
            workers.append(asyncio.create_task(client(url, kinds[kind], stop, keep=keep, rate=options.rate)))
    print("under load", file=sys.stderr, flush=True)
    if options.seconds:
        loop.call_later(options.seconds, stop.set)
    await asyncio.gather(*workers)
    counts = kinds.values()
    return {
        "seconds": round(time.time() - started, 2),
        "sent": sum(c.sent for c in counts),
        "failed": sum(c.failed for c in counts),
        **{name: count.report() for name, count in kinds.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("urls", nargs="+", metavar="URL")
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--keep-alive", type=int, default=6)
    parser.add_argument("--new", type=int, default=6)
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--stream", metavar="PATH", default="")
    parser.add_argument("--report", type=pathlib.Path)
    options = parser.parse_args()
    report = json.dumps(asyncio.run(run(options)), indent=2)
    if options.report:
        options.report.write_text(report)
    else:
        print(report)


if __name__ == "__main__":
    main()
