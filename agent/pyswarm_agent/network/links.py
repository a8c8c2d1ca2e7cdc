"""The tasks' links: a namespace with one veth, whose host end is a router's port and no bridge's.

Every host end has the same MAC and every container's is derived from its address, so that neither side ever asks (ARP)
for the other. All that a container knows is: everything is behind 169.254.1.1.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from pyswarm_agent.network import namespaces, rtnl
from pyswarm_agent.network.flux import Flux
from pyswarm_agent.network.inputs import GATEWAY
from pyswarm_agent.network.overlay import Address, Neighbour, Route
from pyswarm_core.errors import InvalidInput, PyswarmError
from pyswarm_proxy.counters import Traffic
from pyswarm_proxy.netlink import wire
from pyswarm_proxy.netlink.wire import Request
from pyswarm_proxy.state import LINK_GROUP, LINK_PREFIX

log = logging.getLogger(__name__)

HOST_MAC = "02:79:00:02:00:01"
CONTAINER_DEVICE = "eth0"

# Docker's, but for IPv6, which has no way out of the namespace: a task's own sysctls overrule them.
SYSCTLS = {
    "net.ipv6.conf.all.disable_ipv6": "1",
    "net.ipv6.conf.default.disable_ipv6": "1",
    "net.ipv4.ip_unprivileged_port_start": "0",
    "net.ipv4.ping_group_range": "0 2147483647",
}


THREADS = max(4, 2 * (os.cpu_count() or 1))  # links made at once: each waits for the kernel's locks half of its time


class LinkFailure(PyswarmError):
    """The kernel did not make a task's link."""

    retryable = True


def host_end(task_id: str) -> str:
    """The name of the task's device on the host; 15 characters are allowed."""
    return LINK_PREFIX + task_id[:12]


def container_mac(address: str) -> str:
    return "0a:79:" + socket.inet_aton(address).hex(":")


