"""A host says goodbye to its cluster: to any manager but its own, which is about to end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pyswarm_cli import rpc_errors
from pyswarm_core import tls
from pyswarm_core.errors import PreconditionFailed, PyswarmError
from pyswarm_core.membership.member import API_PORT, ETC, Member

ANSWER_WITHIN = 15.0  # seconds
MOVES_WITHIN = 30.0  # what tasks have to move elsewhere; those that cannot are given up then
DONE_WITHIN = 60.0
FORCED_WITHIN = 10.0
HEARD_WITHIN = 5.0
LOOK = 0.5


class _Unheard(PyswarmError):
    """No manager answered."""


def depart(host: Member, *, force: bool, say: Callable[[str], None]) -> None:
    """Returns when the cluster has let this host go. PreconditionFailed: it does not. With `force` it always returns,
    and says what is left to do."""
    others = [m for m in host.managers if m != f"{host.address}:{API_PORT}" or host.role != "manager"]
    if not others:
        if not force:
            raise PreconditionFailed(
                "this host is the cluster's only manager, and the cluster ends with it; nothing was changed. Promote "
                "another one first, or repeat with --force if the end is meant"
            )
        return
    try:
        _until_done(host, others, force, say)
    except PyswarmError as error:
        if not force:
            raise PreconditionFailed(f"{str(error).rstrip('.')}; 'pyswarm leave --force' leaves all the same") from None
        say(f"The cluster has not let this host go ({str(error).rstrip('.')}).")
        say(f"On a manager, run 'pyswarm node demote {host.node_id}' if it was one, then 'pyswarm node rm --force'.")


def _until_done(host: Member, managers: list[str], force: bool, say: Callable[[str], None]) -> None:
    began, said = time.monotonic(), ""
    while True:
        waited = time.monotonic() - began
        try:
            answer = _ask(managers, force=force, at_once=force or waited >= MOVES_WITHIN)
        except _Unheard:
            # Whoever answered may just have handed over; and a manager's host gets other certificates on its way out.
            if waited >= (0 if force else HEARD_WITHIN):
                raise
            time.sleep(LOOK)
            continue
        if answer.done:
            return
        if answer.waits_for != said:
            said = answer.waits_for
            say(f"Waiting: {said}.")
        if waited >= (FORCED_WITHIN if force else DONE_WITHIN):
            raise PreconditionFailed(f"after {waited:.0f} s {said}")
        time.sleep(LOOK)


def _ask(managers: list[str], *, force: bool, at_once: bool) -> Any:
    """The first answer. One that serves moves to the front."""
    import grpc

    from pyswarm_core.v1 import join_pb2 as pb
    from pyswarm_core.v1.join_pb2_grpc import MembershipStub

    credentials = tls.client_credentials(tls.Identity.load(ETC / "tls"))
    reasons = []
    for manager in tuple(managers):
        with grpc.secure_channel(manager, credentials, options=tls.channel_options()) as channel:
            try:
                request = pb.LeaveRequest(force=force, at_once=at_once)
                answer = MembershipStub(channel).Leave(request, timeout=ANSWER_WITHIN)
            except grpc.RpcError as error:
                trailing: Any = error.trailing_metadata() or ()
                if any(key == "pyswarm-removed" for key, _ in trailing):
                    return pb.LeaveResponse(done=True)
                if not rpc_errors.is_lost(error):
                    raise rpc_errors.translate(error) from None
                reasons.append(f"{manager}: {rpc_errors.details(error)}")
                continue
        managers.remove(manager)
        managers.insert(0, manager)
        return answer
    raise _Unheard(f"no other manager answers ({'; '.join(reasons)})")
