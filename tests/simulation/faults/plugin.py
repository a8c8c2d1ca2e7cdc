"""A pytest plugin that plants a fault, or finds out which tests could see which fault.

`FAULT=NAME`: the tests run with this fault. `FAULT_CALLS=FOLDER`: the tests run as ever, and each process writes a file
there that says which tests called something that a fault would replace."""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.simulation.faults import planted

ANY = "*"  # in place of tests, for what is no function: any test may see it


class Calls:
    """Stands where faults replace something, and remembers during which test it was called."""

    def __init__(self) -> None:
        self.test = ""
        self.fault = ""
        self.found: defaultdict[str, set[str]] = defaultdict(set)

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        before = planted.standing(owner, name)
        fault = self.fault

        def note() -> None:
            self.found[fault].add(self.test)

        if isinstance(before, property):
            get = before.fget
            assert get is not None

            def noted_get(this: Any) -> Any:
                note()
                return get(this)

            setattr(owner, name, property(noted_get))
        elif inspect.isfunction(before):

            @functools.wraps(before)
            def noted(*given: Any, **options: Any) -> Any:
                note()
                return before(*given, **options)

            setattr(owner, name, noted)
        else:
            self.found[fault].add(ANY)


_calls = Calls()


def pytest_configure(config: pytest.Config) -> None:
    if name := os.environ.get("FAULT"):
        planted.load()[name].plant()
    elif os.environ.get("FAULT_CALLS"):
        planted.replacing = _calls.replace
        for fault in planted.load().values():
            _calls.fault = fault.name
            fault.plant()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    _calls.test = item.nodeid
    return (yield)


def pytest_sessionfinish(session: pytest.Session) -> None:
    folder = os.environ.get("FAULT_CALLS")
    if folder:
        found = {fault: sorted(tests) for fault, tests in _calls.found.items()}
        (Path(folder) / f"{os.getpid()}.json").write_text(json.dumps(found))