class TaskLinks:
    """Implements `interfaces.Links`.

    `folder`: where namespaces are pinned. `mtu`: of the overlay. `subnet_of`: the network that an address belongs to,
    as CIDR, "" when it is not known; a task in several networks sends to each from its address there.
    """

    def __init__(self, folder: Path, mtu: Callable[[], int], subnet_of: Callable[[str], str], flux: Flux) -> None:
        self._folder = folder
        self._mtu = mtu
        self._subnet_of = subnet_of
        self._flux = flux
        self._last: dict[str, Traffic] = {}  # of links that are gone
        self.threads = namespaces.Threads(THREADS)

    def path(self, task_id: str) -> Path:
        return self._folder / task_id

    async def attach(
        self,
        task_id: str,
        addresses: Sequence[str],
        sysctls: Mapping[str, str],
        pinned: Callable[[Path], None] = lambda path: None,
    ) -> Path:
        """The namespace with lo up and all /32 addresses, reachable from this host; returns its path. Idempotent.

        `sysctls`: the net.* ones are set, the others are the runtime's. `pinned` is called before: the namespace is
        there and has its sysctls, but no link yet. Raises LinkFailure, InvalidInput (no such sysctl).
        """
        wanted = SYSCTLS | {name: value for name, value in sysctls.items() if name.startswith("net.")}
        loop = asyncio.get_running_loop()

        def tell(path: Path) -> None:
            loop.call_soon_threadsafe(pinned, path)

        try:
            return await self.threads.run(lambda: self._attach(task_id, addresses, wanted, tell))
        except OSError as e:
            raise LinkFailure(f"the network link of task {task_id} could not be made: {e.strerror}") from e

    def close(self) -> None:
        """Links stay."""
        self.threads.close()

    async def detach(self, task_id: str) -> None:
        """Nothing there is no error. Raises LinkFailure."""
        try:
            await self.threads.run(lambda: self._detach(task_id))
        except OSError as e:
            raise LinkFailure(f"the network link of task {task_id} could not be removed: {e.strerror}") from e

    async def attached(self) -> Sequence[str]:
        """Task ids that have a namespace or veth here, for the clean-up after a crash."""
        return await self.threads.run(self._attached)

    async def usage(self, task_ids: Collection[str]) -> Mapping[str, Traffic]:
        """Bytes that passed each task's link, and resets that it sent; of a link that is gone, what they were then."""
        wanted = list(task_ids)
        return await self.threads.run(lambda: self._usage(wanted)) if wanted else {}

    async def resize(self) -> None:
        """Gives links that have another MTU the overlay's, at both ends. Raises LinkFailure."""
        try:
            await self.threads.run(self._resize)
        except OSError as e:
            raise LinkFailure(f"the MTU of a task's network link could not be changed: {e.strerror}") from e

    def _resize(self) -> None:
        mtu = self._mtu()
        with rtnl.Rtnl() as host:
            for link in host.links():
                path = self.path(link.alias)
                if not link.name.startswith(LINK_PREFIX) or link.mtu == mtu or not namespaces.is_pinned(path):
                    continue
                log.info("network change link=%s mtu=%s", link.name, mtu)
                namespaces.enter(path)
                with rtnl.Rtnl() as inside:
                    own = inside.link(CONTAINER_DEVICE)
                    if own is not None:
                        inside.do(rtnl.set_mtu(own.index, mtu), ignore=rtnl.REMOVE_IGNORES)
                host.do(rtnl.set_mtu(link.index, mtu), ignore=rtnl.REMOVE_IGNORES)

    def forget_usage(self, kept: Collection[str]) -> None:
        """Of links that are gone, all but these tasks'."""
        self._last = {task_id: traffic for task_id, traffic in self._last.items() if task_id in kept}

    def _usage(self, task_ids: Sequence[str]) -> dict[str, Traffic]:
        with rtnl.Rtnl() as host:
            links = {task_id: host.link(host_end(task_id)) for task_id in task_ids}
        found: dict[str, Traffic] = {}
        for task_id, link in links.items():
            if link is None or not namespaces.is_pinned(self.path(task_id)):
                found[task_id] = self._last.get(task_id, Traffic())
                continue
            namespaces.enter(self.path(task_id))
            # the host receives what the task sends
            found[task_id] = Traffic(bytes_in=link.sent, bytes_out=link.received, resets=_resets_sent())
        return found

    def _attach(
        self, task_id: str, addresses: Sequence[str], sysctls: Mapping[str, str], tell: Callable[[Path], None]
    ) -> Path:
        path, name = self.path(task_id), host_end(task_id)
        with self._flux.changing(name), rtnl.Rtnl() as host:
            link = host.link(name)
            pinned = namespaces.is_pinned(path)
            if link is not None and not pinned:
                host.do(rtnl.del_link(link.index), ignore=rtnl.REMOVE_IGNORES)
                link = None
            if pinned:
                namespaces.enter(path)
            else:
                path.unlink(missing_ok=True)
                namespaces.enter_new()
            try:
                with rtnl.Rtnl() as inside:
                    if not pinned:
                        inside.do(rtnl.set_up(1, {}))
                        _write_sysctls(sysctls)
                        namespaces.pin(path)
                    tell(path)
                    if link is None:
                        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                        try:
                            mac = container_mac(addresses[0])
                            host.do(rtnl.new_veth(name, HOST_MAC, self._mtu(), CONTAINER_DEVICE, mac, descriptor))
                        finally:
                            os.close(descriptor)
                    self._configure_inside(inside, addresses)
                self._configure_host(host, name, task_id, addresses)
            except BaseException:
                if not pinned:
                    self._remove(host, path, name)
                raise
        return path

    def _configure_inside(self, inside: rtnl.Rtnl, addresses: Sequence[str]) -> None:
        link = inside.link(CONTAINER_DEVICE)
        if link is None:
            raise wire.NetlinkError(errno.ENODEV, "the container's end of the link is missing")
        index = {CONTAINER_DEVICE: link.index}
        requests = [rtnl.set_up(link.index, {})]
        for address in addresses:
            requests += rtnl.request(Address(CONTAINER_DEVICE, address), index, add=True)
        requests += rtnl.request(Neighbour(CONTAINER_DEVICE, GATEWAY, HOST_MAC), index, add=True)
        requests.append(rtnl.container_route(f"{GATEWAY}/32", link.index))
        requests.append(rtnl.container_route("0.0.0.0/0", link.index, gateway=GATEWAY, source=addresses[0]))
        for address in addresses[1:]:
            if subnet := self._subnet_of(address):
                requests.append(rtnl.container_route(subnet, link.index, gateway=GATEWAY, source=address))
        inside.do(*requests, ignore=rtnl.ADD_IGNORES)

    def _configure_host(self, host: rtnl.Rtnl, name: str, task_id: str, addresses: Sequence[str]) -> None:
        link = host.link(name)
        if link is None:
            raise wire.NetlinkError(errno.ENODEV, "the host's end of the link is missing")
        host.do(rtnl.no_ipv6(link.index), ignore=(errno.EAFNOSUPPORT, errno.EOPNOTSUPP))
        requests = [settings(link.index, task_id)]
        for thing in host_side(name, addresses):
            requests += rtnl.request(thing, {name: link.index}, add=True)
        host.do(*requests, ignore=rtnl.ADD_IGNORES)

    def _detach(self, task_id: str) -> None:
        name = host_end(task_id)
        # The socket first: reading the usage takes this thread into the task's namespace.
        with self._flux.changing(name), rtnl.Rtnl() as host:
            if host.link(name) is not None:
                self._last |= self._usage([task_id])
            self._remove(host, self.path(task_id), name)

    @staticmethod
    def _remove(host: rtnl.Rtnl, path: Path, name: str) -> None:
        link = host.link(name)
        if link is not None:
            host.do(rtnl.del_link(link.index), ignore=rtnl.REMOVE_IGNORES)
        namespaces.unpin(path)

    def _attached(self) -> Sequence[str]:
        found = {entry.name for entry in self._folder.iterdir()} if self._folder.is_dir() else set()
        with rtnl.Rtnl() as host:
            found |= {link.alias for link in host.links() if link.name.startswith(LINK_PREFIX) and link.alias}
        return sorted(found)


