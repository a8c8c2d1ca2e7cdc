"""What the agent keeps in its journal, typed: tasks' lives, the last fence, and what the balancer works from.

Credentials are not among it: they come again with every complete set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

import msgspec
from google.protobuf.message import DecodeError, Message

from pyswarm_agent.journal import Change, Journal
from pyswarm_agent.tasks.life import Life, Phase
from pyswarm_agent.tasks.listens import Listens
from pyswarm_core.log import get_logger
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

log = get_logger("agent.journal")
M = TypeVar("M", bound=Message)

LIFE, FENCE, ENDPOINTS, NETWORK, NODES, SETTLED, WELCOME, STANDING, MADE_HERE, BOOT = (
    "life",
    "fence",
    "endpoints",
    "network",
    "nodes",
    "settled",
    "welcome",
    "standing",
    "made_here",
    "boot",
)


class _LifeRecord(msgspec.Struct, omit_defaults=True):
    """Fields may be added with a default, never renamed: journals outlive versions."""

    task: bytes
    phase: int
    status: bytes
    gone: bool = False
    started: bool = False
    failure: str = ""
    probe: bytes | None = None
    stop_signal: str = "TERM"
    deadline: float = 0.0
    attempts: int = 0
    served: bool = False
    image_id: str = ""
    listens: tuple[int, ...] = ()
    listens_every: bool = False
    may_start: bool = False


_LIFE_DECODER = msgspec.msgpack.Decoder(_LifeRecord)
_ENCODER = msgspec.msgpack.Encoder()


def encode_life(life: Life) -> bytes:
    return _ENCODER.encode(
        _LifeRecord(
            task=life.task.SerializeToString(),
            phase=int(life.phase),
            status=life.status.SerializeToString(),
            gone=life.gone,
            started=life.started,
            failure=life.failure,
            probe=life.probe.SerializeToString() if life.probe is not None else None,
            stop_signal=life.stop_signal,
            deadline=life.deadline,
            attempts=life.attempts,
            served=life.served,
            image_id=life.image_id,
            listens=life.listens.ports,
            listens_every=life.listens.every,
            may_start=life.may_start,
        )
    )


def decode_life(data: bytes) -> Life:
    """Raises ValueError when it is no life."""
    try:
        record = _LIFE_DECODER.decode(data)
        return Life(
            task=pb.Task.FromString(record.task),
            phase=Phase(record.phase),
            status=pb.TaskStatus.FromString(record.status),
            gone=record.gone,
            started=record.started,
            failure=record.failure,
            probe=spec.Probe.FromString(record.probe) if record.probe is not None else None,
            stop_signal=record.stop_signal,
            deadline=record.deadline,
            attempts=record.attempts,
            served=record.served,
            image_id=record.image_id,
            listens=Listens(record.listens, record.listens_every),
            may_start=record.may_start,
        )
    except (msgspec.MsgspecError, DecodeError) as error:
        raise ValueError(f"not a task's record: {error}") from error


class Records:
    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    # ---- tasks ----

    def lives(self) -> dict[str, Life]:
        found = {}
        for task_id, data in self._journal.items(LIFE).items():
            try:
                found[task_id] = decode_life(data)
            except ValueError as error:
                # A journal of another version. Its container counts as an orphan, and the manager replaces the task.
                log.error("a task's record cannot be read", task=task_id, error=error)
        return found

    def save(self, life: Life) -> None:
        self._journal.put(LIFE, life.id, encode_life(life))

    def drop(self, task_id: str) -> None:
        self._journal.write([(LIFE, task_id, None), (MADE_HERE, task_id, None)])

    def made_here(self) -> dict[str, int]:
        """Tasks that this agent made itself and that no manager has taken over yet: the how-manieth successor."""
        return {task_id: int(number) for task_id, number in self._journal.items(MADE_HERE).items()}

    def set_made_here(self, task_id: str, number: int) -> None:
        """0: a manager knows it now."""
        self._journal.write([(MADE_HERE, task_id, str(number).encode() if number else None)])

    @property
    def boot(self) -> str:
        """Since which boot of the host the lives go on; "" when that was never said."""
        return (self._journal.get(BOOT) or b"").decode()

    def set_boot(self, boot_id: str) -> None:
        self._journal.put(BOOT, "", boot_id.encode())

    async def sync(self) -> None:
        await self._journal.sync()

    # ---- what the manager said ----

    @property
    def fence(self) -> tuple[int, int]:
        fence = self._one(FENCE, wire.Fence) or wire.Fence()
        return fence.leader_revision, fence.revision

    def set_fence(self, fence: tuple[int, int]) -> None:
        message = wire.Fence(leader_revision=fence[0], revision=fence[1])
        self._journal.put(FENCE, "", message.SerializeToString())

    @property
    def welcome(self) -> wire.Welcome | None:
        return self._one(WELCOME, wire.Welcome)

    def set_welcome(self, welcome: wire.Welcome) -> None:
        self._journal.put(WELCOME, "", welcome.SerializeToString())

    @property
    def standing(self) -> wire.Standing | None:
        return self._one(STANDING, wire.Standing)

    def set_standing(self, standing: wire.Standing) -> None:
        self._journal.put(STANDING, "", standing.SerializeToString())

    def networks(self) -> dict[str, pb.Network]:
        return self._all(NETWORK, pb.Network)

    def set_networks(self, networks: Mapping[str, pb.Network], removed: Iterable[str]) -> None:
        changes: list[Change] = [(NETWORK, key, n.SerializeToString()) for key, n in networks.items()]
        self._journal.write([*changes, *((NETWORK, key, None) for key in removed)])

    def endpoints(self) -> dict[str, ep.ServiceEndpoints]:
        return self._all(ENDPOINTS, ep.ServiceEndpoints)

    def nodes(self) -> list[wire.NodeAddress]:
        return list(self._all(NODES, wire.NodeAddress).values())

    def settled(self) -> frozenset[str]:
        return frozenset(self._journal.items(SETTLED))

    def set_endpoints(
        self,
        services: Mapping[str, ep.ServiceEndpoints],
        removed: Iterable[str],
        nodes: Iterable[wire.NodeAddress] | None,
        settled: frozenset[str],
    ) -> None:
        """One update, whole or not at all. `nodes` None: as they were."""
        changes: list[Change] = [(ENDPOINTS, key, s.SerializeToString()) for key, s in services.items()]
        changes += [(ENDPOINTS, key, None) for key in removed]
        changes += _replace(SETTLED, self._journal.items(SETTLED), dict.fromkeys(settled, b""))
        if nodes is not None:
            new = {n.node_id: n.SerializeToString() for n in nodes}
            changes += _replace(NODES, self._journal.items(NODES), new)
        self._journal.write(changes)

    def _one(self, kind: str, message: type[M]) -> M | None:
        data = self._journal.get(kind)
        return message.FromString(data) if data is not None else None

    def _all(self, kind: str, message: type[M]) -> dict[str, M]:
        return {key: message.FromString(data) for key, data in self._journal.items(kind).items()}


def _replace(kind: str, old: Mapping[str, bytes], new: Mapping[str, bytes]) -> list[Change]:
    gone: list[Change] = [(kind, key, None) for key in old if key not in new]
    return [*gone, *((kind, key, value) for key, value in new.items())]
