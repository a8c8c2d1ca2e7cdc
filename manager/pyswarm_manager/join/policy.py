"""Which role may call which service. Pure. What is not listed is refused: a new service is closed until it is here."""

from __future__ import annotations

from pyswarm_core.tls import Peer

MANAGERS = frozenset({"manager"})
NODES = frozenset({"worker", "manager"})
# A worker's key is on every host: it must not command the cluster.
USERS = frozenset({"client", "manager"})
EVERYBODY = NODES | USERS

SERVICES: dict[str, frozenset[str]] = {
    "pyswarm.v1.Control": USERS,
    "pyswarm.v1.Dispatcher": NODES,
    "pyswarm.v1.Membership": USERS,
    "grpc.health.v1.Health": EVERYBODY,
}
# Of a service, what other roles may call.
METHODS: dict[str, frozenset[str]] = {
    "pyswarm.v1.Membership/Renew": EVERYBODY,
    "pyswarm.v1.Membership/ChangeRole": NODES,
    "pyswarm.v1.Membership/PrepareEtcd": MANAGERS,
    "pyswarm.v1.Membership/Leave": NODES,
}
# Served on the port where nobody has a certificate, and nowhere else: the token is what proves who calls.
OPEN = frozenset({"pyswarm.v1.Join"})

_ADVICE = {
    USERS: "only users and managers may: use a user's certificate ('pyswarm context import' brings one)",
    MANAGERS: "only managers may: use a manager's own certificate",
    NODES: "only nodes may: use the node's own certificate",
}


def allowed(method: str) -> frozenset[str]:
    """`method`: as in gRPC, /pyswarm.v1.Control/GetInfo. Empty: nobody."""
    name = method.lstrip("/")
    return METHODS.get(name, SERVICES.get(name.partition("/")[0], frozenset()))


def refusal(method: str, peer: Peer) -> str:
    """Why this caller may not, in one sentence; "" = it may."""
    roles = allowed(method)
    if peer.role in roles:
        return ""
    call = method.rpartition("/")[2]
    advice = _ADVICE.get(roles, "use another certificate") if roles else "nobody may call it on this port"
    return f"A certificate with the role '{peer.role}' may not call {call}: {advice}."
