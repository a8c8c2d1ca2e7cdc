"""Prometheus' text format (0.0.4), written so that a scrape never holds the event loop for long.

Whoever has figures yields pieces of text, "" as a place to pause at; `render` takes them for a millisecond at a time
and lets everything else run in between. A thread would be worse: it and the loop would fight for the interpreter's
lock, and the loop would wait up to 5 ms for it after each of its system calls.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SLICE = 0.001  # seconds of rendering between two looks of the loop at everything else

Kind = Literal["gauge", "counter"]
_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def labels(values: Mapping[str, str]) -> str:
    """What goes between the braces, in the order given; make it once and use it for many samples."""
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in values.items())


def head(name: str, text: str, kind: str) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


class Family:
    """The samples of one metric. The same labels twice would make Prometheus refuse the whole scrape: the first one
    stays."""

    __slots__ = ("_head", "_samples", "name")

    def __init__(self, name: str, text: str, kind: Kind = "gauge") -> None:
        self.name = name
        self._head = head(name, text, kind)
        self._samples: dict[str, float] = {}

    def add(self, value: float, labels: str = "") -> None:
        """`labels`: made by `labels`."""
        self._samples.setdefault(labels, value)

    def __iter__(self) -> Iterator[str]:
        """The head is there without samples, too: what can be told is known before it happens."""
        yield self._head
        name = self.name
        for labels, value in self._samples.items():
            yield f"{name}{{{labels}}} {value}\n" if labels else f"{name} {value}\n"


def one(name: str, text: str, value: float, kind: Kind = "gauge") -> Family:
    """A metric without labels."""
    family = Family(name, text, kind)
    family.add(value)
    return family


def of_registry(registry: CollectorRegistry) -> Iterator[str]:
    """Everything in a registry, metric by metric, without the `_created` series, which nobody asked for."""
    for metric in registry.collect():
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        yield head(name, metric.documentation, metric.type)
        for sample in metric.samples:
            if not sample.name.endswith("_created"):
                inside = labels(sample.labels)
                value = sample.value
                yield f"{sample.name}{{{inside}}} {value}\n" if inside else f"{sample.name} {value}\n"


async def render(pieces: Iterable[str], *, seconds: float = SLICE) -> bytes:
    """All of them. The loop runs everything else that is due after each `seconds` of work, or after one piece that
    took longer."""
    done: list[bytes] = []
    some: list[str] = []
    until = time.perf_counter() + seconds
    for piece in pieces:
        some.append(piece)
        if time.perf_counter() > until:
            done.append("".join(some).encode())
            some.clear()
            await asyncio.sleep(0)
            until = time.perf_counter() + seconds
    done.append("".join(some).encode())
    return b"".join(done)
