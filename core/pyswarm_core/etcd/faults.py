"""What an error from etcd means: did nothing happen, may something have happened, or is it the answer?

etcd is asked by gRPC, and a gRPC error alone does not tell whether a write was carried out. Only two things do: that
nothing had been sent yet, and a few answers that etcd gives before it looks at the request.
"""

from __future__ import annotations

from enum import Enum

import grpc

from pyswarm_core.errors import AlreadyExists, InvalidInput, NotFound, PreconditionFailed, PyswarmError


class Effect(Enum):
    """What repeating a call would do."""

    READ = "read"  # nothing: repeat whenever it failed
    REPEATABLE = "repeatable"  # the same: a write that may be repeated
    WRITE = "write"  # it might happen twice: repeat only when it surely did not happen


class NotNow(Exception):
    """This attempt failed, another endpoint or a later time may do. `sent`: it may have happened all the same.
    Never leaves this package."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class HistoryGone(Exception):
    """Never leaves this package. The revision asked for is compacted."""


# Given by a member before it proposes anything to the others.
_REFUSED_UNSEEN = (
    "etcdserver: no leader",
    "etcdserver: too many requests",
    "etcdserver: not capable",
    "etcdserver: rpc not supported for learner",
    "etcdserver: server is likely overloaded",
    "etcdserver: unhealthy cluster",
)
_AMBIGUOUS = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.ABORTED,
    }
)


def translate(error: grpc.aio.AioRpcError) -> Exception:
    """NotNow, HistoryGone, or the error that is the answer."""
    code, details = error.code(), error.details() or ""
    if details.startswith(_REFUSED_UNSEEN):
        return NotNow(details, sent=False)
    if code in _AMBIGUOUS:
        return NotNow(details or code.name.lower(), sent=True)
    if code is grpc.StatusCode.OUT_OF_RANGE and "compacted" in details:
        return HistoryGone(details)
    return _answer(code, details)


def _answer(code: grpc.StatusCode, details: str) -> PyswarmError:
    if code is grpc.StatusCode.NOT_FOUND:
        return NotFound(f"etcd does not have it (any more): {details}")
    if "already exists" in details:  # ALREADY_EXISTS for members; etcd reports a lease as FAILED_PRECONDITION
        return AlreadyExists(f"etcd has it already: {details}")
    too_large = "larger than max" in details  # gRPC's own limit in etcd, a little above etcd's
    if too_large or code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE):
        return InvalidInput(f"etcd refuses the request: {details}")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return PreconditionFailed(f"etcd takes no more data: {details}; free space, then disarm its alarm")
    if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
        return PreconditionFailed(f"etcd does not let this manager in: {details}; check its certificate")
    return PreconditionFailed(f"etcd cannot do it: {details or code.name.lower()}")
