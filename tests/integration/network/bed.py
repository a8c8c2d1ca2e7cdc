"""Hosts out of network namespaces, in one process: a bridge, three hosts with a NodeNetwork each, a client, and
containers that are a namespace and nothing else. A socket belongs to the namespace of the thread that made it, so
servers and clients of all places live in the test's own event loop. (One file: the places know each other.)
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
import subprocess
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pyswarm_agent.network import namespaces
from pyswarm_agent.network.inputs import NetworkInputs
from pyswarm_agent.network.node import NodeNetwork
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

T = TypeVar("T")

NEED_ROOT = "needs root: it makes network namespaces"
CLIENT = "10.90.0.100"
_CLONE_NEWNS = 0x20000
_MS_PRIVATE_REC = (1 << 18) | 16384


def run(*argv: str, check: bool = True) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {done.stderr or done.stdout}")
    return done.stdout


def netns_path(name: str) -> Path:
    return Path("/run/netns") / name


def inside(path: Path, call: Callable[[], T]) -> T:
    """Calls in a thread that is in that namespace; what it returns (a socket) stays there."""
    box: list[Any] = []

    def work() -> None:
        try:
            namespaces.enter(path)
            box.append((call(), None))
        except BaseException as e:
            box.append((None, e))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    result, error = box[0]
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


class Place:
    """Somewhere with a network of its own: a host, the client, a container."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self._closers: list[Callable[[], None]] = []

    def exec(self, *argv: str, check: bool = True) -> str:
        return run("nsenter", f"--net={self.path}", *argv, check=check)

    def tcp_socket(self) -> socket.socket:
        sock = inside(self.path, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
        sock.setblocking(False)
        return sock

    def udp_socket(self) -> socket.socket:
        sock = inside(self.path, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.setblocking(False)
        return sock

    async def ask(
        self, address: str, port: int, *, timeout: float = 3.0, source: str = "", data: bytes = b"hello\n"
    ) -> str:
        """A TCP connection of its own: what the server says. OSError, TimeoutError."""
        loop = asyncio.get_running_loop()
        sock = self.tcp_socket()
        try:
            async with asyncio.timeout(timeout):
                if source:
                    sock.bind((source, 0))
                await loop.sock_connect(sock, (address, port))
                await loop.sock_sendall(sock, data)
                answer = await loop.sock_recv(sock, 4096)
                if not answer:
                    raise ConnectionResetError("closed without an answer")
                return answer.decode().strip()
        finally:
            sock.close()

    async def ask_udp(self, address: str, port: int, *, timeout: float = 2.0, data: bytes = b"hello\n") -> str:
        loop = asyncio.get_running_loop()
        sock = self.udp_socket()
        try:
            async with asyncio.timeout(timeout):
                await loop.sock_connect(sock, (address, port))
                await loop.sock_sendall(sock, data)
                return (await loop.sock_recv(sock, 65536)).decode().strip()
        finally:
            sock.close()

    async def ping(self, address: str) -> bool:
        """By an unprivileged echo socket, which is allowed in containers."""
        kind = (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
        sock = inside(self.path, lambda: socket.socket(*kind))
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(0.5):
                await loop.sock_sendto(sock, bytes([8, 0, 0, 0, 0, 0, 0, 1]) + b"ping", (address, 0))
                return (await loop.sock_recv(sock, 100))[0] == 0
        except (OSError, TimeoutError):
            return False
        finally:
            sock.close()

    async def outcome(self, address: str, port: int, *, proto: str = "tcp", timeout: float = 1.0) -> str:
        """The answer, or in one word why there was none."""
        try:
            ask = self.ask if proto == "tcp" else self.ask_udp
            return await ask(address, port, timeout=timeout)
        except ConnectionRefusedError:
            return "refused"
        except ConnectionResetError:
            return "reset"
        except TimeoutError:
            return "timeout"
        except OSError:
            return "unreachable"

    def close(self) -> None:
        for closer in self._closers:
            closer()


@dataclass
class Server:
    """Answers "NAME CLIENT", to each line of a connection and to each datagram. Counts what it saw."""

    name: str
    connections: int = 0
    open: int = 0
    seen: list[str] = field(default_factory=list)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _stops: list[Callable[[], None]] = field(default_factory=list)

    async def start(self, place: Place, address: str, port: int) -> None:
        def listen() -> tuple[socket.socket, socket.socket]:
            tcp = socket.create_server((address, port), backlog=1024)
            udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            udp.bind((address, port))
            return tcp, udp

        tcp, udp = inside(place.path, listen)
        server = await asyncio.start_server(self._serve, sock=tcp)
        udp.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(udp.fileno(), self._datagram, udp)
        self._stops += [server.close, lambda: loop.remove_reader(udp.fileno()), udp.close]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = writer.get_extra_info("peername")[0]
        self.connections += 1
        self.open += 1
        self.seen.append(client)
        self.writers.add(writer)
        try:
            while line := await reader.readline():
                writer.write(f"{self.name} {client}\n".encode() if len(line) < 100 else line)
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self.writers.discard(writer)
            writer.close()

    def _datagram(self, udp: socket.socket) -> None:
        with contextlib.suppress(OSError):
            data, client = udp.recvfrom(65536)
            self.seen.append(client[0])
            udp.sendto(f"{self.name} {client[0]} {len(data)}".encode(), client)

    def stop(self) -> None:
        """As when its process is killed with work unread: connections are reset, the port is closed."""
        for stop in self._stops:
            stop()
        self._stops.clear()
        for writer in list(self.writers):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Host(Place):
    """A NodeNetwork, in an event loop of its own whose thread is in the host's namespaces."""

    def __init__(self, bed: Bed, number: int, address: str) -> None:
        name = f"{bed.prefix}h{number}"
        super().__init__(name, netns_path(name))
        self.bed, self.number, self.address, self.node_id = bed, number, address, f"node{number}"
        self.run_dir = bed.folder / f"h{number}"
        self.run_dir.mkdir()
        self.loop = asyncio.new_event_loop()
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._work, args=(ready,), name=name, daemon=True)
        self._thread.start()
        ready.result(10)
        self.network = self.call(self._new_network())

    def _work(self, ready: Future[None]) -> None:
        try:
            namespaces.enter(self.path)
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(_CLONE_NEWNS) or libc.mount(b"none", b"/", None, _MS_PRIVATE_REC, None):
                raise OSError(ctypes.get_errno(), "private mounts")
        except BaseException as e:
            ready.set_exception(e)
            return
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(ready.set_result, None)
        self.loop.run_forever()

    async def _new_network(self) -> NodeNetwork:
        network = NodeNetwork(self.run_dir)
        await network.start()
        return network

    def call(self, work: Awaitable[T]) -> T:
        async def waited() -> T:
            return await work

        return asyncio.run_coroutine_threadsafe(waited(), self.loop).result(60)

    async def do(self, work: Awaitable[T]) -> T:
        """`call` without blocking the test's own loop, in which servers and clients live."""

        async def waited() -> T:
            return await work

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(waited(), self.loop))

    def restart(self) -> None:
        """The agent ends and another one starts; the kernel is left alone."""
        self.call(self.network.stop())
        self.network = self.call(self._new_network())

    def inputs(self) -> NetworkInputs:
        bed = self.bed
        return NetworkInputs(
            node_id=self.node_id,
            node_number=self.number,
            nodes=[wire.NodeAddress(node_id=h.node_id, number=h.number, address=h.address) for h in bed.hosts],
            networks=dict(bed.networks),
            endpoints=dict(bed.services),
            tasks={t.id: t for t in bed.tasks.values() if t.node_id == self.node_id},
            settled=frozenset(bed.settled),
            dead=frozenset(bed.dead),
        )

    async def apply(self) -> None:
        await self.do(self.network.apply(self.inputs()))

    def close(self) -> None:
        super().close()
        with contextlib.suppress(Exception):
            self.call(self.network.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        if not self._thread.is_alive():
            self.loop.close()


class Bed:
    """The whole. What managers would send is kept here and changed by the tests; `apply` gives it to the hosts."""

    def __init__(self, hosts: int = 3, *, blocks: bool = True) -> None:
        self.prefix = f"psn{os.getpid() % 100000}"
        self.folder = Path(tempfile.mkdtemp(prefix="psn"))
        self.networks: dict[str, pb.Network] = {}
        self.services: dict[str, ep.ServiceEndpoints] = {}
        self.tasks: dict[str, pb.Task] = {}
        self.settled: set[str] = set()
        self.dead: set[str] = set()
        self.containers: dict[str, Place] = {}
        self.servers: dict[str, Server] = {}
        self.hosts: list[Host] = []
        self._made: list[str] = []
        self._descriptors: list[int] = []
        try:
            self._build(hosts)
        except BaseException:
            self.close()
            raise

    def _netns(self, name: str) -> str:
        run("ip", "netns", "add", name)
        self._made.append(name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        return name

    def _build(self, hosts: int) -> None:
        self.switch = self._netns(f"{self.prefix}u")
        run("ip", "-n", self.switch, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self.switch, "link", "set", "br0", "up")
        for number in range(1, hosts + 1):
            address = f"10.90.0.{10 + number}"
            self._plug(self._netns(f"{self.prefix}h{number}"), f"h{number}", address)
            self.hosts.append(Host(self, number, address))
        self.client = Place("client", netns_path(self._netns(f"{self.prefix}c")))
        self._plug(f"{self.prefix}c", "c", CLIENT)
        for network, subnet, vips, vni in (
            ("neta", "10.200.0.0/16", "10.200.0.0/18", 4201),
            ("netb", "10.201.0.0/16", "10.201.0.0/18", 4202),
        ):
            base = subnet.rsplit(".", 2)[0]
            self.networks[network] = pb.Network(
                id=network,
                spec=spec.NetworkSpec(name=network, subnet=subnet),
                vni=vni,
                vip_range=vips,
                blocks=[
                    pb.Block(
                        node_id=h.node_id,
                        node_number=h.number,
                        cidr=f"{base}.{64 + h.number}.0/24",
                        node_address=h.address,
                    )
                    for h in self.hosts
                ],
            )

    def _plug(self, netns: str, port: str, address: str) -> None:
        run("ip", "-n", self.switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", netns)
        run("ip", "-n", self.switch, "link", "set", port, "master", "br0", "up")
        run("ip", "-n", netns, "addr", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", netns, "link", "set", "eth0", "up")

    async def apply(self, *hosts: Host) -> None:
        await asyncio.gather(*(host.apply() for host in hosts or self.hosts))

    def host(self, number: int) -> Host:
        return self.hosts[number - 1]

    async def task(
        self,
        name: str,
        number: int,
        *,
        service: str = "",
        networks: tuple[str, ...] = ("neta",),
        last: int = 5,
        port: int = 80,
        serve: bool = True,
        host_ports: tuple[spec.Port, ...] = (),
    ) -> Place:
        """A running task with a server, on the host of that number, at .LAST of its block."""
        host = self.host(number)
        task_id = name.ljust(25, "0")
        addresses = [
            pb.TaskAddress(
                network_id=n, address=f"{self.networks[n].spec.subnet.rsplit('.', 2)[0]}.{64 + number}.{last}"
            )
            for n in networks
        ]
        self.tasks[name] = pb.Task(
            id=task_id,
            service_id=service,
            service_name=service,
            node_id=host.node_id,
            slot=len(self.tasks) + 1,
            spec=spec.TaskSpec(host_ports=host_ports),
            desired_state=pb.TASK_STATE_RUNNING,
            status=pb.TaskStatus(state=pb.TASK_STATE_RUNNING),
            addresses=addresses,
        )
        await host.do(host.network.links.attach(task_id, [a.address for a in addresses], {}))
        # the pin is in the host's own mounts: reach it by a descriptor
        descriptor = await host.do(_open(host.network.links.path(task_id)))
        self._descriptors.append(descriptor)
        place = Place(name, Path(f"/proc/{os.getpid()}/fd/{descriptor}"))
        self.containers[name] = place
        if serve:
            server = Server(name)
            await server.start(place, "0.0.0.0", port)
            self.servers[name] = server
        return place

    def address(self, name: str, network: str = "neta") -> str:
        return next(a.address for a in self.tasks[name].addresses if a.network_id == network)

    def endpoint(self, name: str, *, leaving: bool = False, weight: int = 1) -> ep.Endpoint:
        task = self.tasks[name]
        return ep.Endpoint(
            task_id=task.id,
            node_id=task.node_id,
            slot=task.slot,
            addresses=task.addresses,
            weight=weight,
            state=ep.ENDPOINT_STATE_LEAVING if leaving else ep.ENDPOINT_STATE_SERVING,
        )

    def service(
        self,
        service_id: str,
        *endpoints: ep.Endpoint,
        vip: str = "",
        published: int = 0,
        target: int = 80,
        network: str = "neta",
        hold: bool = False,
        affinity: bool = False,
    ) -> None:
        ports = [
            spec.Port(protocol=proto, published=published, target=target)
            for proto in (spec.PROTOCOL_TCP, spec.PROTOCOL_UDP)
            if published
        ]
        self.services[service_id] = ep.ServiceEndpoints(
            service_id=service_id,
            name=service_id,
            vips=[pb.Vip(network_id=network, address=vip)] if vip else [],
            ports=ports,
            endpoints=endpoints,
            hold=hold,
            affinity=affinity,
            networks=[spec.NetworkAttachment(network_id=network)],
        )

    def close(self) -> None:
        for server in self.servers.values():
            with contextlib.suppress(Exception):
                server.stop()
        for host in self.hosts:
            with contextlib.suppress(Exception):
                host.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        for name in reversed(self._made):
            run("ip", "netns", "del", name, check=False)
        run("rm", "-rf", str(self.folder), check=False)


async def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def beds(**kwargs: Any) -> Iterator[Bed]:
    bed = Bed(**kwargs)
    try:
        yield bed
    finally:
        bed.close()
