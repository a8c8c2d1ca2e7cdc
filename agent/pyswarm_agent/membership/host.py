"""What the managers say of this node's standing, carried out on this host: who manages the cluster is written where
daemons and users look for it, and the host becomes what its node is to be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pyswarm_agent.membership import context
from pyswarm_agent.membership.ask import ask
from pyswarm_agent.membership.role import become_manager, become_worker
from pyswarm_core import tls
from pyswarm_core.errors import PyswarmError
from pyswarm_core.log import get_logger
from pyswarm_core.membership import configs, daemons, member
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import spec_pb2 as spec

if TYPE_CHECKING:
    import grpc.aio

log = get_logger("agent.membership")

RETRY, RETRY_MAX = 1.0, 30.0  # seconds


class HostMembership:
    """`stands` says what is wanted; `run`, until cancelled, makes it so. `record`: of this host's membership; without
    one this host was not made a member by `init` or `join`, and nothing of it is touched."""

    def __init__(self, record: Path, tls_dir: Path, channel: Callable[[str], grpc.aio.Channel]) -> None:
        """`tls_dir`: this node's certificate; `channel`: to a manager's HOST:PORT, with it as it is."""
        self._record = record
        self._tls_dir = tls_dir
        self._channel = channel
        self._has_changed: Callable[[], None] = lambda: None
        self._wanted: wire.Standing | None = None
        self._changed = asyncio.Event()

    def listen(self, changed: Callable[[], None]) -> None:
        """`changed`: this node's certificate is another."""
        self._has_changed = changed

    def context(self) -> Path | None:
        """The folder of root's context, where there is one to look after."""
        try:
            found = member.load(self._record)
        except PyswarmError:
            return None
        if found is None or found.role != "manager" or not context.exists(Path(found.context)):
            return None
        return Path(found.context)

    def stands(self, standing: wire.Standing) -> None:
        self._wanted = standing
        self._changed.set()

    async def run(self) -> None:
        delay = RETRY
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                if self._wanted is not None:
                    await self._carry_out(self._wanted)
                delay = RETRY
            except (PyswarmError, OSError) as error:
                log.warning("this node's standing is not carried out yet", reason=error)
                self._changed.set()
                await asyncio.sleep(delay)
                delay = min(2 * delay, RETRY_MAX)

    async def _carry_out(self, standing: wire.Standing) -> None:
        managers = tuple(standing.managers)
        found = await asyncio.to_thread(self._follow, managers)
        if found is not None and found.role == "manager":
            await asyncio.to_thread(context.follow, Path(found.context), managers)
        role = "manager" if standing.role == spec.NODE_ROLE_MANAGER else "worker"
        if found is None and role != await asyncio.to_thread(self._own_role):
            log.warning(
                "this node's role cannot be changed: init or join did not make this host a member",
                record=self._record,
                role=role,
            )
        if found is not None and found.role != role:
            await self._become(role, found, managers)

    async def _become(self, role: str, found: member.Member, managers: Sequence[str]) -> None:
        own = f"{found.address}:{member.API_PORT}"
        others = [manager for manager in managers if manager != own]
        log.info("this host is to change its role", role=role)
        granted = await ask(self._channel, others, found.hostname, found.address, role)
        if role == "manager":
            await asyncio.to_thread(become_manager, found, granted)
        else:
            await asyncio.to_thread(become_worker, found, granted)
        self._has_changed()

    def _own_role(self) -> str:
        return tls.Identity.load(self._tls_dir).subject.role

    def _follow(self, managers: tuple[str, ...]) -> member.Member | None:
        before = member.load(self._record)
        if before is None or not managers:
            return before
        found = member.follow(managers, self._record)
        if found != before:
            log.info("who manages the cluster has changed", managers=managers)
        etcd = self._record.parent / "etcd.env"
        if before.role == "manager" and etcd.exists():
            # The cluster lives: etcd without its data must never again make one of its own.
            text = etcd.read_text()
            settled = configs.with_value(text, "ETCD_INITIAL_CLUSTER_STATE", "existing")
            if settled != text:
                daemons.write({etcd.name: settled}, etcd.parent)
        return found
