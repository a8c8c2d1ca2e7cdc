"""What needs no etcd: endpoints, errors, and how responses of a watch become batches."""

from __future__ import annotations

import grpc
import pytest

from pyswarm_core import tls
from pyswarm_core.errors import (
    AlreadyExists,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    PyswarmError,
)
from pyswarm_core.etcd.client import Client
from pyswarm_core.etcd.faults import HistoryGone, NotNow, translate
from pyswarm_core.etcd.watch import Position, key_range
from pyswarm_core.store.base import EventKind, WatchBatch
from pyswarm_core.v1 import etcd_pb2 as pb


@pytest.mark.parametrize(
    ("endpoints", "sentence"),
    [
        ([], "no etcd endpoint is given"),
        (["10.0.0.1"], "malformed: use HOST:PORT"),
        (["10.0.0.1:"], "malformed"),
        (["10.0.0.1:99999"], "malformed"),
        ([":2379"], "malformed"),
        (["10.0.0.1:2379", "ftp://10.0.0.2:2379"], "'ftp://10.0.0.2:2379' is malformed"),
        (["https://10.0.0.1:2379"], "needs a certificate"),
    ],
)
async def test_a_malformed_endpoint_is_named(endpoints: list[str], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        Client(endpoints, None)


async def test_plaintext_with_a_certificate_is_a_contradiction() -> None:
    identity = tls.Authority.create().issue(common_name="m", role="manager")
    with pytest.raises(InvalidInput, match="would not be encrypted"):
        Client(["http://10.0.0.1:2379"], identity)
    client = Client(["https://10.0.0.1:2379/", "h:1"], identity)
    assert client.endpoints == ("10.0.0.1:2379", "h:1")
    await client.close()


def failure(code: grpc.StatusCode, details: str) -> Exception:
    return translate(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details))


@pytest.mark.parametrize(
    ("code", "details", "sent"),
    [
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: no leader", False),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: too many requests", False),
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: rpc not supported for learner", False),
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: request timed out", True),
        (grpc.StatusCode.UNAVAILABLE, "etcdserver: leader changed", True),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", True),
        (grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses", True),  # nobody's promise: be careful
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", True),
        (grpc.StatusCode.UNKNOWN, "context canceled", True),
        (grpc.StatusCode.INTERNAL, "RST_STREAM", True),
    ],
)
def test_which_failures_may_have_happened(code: grpc.StatusCode, details: str, sent: bool) -> None:
    fault = failure(code, details)
    assert isinstance(fault, NotNow) and fault.sent is sent


@pytest.mark.parametrize(
    ("code", "details", "error"),
    [
        (grpc.StatusCode.NOT_FOUND, "etcdserver: requested lease not found", NotFound),
        (grpc.StatusCode.FAILED_PRECONDITION, "etcdserver: lease already exists", AlreadyExists),
        (grpc.StatusCode.INVALID_ARGUMENT, "etcdserver: request is too large", InvalidInput),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "etcdserver: mvcc: database space exceeded", PreconditionFailed),
        (grpc.StatusCode.PERMISSION_DENIED, "etcdserver: permission denied", PreconditionFailed),
        (grpc.StatusCode.UNIMPLEMENTED, "unknown method", PreconditionFailed),
        (grpc.StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision is a future revision", InvalidInput),
        (grpc.StatusCode.OUT_OF_RANGE, "etcdserver: mvcc: required revision has been compacted", HistoryGone),
    ],
)
def test_which_failures_are_answers(code: grpc.StatusCode, details: str, error: type[Exception]) -> None:
    fault = failure(code, details)
    assert type(fault) is error
    if isinstance(fault, PyswarmError):
        assert details in str(fault) and not fault.retryable


def test_key_ranges() -> None:
    assert key_range("/a/") == (b"/a/", b"/a0")
    assert key_range("") == (b"\0", b"\0")
    assert key_range("\udcff") == (b"\xff", b"\0")  # nothing is above it
    assert key_range("a\udcff") == (b"a\xff", b"b")


def response(*events: tuple[int, str], header: int = 0, fragment: bool = False) -> pb.WatchResponse:
    return pb.WatchResponse(
        header=pb.ResponseHeader(revision=header or 999),
        fragment=fragment,
        events=[pb.Event(kv=pb.KeyValue(key=key.encode(), mod_revision=revision)) for revision, key in events],
    )


def shape(batch: WatchBatch | None) -> tuple[int, list[tuple[int, str]]] | None:
    return batch and (batch.revision, [(e.entry.mod_revision, e.entry.key) for e in batch.events])


def test_the_resume_point_comes_from_events_not_from_the_header() -> None:
    position = Position(5)
    assert shape(position.accept(response((5, "a"), (7, "b"), header=900))) == (7, [(5, "a"), (7, "b")])
    assert position.next == 8


def test_duplicates_are_dropped_across_and_within_responses() -> None:
    position = Position(5)
    assert shape(position.accept(response((4, "a"), (5, "a"), (5, "b"), (5, "a")))) == (5, [(5, "a"), (5, "b")])
    assert position.accept(response((3, "x"), (5, "a"), (5, "b"))) is None
    assert shape(position.accept(response((5, "b"), (6, "c")))) == (6, [(6, "c")])


def test_events_that_come_out_of_order_are_put_in_order() -> None:
    assert shape(Position(5).accept(response((6, "b"), (6, "a"), (5, "c")))) == (6, [(5, "c"), (6, "b"), (6, "a")])


def test_fragments_are_held_until_whole() -> None:
    position = Position(5)
    assert position.accept(response((5, "a"), fragment=True)) is None
    assert position.accept(response((5, "b"), (6, "c"), fragment=True)) is None
    assert position.next == 5
    assert shape(position.accept(response((6, "d")))) == (6, [(5, "a"), (5, "b"), (6, "c"), (6, "d")])


def test_fragments_of_a_lost_connection_are_forgotten() -> None:
    position = Position(5)
    position.accept(response((5, "a"), fragment=True))
    position.restart()
    assert position.next == 5
    assert shape(position.accept(response((5, "a"), (5, "b")))) == (5, [(5, "a"), (5, "b")])


def test_progress_moves_forward_only() -> None:
    position = Position(5)
    assert shape(position.accept(response(header=9))) == (9, [])
    assert position.accept(response(header=9)) is None
    assert position.accept(response(header=3)) is None
    assert position.next == 10
    assert position.accept(response((9, "a"))) is None


def test_a_deletion_is_told_as_one() -> None:
    message = response((5, "a"))
    message.events[0].type = pb.Event.DELETE
    batch = Position(1).accept(message)
    assert batch and batch.events[0].kind is EventKind.DELETE
