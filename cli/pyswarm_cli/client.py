"""The cluster as the command line sees it: any manager that answers, over mutual TLS.

Managers are tried in turn, each a little after the one before, and the first that is ready serves. When none is, or
none leads, the same is tried again for `PATIENCE` seconds. gRPC errors become `PyswarmError` here (by `rpc_errors`) and
nowhere else.
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

from pyswarm_cli.exits import ClusterUnreachable
from pyswarm_core import errors
from pyswarm_core.contexts import Context

# Before the first import of grpc: it must not write its own lines on stderr.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc

from pyswarm_cli import rpc_errors
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

    @property
    def channel(self) -> grpc.Channel:
        """For stubs of other services than Control; within a `pick`, where it is ready."""
        assert self._channel is not None
        return self._channel

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
        until, said = time.monotonic() + self.patience, ""
        while True:
            begun = False
            call = pick(self._stub(until, said))(request)
            try:
                for message in self._messages(call):
                    begun = True
                    yield message
                return
            except grpc.RpcError as error:
                if not rpc_errors.is_lost(error):
                    raise rpc_errors.translate(error) from None
                self._drop()
                if begun:
                    raise ClusterUnreachable(
                        f"the connection to the manager was lost: {rpc_errors.details(error)}"
                    ) from None
                said = rpc_errors.details(error)
                self._pause(until, said)
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
            if rpc_errors.is_lost(error) and not rpc_errors.server_said(rpc_errors.details(error)):
                raise

    def close(self) -> None:
        self._drop()

    def _call(self, pick: Callable[[control.ControlStub], Any], request: Any, *, changes: bool) -> Any:
        until, said = time.monotonic() + self.patience, ""
        while True:
            stub = self._stub(until, said)
            try:
                return pick(stub)(request, timeout=CHANGE_TIMEOUT if changes else READ_TIMEOUT)
            except grpc.RpcError as error:
                if not rpc_errors.is_lost(error):
                    raise rpc_errors.translate(error) from None
                self._drop()
                if changes and not rpc_errors.is_harmless(error):
                    raise errors.OutcomeUnknown(
                        f"the connection to the manager broke before it answered, so the change may or may not have "
                        f"been made ({rpc_errors.details(error)}); look before you try again"
                    ) from None
                said = rpc_errors.details(error)
                self._pause(until, said)

    def _pause(self, until: float, said: str) -> None:
        """Before another round, with the manager that failed last in line; raises when patience has ended."""
        if time.monotonic() + RETRY >= until:
            raise rpc_errors.unreachable(self.name, self.context.managers, said)
        self._managers.append(self._managers.pop(0))
        time.sleep(RETRY)

    def _stub(self, until: float, said: str) -> control.ControlStub:
        """`said`: what this request was answered with before. It tells more than a dial that time cuts short."""
        self._managers = self._managers or list(self.context.managers)
        while self._channel is None:
            self._channel = self._first_ready(until)
            if self._channel is None:
                why = self._why()
                if said and rpc_errors.is_silence(why):
                    why = said
                if time.monotonic() + RETRY >= until or rpc_errors.is_hopeless(why):
                    raise rpc_errors.unreachable(self.name, self.context.managers, why)
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
                    winner = number if rpc_errors.is_answer(done) else None
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
            return rpc_errors.details(error)
        finally:
            channel.close()
        return ""

    def _drop(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None


def _note(answers: queue.SimpleQueue[tuple[int, Any]], number: int) -> Callable[[Any], None]:
    return lambda done: answers.put((number, done))
