"""The manager daemon: `run(settings)`. It puts the parts together and looks after their lives; it decides nothing."""

from __future__ import annotations

import os

# Before the first import of grpc anywhere: with fork support on, a fork beside live streams kills children.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import asyncio
import gc
import random
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc

from pyswarm_core import reload, tls
from pyswarm_core.errors import PreconditionFailed, PyswarmError, StoreUnavailable
from pyswarm_core.etcd.client import Client
from pyswarm_core.etcd.store import EtcdStore
from pyswarm_core.log import configure, get_logger
from pyswarm_core.scrape import http
from pyswarm_core.systemd import Notifier
from pyswarm_core.together import run_together
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import control_pb2_grpc as control_grpc
from pyswarm_core.v1 import dispatcher_pb2_grpc as wire_grpc
from pyswarm_core.v1 import join_pb2_grpc as join_grpc
from pyswarm_manager import metrics, presence
from pyswarm_manager.api.errors import ErrorInterceptor
from pyswarm_manager.api.logs import no_leader
from pyswarm_manager.api.resolve import SkopeoResolver
from pyswarm_manager.clock import SystemClock
from pyswarm_manager.core import Core
from pyswarm_manager.health import Health
from pyswarm_manager.join.authorize import AuthorizationInterceptor
from pyswarm_manager.join.departures import Departures
from pyswarm_manager.join.renewal import keep_fresh
from pyswarm_manager.join.servicer import JoinServicer, MembershipServicer
from pyswarm_manager.join.vault import SEED, Vault
from pyswarm_manager.members import follow
from pyswarm_manager.members.etcd import EtcdMembers
from pyswarm_manager.members.keeper import Keeper
from pyswarm_manager.roster import api_addresses
from pyswarm_manager.settings import Settings, split_address
from pyswarm_manager.world import CachedWorld

log = get_logger("manager.app")

MAX_MESSAGE = 256 << 20  # bytes
MAX_ENROLMENT = 64 << 10  # bytes, from hosts that have proven nothing yet
JOINS_AT_ONCE = 64
PROBE_WITHIN = 1.5  # seconds for one of etcd's members to say how it is
STOP_GRACE = 0.5  # seconds for calls in flight
RESIGN_WITHIN = 1.0  # seconds; without it the lease runs out
SERVER_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_send_message_length", MAX_MESSAGE),
    # A host that was cut off must not hold a session for ever: ask, and believe no silence.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Clients ask, too, and may.
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    # Two managers must never share a port by accident.
    ("grpc.so_reuseport", 0),
)


def run(settings: Settings) -> int:
    """Until SIGTERM or SIGINT; returns the exit code. What cannot work is one line in the log, and 1."""
    configure(settings.log_level)
    try:
        asyncio.run(_until_signal(settings))
    except PyswarmError as error:
        log.error("the manager cannot run", reason=str(error))
        return 1
    return 0


