"""Reading Prometheus' text format strictly: what Prometheus would refuse fails here, too."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from dataclasses import dataclass, field

_HELP = re.compile(r"# HELP (\w+) (.+)")
_TYPE = re.compile(r"# TYPE (\w+) (counter|gauge|histogram|untyped)")
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')
_SUFFIXES = ("_bucket", "_sum", "_count")

Labels = frozenset[tuple[str, str]]


@dataclass(slots=True)
class Scrape:
    types: dict[str, str] = field(default_factory=dict)  # name → counter, gauge, histogram
    helps: dict[str, str] = field(default_factory=dict)
    samples: dict[str, dict[Labels, float]] = field(default_factory=lambda: defaultdict(dict))

    def value(self, name: str, /, **labels: str) -> float:
        """Of the one sample that has these labels, and maybe others."""
        found = [v for has, v in self.samples[name].items() if has >= set(labels.items())]
        assert len(found) == 1, f"{len(found)} samples of {name} {labels}: {self.samples[name]}"
        return found[0]

    def has(self, name: str, /, **labels: str) -> bool:
        return any(has >= set(labels.items()) for has in self.samples[name])

    def label_names(self, name: str) -> set[frozenset[str]]:
        """The sets of labels that the metric's samples have; `le` of histograms left out."""
        suffixes = _SUFFIXES if self.types[name] == "histogram" else ("",)
        found = (has for suffix in suffixes for has in self.samples.get(name + suffix, {}))
        return {frozenset(key for key, _ in has if key != "le") for has in found}


def parse(text: str) -> Scrape:
    """AssertionError: it is not what Prometheus reads, the same series is in it twice, or a family is in two parts."""
    assert text.endswith("\n")
    scrape = Scrape()
    family = ""
    for line in text.splitlines():
        if line.startswith("#"):
            if head := _HELP.fullmatch(line):
                assert head[1] not in scrape.helps, f"two families {head[1]}"
                scrape.helps[head[1]] = head[2]
                continue
            kind = _TYPE.fullmatch(line)
            assert kind is not None and kind[1] in scrape.helps, line
            family = kind[1]
            scrape.types[family] = kind[2]
            continue
        sample = _SAMPLE.fullmatch(line)
        assert sample is not None, line
        name, inside, value = sample.groups()
        base = family if scrape.types[family] != "histogram" else name.removesuffix(_suffix(name))
        assert base == family == name.removesuffix(name[len(family) :]), f"{name} is not of the family {family}"
        labels = _labels(inside or "", line)
        assert labels not in scrape.samples[name], f"twice: {line}"
        scrape.samples[name][labels] = float(value)
    return scrape


def _suffix(name: str) -> str:
    return next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), "")


def _labels(inside: str, line: str) -> Labels:
    found = _LABEL.findall(inside)
    assert "".join(m[0] for m in _LABEL.finditer(inside)) == inside and not inside.endswith(","), line
    assert len({key for key, _ in found}) == len(found), line
    return frozenset((k, v.replace(r"\"", '"').replace(r"\n", "\n").replace(r"\\", "\\")) for k, v in found)


async def get(port: int, path: str, method: str = "GET") -> tuple[str, dict[str, str], str]:
    """(status line, headers in lower case, body)."""
    return await ask(port, f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n")


async def ask(port: int, request: str) -> tuple[str, dict[str, str], str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    head, _, body = (await asyncio.wait_for(reader.read(), 10)).decode().partition("\r\n\r\n")
    writer.close()
    first, *rest = head.split("\r\n")
    return first, {k.lower(): v for k, v in (line.split(": ", 1) for line in rest)}, body
