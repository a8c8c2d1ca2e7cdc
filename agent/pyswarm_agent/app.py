"""The agent daemon: `run(settings)`. It puts the parts together and looks after their lives; it decides nothing."""

from __future__ import annotations

import os

# Before the first import of grpc anywhere: with fork support on, a fork beside live streams kills children.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
# What it would say of lost connections is said by the session, once.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

import asyncio
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from pyswarm_agent import app_host, certificates, metrics
from pyswarm_agent.app_agent import Agent, Parts
from pyswarm_agent.dns.server import DnsServer
from pyswarm_agent.dns.upstream import ResolvConf
from pyswarm_agent.health.listening import PortWatch, sockets_in
from pyswarm_agent.health.prober import Prober
from pyswarm_agent.images.settings import ImageSettings
from pyswarm_agent.images.store import ImageStore
from pyswarm_agent.journal import Journal
from pyswarm_agent.journal_records import Records
from pyswarm_agent.logs.reader import LogReader
from pyswarm_agent.logs.rotation import LogRotator
from pyswarm_agent.membership.host import HostMembership
from pyswarm_agent.metrics_agent import AgentFigures
from pyswarm_agent.network.inputs import GATEWAY
from pyswarm_agent.network.node import NodeNetwork
from pyswarm_agent.publish import LogPublisher
from pyswarm_agent.runtime.conmon import ConmonRuntime
from pyswarm_agent.runtime.fuses import Fuses
from pyswarm_agent.runtime.settings import RuntimeSettings
from pyswarm_agent.session_dial import Dialer
from pyswarm_agent.session_grpc import GrpcConnector
from pyswarm_agent.settings import Settings
from pyswarm_agent.tasks.request import Here
from pyswarm_core import reload, tls
from pyswarm_core.errors import PyswarmError
from pyswarm_core.log import configure, get_logger
from pyswarm_core.membership import member
from pyswarm_core.scrape import http
from pyswarm_core.systemd import Notifier
from pyswarm_core.together import run_together
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import spec_pb2 as spec

log = get_logger("agent.app")

DNS_AGAIN = 5.0  # seconds between two attempts to have the name server's port


def run(settings: Settings) -> int:
    """Until SIGTERM or SIGINT; containers, rules and traffic stay. What cannot work is one line in the log, and 1."""
    configure(settings.log_level)
    if sys.version_info < (3, 12):
        # As later versions do by themselves: no thread for each program that is run, which every start would wait for.
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    try:
        asyncio.run(_until_signal(settings))
    except PyswarmError as error:
        log.error("the agent cannot run", reason=str(error))
        return 1
    return 0


async def _until_signal(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    reload.on_hangup("PYSWARM_AGENT_LOG_LEVEL")
    await serve(settings, stop)


async def serve(settings: Settings, stop: asyncio.Event) -> None:
    """The agent, until `stop` is set. PyswarmError: it cannot work on this host, or not with these settings."""
    notifier = Notifier.take()  # before anything is started
    identity = tls.Identity.load(settings.tls_dir)
    node_id = identity.subject.common_name
    hostname, address = app_host.hostname_of(settings), app_host.address_of(settings)
    async with AsyncExitStack() as lives:
        journal = Journal(settings.data_dir / "agent" / "journal")
        journal.open()
        lives.callback(journal.close)
        here = RuntimeSettings(data_dir=settings.data_dir, run_dir=settings.run_dir, runtime=settings.runtime)
        runtime = ConmonRuntime(here)
        images = ImageStore(ImageSettings(data_dir=settings.data_dir, run_dir=settings.run_dir))
        lives.push_async_callback(images.close)
        network = NodeNetwork(settings.run_dir)
        links = network.links
        await network.start()
        lives.push_async_callback(network.stop)
        resolvers = ResolvConf()
        dns = DnsServer(resolvers.servers)
        lives.push_async_callback(dns.close)
        connector = GrpcConnector(settings.tls_dir)
        reader = LogReader(runtime)
        publisher = LogPublisher(reader, connector.dispatcher, node_id)
        lives.push_async_callback(publisher.close)

        membership = HostMembership(settings.record, settings.tls_dir, connector.channel)
        records = Records(journal)

        def hello() -> wire.Hello:
            return wire.Hello(
                node_id=node_id,
                description=app_host.description(hostname, address, runtime.description, settings.metrics_addr),
                address=address,
                role=spec.NODE_ROLE_MANAGER if settings.role == "manager" else spec.NODE_ROLE_WORKER,
                labels=settings.labels,
            )

        figures = AgentFigures(settings, hostname, network, dns)
        parts = Parts(
            records=records,
            runtime=runtime,
            images=images,
            links=links,
            network=network,
            probes=Prober(runtime, time.time),
            ports=PortWatch(lambda task_id: sockets_in(links.path(task_id), links.threads), time.time),
            logs=reader,
            names=dns,
            connector=metrics.MeteredConnector(connector, figures.metrics.connected),
            publisher=publisher,
            here=Here(node_id, hostname, GATEWAY, resolvers.search(), app_host.platform().architecture),
            hello=hello,
            stands=membership.stands,
            fuses=Fuses(here),
            boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        )
        dialer = Dialer(settings.manager_endpoints, random.SystemRandom())
        dialer.learn(_managers_known(records, settings))
        agent = Agent(parts, dialer, observe=figures.metrics.applied)
        figures.attach(agent)
        membership.listen(agent.session.renew)
        log.info("agent started", node=node_id, address=address, managers=dialer.managers)
        try:
            async with _scrapes(settings.metrics_addr, figures.metrics):
                await run_together(
                    _wait(stop),
                    agent.run(),
                    LogRotator(runtime.rotated_logs).run(),
                    _answer_names(dns),
                    notifier.keep_alive(),
                    membership.run(),
                    certificates.keep_context_fresh(membership.context, lambda: dialer.managers, random.SystemRandom()),
                    certificates.keep_fresh(
                        settings.tls_dir, connector.channel, lambda: dialer.managers, random.SystemRandom()
                    ),
                )
        finally:
            log.info("agent stopped", node=node_id)


def _managers_known(records: Records, settings: Settings) -> tuple[str, ...]:
    """By the last word of a manager. The journal may have been lost with its disk, the record is on another."""
    standing = records.standing
    if standing is not None and standing.managers:
        return tuple(standing.managers)
    found = member.load(settings.record)
    return found.managers if found is not None else ()


@asynccontextmanager
async def _scrapes(address: str, figures: metrics.Metrics) -> AsyncIterator[None]:
    server = await http.serve(address, figures.pages()) if address else None
    try:
        yield
    finally:
        if server is not None:
            server.close()


async def _answer_names(dns: DnsServer) -> None:
    """A name server that cannot have its port must not keep containers from running: tried until it can."""
    while True:
        try:
            await dns.start()
        except PyswarmError as error:
            log.error("no name server for tasks", reason=str(error))
            await asyncio.sleep(DNS_AGAIN)
        else:
            await asyncio.Event().wait()


async def _wait(stop: asyncio.Event) -> None:
    await stop.wait()
