"""What gRPC says → what it means: whether to try again, and the sentence for the user. Pure, but for its types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from pyswarm_cli.exits import ClusterUnreachable
from pyswarm_core import errors

# What gRPC itself says when a connection breaks after the request may have been sent.
_BROKEN = (
    "socket closed",
    "connection reset",
    "broken pipe",
    "recvmsg",
    "transport closed",
    "transport is closing",
    "goaway",
    "rst_stream",
    "stream removed",
    "keepalive watchdog",
    "ping timeout",
    "endpoint read failed",
    "cancelling all calls",
    "channel closed",
    "channel is closed",
    "end of file",
    "deadline exceeded",
)
# What it says when there was no connection to send it on.
_NOT_SENT = ("failed to connect to all addresses", "errors resolving", "dns resolution failed")
_TRANSLATED: dict[grpc.StatusCode, type[errors.PyswarmError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidInput,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidInput,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: errors.PreconditionFailed,
    grpc.StatusCode.ABORTED: errors.Conflict,
    grpc.StatusCode.PERMISSION_DENIED: errors.PreconditionFailed,
    grpc.StatusCode.UNAUTHENTICATED: errors.PreconditionFailed,
}


_UNREADABLE = "Failed to create security handshaker"


def is_lost(error: grpc.RpcError) -> bool:
    """Nobody answered, or whoever did cannot serve now: another manager may."""
    return error.code() in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.CANCELLED,
    )


def unreachable(context: str, managers: Sequence[str], why: str) -> ClusterUnreachable:
    addresses = ", ".join(managers)
    if _UNREADABLE in why:
        return ClusterUnreachable(f"the certificates of context '{context}' cannot be read; import the context again")
    if "CERTIFICATE_VERIFY_FAILED" in why or "Hostname" in why:
        return ClusterUnreachable(
            f"the manager at {addresses} does not have a certificate of the cluster that context '{context}' is "
            "for; import that cluster's context again"
        )
    if server_said(why):
        return ClusterUnreachable(
            f"the cluster of context '{context}' ({addresses}) cannot serve this now: {why.rstrip('.')}; "
            "look at its managers and etcd, and try again"
        )
    reason = _reason(why)
    return ClusterUnreachable(
        f"cannot reach the cluster of context '{context}': no manager answers at {addresses}"
        f"{f' ({reason})' if reason else ''}; check that one runs, or choose another cluster with --context"
    )


def translate(error: grpc.RpcError) -> errors.PyswarmError:
    code, text = error.code(), details(error)
    if code in _TRANSLATED:
        return _TRANSLATED[code](text or f"the manager refused this ({code.name.lower()})")
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return errors.PyswarmError(
            "this manager does not know that call: it is of another version than this command line; update one"
        )
    if code == grpc.StatusCode.UNKNOWN:
        return errors.OutcomeUnknown(text)
    if code == grpc.StatusCode.INTERNAL:
        return errors.PyswarmError(text)
    if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return errors.PyswarmError(f"the answer or the request is too large: {text}")
    return errors.PyswarmError(f"the manager failed on this call ({code.name.lower()}): {text}; see its log")


def is_answer(call: grpc.Future[Any]) -> bool:
    """Whatever it said, a manager said it."""
    error = call.exception()
    if error is None:
        return True
    if not isinstance(error, grpc.RpcError) or error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return False
    return error.code() is not grpc.StatusCode.UNAVAILABLE or server_said(details(error))


def is_hopeless(text: str) -> bool:
    """The certificates do not fit: waiting does not change that."""
    return "CERTIFICATE_VERIFY_FAILED" in text or _UNREADABLE in text


def details(error: grpc.RpcError) -> str:
    return " ".join((error.details() or "").split())


def is_silence(text: str) -> bool:
    """It says no more than that there was no answer."""
    return not text or "deadline" in text.lower()


def server_said(text: str) -> bool:
    """The text is a manager's own ("no leader"), not gRPC's about a connection."""
    lowered = text.lower()
    if lowered.startswith("etcd "):
        return True  # which quotes gRPC on its own connection to etcd
    return bool(text) and not any(known in lowered for known in (*_BROKEN, *_NOT_SENT))


def is_harmless(error: grpc.RpcError) -> bool:
    """The change was certainly not made: it was never sent, or the manager itself says that it cannot serve."""
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return False
    text = details(error)
    return any(known in text.lower() for known in _NOT_SENT) or server_said(text)


def _reason(text: str) -> str:
    """The end of gRPC's chain of messages, which is the part that says something."""
    lowered = text.lower()
    if is_silence(text):
        return "no answer in time"
    for known in ("connection refused", "no route to host", "network is unreachable", "connection timed out"):
        if known in lowered:
            return known
    if "resolving" in lowered or "lookup" in lowered:
        return "the name cannot be resolved"
    if "socket closed" in lowered or "connection reset" in lowered or "handshake" in lowered:
        return "it closes the connection: it may not trust this context's certificate"
    return text.rpartition(": ")[2][:120]
