"""The same for several names: all are tried, and what failed is told together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from pyswarm_core.errors import PyswarmError

T = TypeVar("T")


def for_each(names: Iterable[str], act: Callable[[str], T]) -> list[T]:
    """The results. Raises the one error, or one that joins them all, after every name was tried."""
    results, failed = [], []
    for name in dict.fromkeys(names):
        try:
            results.append(act(name))
        except PyswarmError as error:
            if error.retryable:
                raise  # the cluster cannot be reached: the other names would wait for nothing
            failed.append(error)
    if len(failed) == 1:
        raise failed[0]
    if failed:
        raise PyswarmError("; ".join(str(error).rstrip(".") for error in failed))
    return results