async def _until_signal(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    reload.on_hangup("PYSWARM_MANAGER_LOG_LEVEL")
    await serve(settings, stop)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """The manager, until `stop` is set. PreconditionFailed, NotFound: its certificates or addresses are not right."""
    identity = _identity(settings)
    etcd_identity = tls.Identity.load(settings.etcd_tls_dir) if settings.etcd_tls_dir else identity
    endpoints = dict.fromkeys((*follow.remembered(settings.data_dir), *settings.etcd_endpoints))
    store = EtcdStore.connect(list(endpoints), etcd_identity)
    probes = Client(list(endpoints), etcd_identity, timeout=PROBE_WITHIN)
    manager = Manager(settings, identity, store, probes)
    host, _ = split_address(settings.advertise, "advertised")

    async def renewed(fresh: tls.Identity) -> None:
        manager.identity = fresh
        if not settings.etcd_tls_dir:
            store.client.renew(fresh)
            probes.renew(fresh)

    beside = []
    if manager.keeper is not None:
        beside.append(asyncio.create_task(follow.follow(store.client, host, settings.data_dir)))
        beside.append(asyncio.create_task(manager.keeper.run()))
    if settings.join_listen:  # a cluster that signs for itself
        fresh = keep_fresh(manager.vault, settings.tls_dir, settings.member_tls_dir, renewed, random.SystemRandom())
        beside.append(asyncio.create_task(fresh))
    try:
        await manager.run(stop)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await store.close()
        await probes.close()
        log.info("manager stopped", manager=settings.manager_id)


class Manager:
    """The core with its sockets, and their lives. `store`: bare; it is metered here. `probes`: for how etcd's members
    are."""

    def __init__(self, settings: Settings, identity: tls.Identity, store: EtcdStore, probes: Client) -> None:
        self._settings = settings
        self.identity = identity  # replaced when it is renewed
        self._store = store
        self.vault = Vault(store, settings.data_dir / SEED)
        self.keeper: Keeper | None = None
        self._health = Health()
        world = CachedWorld()
        figures = metrics.Figures(
            is_leader=lambda: self._core.term is not None,
            leader_known=lambda: self._core.cache.leader is not None,
            is_connected=lambda: self._core.cache.connected,
            unapplied=self._unapplied,
            queues=self._queues,
            managers=lambda: presence.living(store),
        )
        self.metrics = metrics.Metrics(world, figures, _certificates(settings))
        if settings.member_tls_dir is not None:  # etcd is beside the managers
            etcd = EtcdMembers(store.client, probes)
            self.keeper = Keeper(etcd, world, settings.manager_id, self._leads, SystemClock())
        self._core = Core(
            settings,
            metrics.MeteredStore(store, self.metrics.observe_call),
            world,
            SkopeoResolver(),
            self._forward_logs,
            SystemClock(),
            random.SystemRandom(),
            led=self._led,
            observe=self.metrics.observe_loop,
            keeper=self.keeper,
        )

    async def run(self, stop: asyncio.Event) -> None:
        notifier = Notifier.take()  # before anything is started
        server, joins = self._server(), self._join_server()
        scrapes = None
        if self._settings.metrics_addr:
            scrapes = await http.serve(self._settings.metrics_addr, self.metrics.pages())
        try:
            await self._health.set_ready(False)
            await self._health.set_leading(False)
            await server.start()
            if joins is not None:
                await joins.start()
            log.info("manager started", manager=self._settings.manager_id, address=self._settings.advertise)
            await run_together(_wait(stop), self._core.run(), self._announce_ready(), notifier.keep_alive())
        finally:
            # First the lease, so that another manager leads at once; then the calls.
            try:
                async with asyncio.timeout(RESIGN_WITHIN):
                    await self._core.resign()
            except TimeoutError:
                log.warning("etcd does not answer, so the leases run out by themselves")
            if scrapes is not None:
                scrapes.close()
            await asyncio.gather(*(each.stop(STOP_GRACE) for each in (server, joins) if each is not None))

    async def _announce_ready(self) -> None:
        """Says so until etcd has been there once; then never returns."""
        while True:
            try:
                async with asyncio.timeout(5):
                    await self._core.cache.wait_for(1)
                break
            except TimeoutError:
                log.warning("waiting for etcd", endpoints=self._settings.etcd_endpoints)
        # What was read stays: looking through it for garbage again and again would stop everything for a while.
        gc.collect()
        gc.freeze()
        await self._take_seed()
        await self._health.set_ready(True)
        log.info("store read", revision=self._core.world.revision, services=len(self._core.world.services))
        await asyncio.Event().wait()

    def _server(self) -> grpc.aio.Server:
        settings = self._settings
        interceptors = [self.metrics.rpc, AuthorizationInterceptor(self._refusal_of_removed), ErrorInterceptor()]
        server = grpc.aio.server(interceptors=interceptors, options=SERVER_OPTIONS)
        control_grpc.add_ControlServicer_to_server(self._core.control, server)
        wire_grpc.add_DispatcherServicer_to_server(self._core.dispatcher, server)
        core = self._core
        departures = Departures(core.world, core.admissions, core.control.may_become, self.keeper, SystemClock())
        membership = MembershipServicer(
            self.vault,
            core.world,
            settings.advertise,
            departures,
            self.keeper,
            self._managers,
            self._etcd_endpoints,
            settings.address_pool,
        )
        join_grpc.add_MembershipServicer_to_server(membership, server)
        self._health.add_to(server)
        return _listening(server, settings.listen, tls.renewing_server_credentials(lambda: self.identity))

    def _join_server(self) -> grpc.aio.Server | None:
        """Nothing but Join is served there: its callers have no certificate."""
        settings = self._settings
        if not settings.join_listen:
            return None
        server = grpc.aio.server(
            interceptors=[self.metrics.rpc, ErrorInterceptor()],
            options=(*SERVER_OPTIONS[2:], ("grpc.max_receive_message_length", MAX_ENROLMENT)),
            maximum_concurrent_rpcs=JOINS_AT_ONCE,
        )
        joining = JoinServicer(
            self.vault, self._managers, self._etcd_endpoints, settings.address_pool, random.SystemRandom()
        )
        join_grpc.add_JoinServicer_to_server(joining, server)
        return _listening(
            server, settings.join_listen, tls.renewing_server_credentials(lambda: self.identity, joining=True)
        )

    async def _take_seed(self) -> None:
        """Until etcd has it: without, nobody could join."""
        while True:
            try:
                return await self.vault.take_seed()
            except PyswarmError as error:
                log.warning("the cluster's seed is not stored yet", reason=error)
                await asyncio.sleep(1)

    async def _forward_logs(self, request: control.LogsRequest) -> AsyncIterator[control.LogsResponse]:
        """Logs come by way of the leader's sessions: ask it, and pass on what it says, errors included."""
        address = self._core.leader_address()
        if not address or address == self._settings.advertise:
            raise no_leader()
        options = [*tls.channel_options(), ("grpc.max_receive_message_length", MAX_MESSAGE)]
        credentials = tls.client_credentials(self.identity)
        async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
            try:
                async for response in control_grpc.ControlStub(channel).Logs(request):
                    yield response
            except grpc.aio.AioRpcError as error:
                log.info("the leader refused logs", leader=address, reason=error.details())
                raise StoreUnavailable(error.details() or "The leader does not answer: try again.") from None

    def _leads(self) -> bool:
        return self._core.term is not None

    def _managers(self) -> Sequence[str]:
        """HOST:PORT of each one's API, this one among them."""
        world = self._core.world
        return sorted({*api_addresses(world.nodes, world.managers), self._settings.advertise})

    def _etcd_endpoints(self) -> Sequence[str]:
        return self._store.client.endpoints

    def _refusal_of_removed(self, node_id: str) -> str:
        node = self._core.world.removed.get(node_id)
        if node is None:
            return ""
        return (
            f"The node {node.hostname or node.id} was removed from this cluster: run 'pyswarm leave --force' there, "
            "and then 'pyswarm join', to make it a node again."
        )

    async def _led(self, is_leading: bool) -> None:
        if is_leading:
            self.metrics.began_to_lead()
        await self._health.set_leading(is_leading)

    def _unapplied(self) -> dict[str, float | None]:
        if self._core.term is None:
            return {}
        return {session.node_id: session.unapplied_since for session in self._core.term.dispatcher.sessions}

    def _queues(self) -> dict[str, int]:
        if self._core.term is None:
            return {}
        return {"loops": self._core.term.loops.queue.depth, "dispatcher": self._core.term.dispatcher.queue.depth}


def _certificates(settings: Settings) -> dict[str, Path]:
    files = {"node": settings.tls_dir / tls.CERT_FILE, "ca": settings.tls_dir / tls.CA_FILE}
    if settings.etcd_tls_dir is not None:
        files["etcd-client"] = settings.etcd_tls_dir / tls.CERT_FILE
    if settings.member_tls_dir is not None:
        files["etcd"] = settings.member_tls_dir / tls.CERT_FILE
    return files


def _identity(settings: Settings) -> tls.Identity:
    identity = tls.Identity.load(settings.tls_dir)
    subject = identity.subject
    if subject.role != "manager":
        raise PreconditionFailed(
            f"The certificate in {settings.tls_dir} has the role '{subject.role}': a manager needs one with the role "
            "'manager'."
        )
    if subject.common_name != settings.manager_id:
        raise PreconditionFailed(
            f"The certificate in {settings.tls_dir} belongs to '{subject.common_name}', not to "
            f"'{settings.manager_id}': start the manager with --id and that name, or have another certificate issued."
        )
    return identity


def _listening(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials) -> grpc.aio.Server:
    try:
        server.add_secure_port(address, credentials)
    except RuntimeError:
        raise PreconditionFailed(
            f"The address {address} cannot be listened on: is another manager running on this host?"
        ) from None
    return server


async def _wait(stop: asyncio.Event) -> None:
    await stop.wait()
