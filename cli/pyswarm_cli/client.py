"""The cluster as the command line sees it: any manager that answers, over mutual TLS.

Managers are tried in turn, each a little after the one before, and the first that is ready serves. When none is, or
none leads, the same is tried again for `PATIENCE` seconds. gRPC errors become `PyswarmError` here and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from pyswarm_cli.contexts import Context
from pyswarm_cli.exits import ClusterUnreachable
from pyswarm_core import errors

# Before the first import of grpc: it must not write its own lines on stderr.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc

from pyswarm_core.v1 import control_pb2_grpc as control

if TYPE_CHECKING:
    from google.protobuf.message import Message

Q = TypeVar("Q", bound="Message")
R = TypeVar("R")

# pyswarm_core.tls has the same, and would cost each command 5 ms to import; a test compares them.
SERVER_NAME = "pyswarm"
PATIENCE = 10.0  # seconds to wait for a manager that answers and a leader
STAGGER = 0.25  # seconds before the next manager is tried beside the ones before it
RETRY = 0.2  # seconds between two rounds
SILENCE = 5.0  # seconds without a message after which a stream's connection is questioned
READ_TIMEOUT = 10.0
CHANGE_TIMEOUT = 90.0  # a tag is resolved at its registry before the answer
MAX_MESSAGE = 256 << 20

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


class Cluster:
    """One connection, made when it is first needed, as is the choice of the context (`choose`: its name, and it)."""

    def __init__(self, choose: Callable[[], tuple[str, Context]], *, patience: float = PATIENCE) -> None:
        self._choose = choose
        self.patience = patience
        self._managers: list[str] = []
        self._channel: grpc.Channel | None = None

    @cached_property
    def _chosen(self) -> tuple[str, Context]:
        return self._choose()

    @property
    def name(self) -> str:
        return self._chosen[0]

    @property
    def context(self) -> Context:
        return self._chosen[1]

    @cached_property
    def _credentials(self) -> grpc.ChannelCredentials:
        context = self.context
        return grpc.ssl_channel_credentials(context.ca.encode(), context.key.encode(), context.cert.encode())

    def read(self, pick: Callable[[control.ControlStub], grpc.UnaryUnaryMultiCallable[Q, R]], request: Q) -> R:
        """A call that changes nothing: tried again with other managers until patience ends."""
        answer: R = self._call(pick, request, changes=False)
        return answer

    def change(self, pick: Callable[[control.ControlStub], grpc.UnaryUnaryMultiCallable[Q, R]], request: Q) -> R:
        """A call that changes something: tried again only when it certainly did not happen.

        Raises errors.OutcomeUnknown when the connection broke before the answer."""
        answer: R = self._call(pick, request, changes=True)
        return answer

    def stream(
        self, pick: Callable[[control.ControlStub], grpc.UnaryStreamMultiCallable[Q, R]], request: Q
    ) -> Iterator[R]:
        """Messages until the stream ends. Waits for a manager only before the first message; a connection that breaks
        later raises ClusterUnreachable, and the caller decides whether to call again."""
        until = time.monotonic() + self.patience
        while True:
            begun = False
            call = pick(self._stub(until))(request)
            try:
                for message in self._messages(call):
                    begun = True
                    yield message
                return
            except grpc.RpcError as error:
                if not self._lost(error):
                    raise self._translate(error) from None
                self._drop()
                if begun:
                    raise ClusterUnreachable(f"the connection to the manager was lost: {_details(error)}") from None
                self._pause(until, error)
            finally:
                call.cancel()

    def _messages(self, call: Any) -> Iterator[Any]:
        """The stream's messages, read by a thread, so that a long silence can be questioned: a host that is cut off
        sends no reset, and gRPC's keepalive needs the server's consent."""
        arrived: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()

        def pump() -> None:
            try:
                for message in call:
                    arrived.put((message, None))
                arrived.put((None, StopIteration()))
            except BaseException as error:
                arrived.put((None, error))

        threading.Thread(target=pump, daemon=True).start()
        while True:
            try:
                message, ended = arrived.get(timeout=SILENCE)
            except queue.Empty:
                self._ping()
                continue
            if isinstance(ended, StopIteration):
                return
            if ended is not None:
                raise ended
            yield message

    def _ping(self) -> None:
        """Raises grpc.RpcError when the connection does not answer. What the manager says does not matter."""
        from pyswarm_core.v1 import control_pb2 as pb

        assert self._channel is not None
        try:
            control.ControlStub(self._channel).GetInfo(pb.Empty(), timeout=SILENCE)
        except grpc.RpcError as error:
            if self._lost(error) and not _server_said(_details(error)):
                raise

    def close(self) -> None:
        self._drop()

    def _call(self, pick: Callable[[control.ControlStub], Any], request: Any, *, changes: bool) -> Any:
        until = time.monotonic() + self.patience
        while True:
            stub = self._stub(until)
            try:
                return pick(stub)(request, timeout=CHANGE_TIMEOUT if changes else READ_TIMEOUT)
            except grpc.RpcError as error:
                if not self._lost(error):
                    raise self._translate(error) from None
                self._drop()
                if changes and not _harmless(error):
                    raise errors.OutcomeUnknown(
                        f"the connection to the manager broke before it answered, so the change may or may not have "
                        f"been made ({_details(error)}); look before you try again"
                    ) from None
                self._pause(until, error)

    def _pause(self, until: float, error: grpc.RpcError) -> None:
        """Before another round, with the manager that failed last in line; raises when patience has ended."""
        if time.monotonic() + RETRY >= until:
            raise self._unreachable(_details(error))
        self._managers.append(self._managers.pop(0))
        time.sleep(RETRY)

    def _stub(self, until: float) -> control.ControlStub:
        self._managers = self._managers or list(self.context.managers)
        while self._channel is None:
            self._channel = self._first_ready(until)
            if self._channel is None and time.monotonic() + RETRY >= until:
                raise self._unreachable(self._why())
        return control.ControlStub(self._channel)

    def _first_ready(self, until: float) -> grpc.Channel | None:
        """Dials the managers, staggered; the first that answers moves to the front of the line.

        Asked by a call: watching a channel's state costs a thread that takes 0.2 s to end."""
        from pyswarm_core.v1 import control_pb2 as pb

        answers: queue.SimpleQueue[tuple[int, grpc.Future[pb.Info]]] = queue.SimpleQueue()
        channels: list[grpc.Channel] = []
        winner: int | None = None
        round_ends = min(until, time.monotonic() + max(2.0, STAGGER * len(self._managers) + 1))
        try:
            while winner is None and (left := round_ends - time.monotonic()) > 0:
                if len(channels) < len(self._managers):
                    number = len(channels)
                    channels.append(self._dial(self._managers[number]))
                    call = control.ControlStub(channels[-1]).GetInfo.future(
                        pb.Empty(), timeout=left, wait_for_ready=True
                    )
                    call.add_done_callback(_note(answers, number))
                with contextlib.suppress(queue.Empty):
                    more = len(channels) < len(self._managers)
                    number, done = answers.get(timeout=min(STAGGER, left) if more else left)
                    winner = number if _answered(done) else None
        finally:
            for number, channel in enumerate(channels):
                if number != winner:
                    channel.close()
        if winner is None:
            return None
        self._managers.insert(0, self._managers.pop(winner))
        return channels[winner]

    def _dial(self, address: str) -> grpc.Channel:
        options = [
            ("grpc.ssl_target_name_override", SERVER_NAME),
            ("grpc.max_receive_message_length", MAX_MESSAGE),
            ("grpc.max_send_message_length", MAX_MESSAGE),
            ("grpc.initial_reconnect_backoff_ms", 200),
            ("grpc.min_reconnect_backoff_ms", 1000),
            ("grpc.max_reconnect_backoff_ms", 1000),
            ("grpc.enable_http_proxy", 0),
        ]
        return grpc.secure_channel(address, self._credentials, options)

    def _why(self) -> str:
        """What the first manager says to a call that cannot succeed any more: refused, timed out, wrong certificate."""
        from pyswarm_core.v1 import control_pb2 as pb

        channel = self._dial(self._managers[0])
        try:
            control.ControlStub(channel).GetInfo(pb.Empty(), timeout=0.5)
        except grpc.RpcError as error:
            return _details(error)
        finally:
            channel.close()
        return ""

    def _unreachable(self, why: str) -> ClusterUnreachable:
        addresses = ", ".join(self.context.managers)
        if "CERTIFICATE_VERIFY_FAILED" in why or "Hostname" in why:
            return ClusterUnreachable(
                f"the manager at {addresses} does not have a certificate of the cluster that context '{self.name}' is "
                "for; import that cluster's context again"
            )
        if _server_said(why):
            return ClusterUnreachable(
                f"the cluster of context '{self.name}' ({addresses}) cannot serve this now: {why.rstrip('.')}; "
                "look at its managers and etcd, and try again"
            )
        reason = _reason(why)
        return ClusterUnreachable(
            f"cannot reach the cluster of context '{self.name}': no manager answers at {addresses}"
            f"{f' ({reason})' if reason else ''}; check that one runs, or choose another cluster with --context"
        )

    def _lost(self, error: grpc.RpcError) -> bool:
        """Nobody answered, or whoever did cannot serve now: another manager may."""
        return error.code() in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.DEADLINE_EXCEEDED,
            grpc.StatusCode.CANCELLED,
        )

    def _translate(self, error: grpc.RpcError) -> errors.PyswarmError:
        code, details = error.code(), _details(error)
        if code in _TRANSLATED:
            return _TRANSLATED[code](details or f"the manager refused this ({code.name.lower()})")
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return errors.PyswarmError(
                "this manager does not know that call: it is of another version than this command line; update one"
            )
        if code == grpc.StatusCode.UNKNOWN:
            return errors.OutcomeUnknown(details)
        if code == grpc.StatusCode.INTERNAL:
            return errors.PyswarmError(details)
        if code == grpc.StatusCode.RESOURCE_EXHAUSTED:
            return errors.PyswarmError(f"the answer or the request is too large: {details}")
        return errors.PyswarmError(f"the manager failed on this call ({code.name.lower()}): {details}; see its log")

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def _note(answers: queue.SimpleQueue[tuple[int, Any]], number: int) -> Callable[[Any], None]:
    return lambda done: answers.put((number, done))


