"""The stored kinds: which message lives under which key."""

from __future__ import annotations

from pyswarm_core.v1 import objects_pb2 as pb

PREFIX = "/pyswarm/v1/"
LEADER_KEY = PREFIX + "leader"
DISCOVERY_PREFIX = "/pyswarm/discovery/"  # JSON, for outsiders: /pyswarm/discovery/services/<name>

Stored = pb.Service | pb.Task | pb.Node | pb.Network | pb.Rollout | pb.RegistryAuth | pb.Manager | pb.RemovedNode

MESSAGES: dict[str, type[Stored]] = {
    "service": pb.Service,
    "task": pb.Task,
    "node": pb.Node,
    "network": pb.Network,
    "rollout": pb.Rollout,
    "registryauth": pb.RegistryAuth,
    "manager": pb.Manager,
    "removed": pb.RemovedNode,
}
KIND_OF: dict[type[Stored], str] = {message: kind for kind, message in MESSAGES.items()}


def key(kind: str, object_id: str) -> str:
    return f"{PREFIX}{kind}/{object_id}"


def key_of(message: Stored) -> str:
    return key(KIND_OF[type(message)], message.id)


def encode(message: Stored) -> bytes:
    """Without `version`, which is the store's."""
    bare = type(message)()
    bare.CopyFrom(message)  # type: ignore[arg-type]
    bare.version = 0
    return bare.SerializeToString(deterministic=True)


def decode(kind: str, value: bytes, mod_revision: int) -> Stored:
    message = MESSAGES[kind].FromString(value)
    message.version = mod_revision
    return message