def settings(index: int, alias: str = "") -> Request:
    """The alias tells a device's task, whose id is longer than a name may be; without one it keeps what it has."""
    return rtnl.set_up(index, rtnl.LINK_CONF, group=LINK_GROUP, alias=alias)


def is_right(link: rtnl.Link) -> bool:
    conf = rtnl.LINK_CONF
    return link.up and link.group == LINK_GROUP and all(link.conf.get(k, v) == v for k, v in conf.items())


def host_side(name: str, addresses: Sequence[str]) -> list[Route | Neighbour]:
    """What the host needs to reach a task by its device."""
    things: list[Route | Neighbour] = [Route(f"{address}/32", device=name) for address in addresses]
    return things + [Neighbour(name, address, container_mac(addresses[0])) for address in addresses]


def _resets_sent() -> int:
    """By the TCP of the calling thread's namespace."""
    lines = [line.split() for line in Path("/proc/thread-self/net/snmp").read_text().splitlines() if line[:4] == "Tcp:"]
    return int(dict(zip(*lines, strict=True)).get("OutRsts", 0)) if len(lines) == 2 else 0


def _write_sysctls(sysctls: Mapping[str, str]) -> None:
    for name, value in sysctls.items():
        path = Path("/proc/sys") / name.replace(".", "/")
        try:
            path.write_text(value)
        except FileNotFoundError:
            if name not in SYSCTLS:  # a kernel without IPv6 lacks some of ours
                raise InvalidInput(f"sysctl {name} does not exist in a container's network: check its name") from None
        except OSError as e:
            raise InvalidInput(f"sysctl {name} cannot be set to {value!r}: {e.strerror}") from None