def _answered(call: grpc.Future[Any]) -> bool:
    """Whatever it said, a manager said it."""
    error = call.exception()
    if error is None:
        return True
    if not isinstance(error, grpc.RpcError) or error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return False
    return error.code() is not grpc.StatusCode.UNAVAILABLE or _server_said(_details(error))


def _details(error: grpc.RpcError) -> str:
    return " ".join((error.details() or "").split())


def _server_said(details: str) -> bool:
    """The text is a manager's own ("no leader"), not gRPC's about a connection."""
    lowered = details.lower()
    if lowered.startswith("etcd "):
        return True  # which quotes gRPC on its own connection to etcd
    return bool(details) and not any(text in lowered for text in (*_BROKEN, *_NOT_SENT))


def _harmless(error: grpc.RpcError) -> bool:
    """The change was certainly not made: it was never sent, or the manager itself says that it cannot serve."""
    details = _details(error)
    if error.code() is not grpc.StatusCode.UNAVAILABLE:
        return False
    return any(text in details.lower() for text in _NOT_SENT) or _server_said(details)


def _reason(details: str) -> str:
    """The end of gRPC's chain of messages, which is the part that says something."""
    if "Deadline" in details or not details:
        return "no answer in time"
    lowered = details.lower()
    for known in ("connection refused", "no route to host", "network is unreachable", "connection timed out"):
        if known in lowered:
            return known
    if "resolving" in lowered or "lookup" in lowered:
        return "the name cannot be resolved"
    if "socket closed" in lowered or "connection reset" in lowered or "handshake" in lowered:
        return "it closes the connection: it may not trust this context's certificate"
    return details.rpartition(": ")[2][:120]
