"""The name server on loopback, with a resolver of the test's own behind it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from dnslib import QTYPE, RCODE, RR, TXT, A, DNSHeader, DNSQuestion, DNSRecord
from tests.unit.agent.dns.test_dns_table import API, DB, FRONT, WEB, inputs, service, task

from pyswarm_agent.dns.server import DnsServer
from pyswarm_agent.dns.upstream import ResolvConf, parse
from pyswarm_core.errors import PreconditionFailed

ASKER = "127.0.0.7"  # a task's address, for these tests


class Resolver(asyncio.DatagramProtocol):
    """Knows example.com; `silent` and `code` make it bad in other ways."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.silent = False
        self.code = RCODE.NXDOMAIN
        self.transport: asyncio.DatagramTransport | None = None
        self.big = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def reply(self, data: bytes, *, tcp: bool) -> bytes:
        query = DNSRecord.parse(data)
        self.asked.append(("tcp " if tcp else "") + str(query.q.qname))
        reply = DNSRecord(DNSHeader(id=query.header.id, qr=1, ra=1), q=query.q)
        if str(query.q.qname) == "example.com.":
            reply.add_answer(RR("example.com", QTYPE.A, rdata=A("192.0.2.1")))
        elif str(query.q.qname) == "big.example.com.":
            for i in range(20):
                reply.add_answer(RR("big.example.com", QTYPE.TXT, rdata=TXT(f"{i}" * 60)))
        else:
            reply.header.rcode = self.code
        packed: bytes = reply.pack()
        return packed

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if not self.silent and self.transport is not None:
            self.transport.sendto(self.reply(data, tcp=False), addr)

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        reply = self.reply(data, tcp=True)
        writer.write(len(reply).to_bytes(2, "big") + reply)
        await writer.drain()
        writer.close()


class Net:
    def __init__(self, server: DnsServer, port: int, resolver: Resolver) -> None:
        self.server, self.port, self.resolver = server, port, resolver

    async def ask(self, name: str, qtype: str = "A", *, source: str = ASKER, edns: bool = False) -> DNSRecord:
        query = DNSRecord.question(name, qtype)
        if edns:
            from dnslib import EDNS0

            query.add_ar(EDNS0(udp_len=4096))
        reply = DNSRecord.parse(await self.raw(query.pack(), source))
        assert reply.header.id == query.header.id and reply.header.qr
        return reply

    async def raw(self, data: bytes, source: str = ASKER, timeout: float = 5.0) -> bytes:
        got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        class Client(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: object) -> None:
                if not got.done():
                    got.set_result(data)

        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            Client, local_addr=(source, 0), remote_addr=("127.0.0.1", self.port)
        )
        try:
            transport.sendto(data)
            return await asyncio.wait_for(got, timeout)
        finally:
            transport.close()

    async def ask_tcp(self, *names: str, qtype: str = "A") -> list[DNSRecord]:
        """All on one connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(ASKER, 0))
        replies = []
        for name in names:
            data = DNSRecord.question(name, qtype).pack()
            writer.write(len(data).to_bytes(2, "big") + data)
            replies.append(
                DNSRecord.parse(await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big")))
            )
        writer.close()
        return replies


def answers(reply: DNSRecord) -> list[str]:
    return sorted(str(rr.rdata) for rr in reply.rr)


@pytest_asyncio.fixture
async def net() -> AsyncIterator[Net]:
    loop = asyncio.get_running_loop()
    resolver = Resolver()
    transport, _ = await loop.create_datagram_endpoint(lambda: resolver, local_addr=("127.0.0.2", 0))
    upstream_port = transport.get_extra_info("sockname")[1]
    tcp = await asyncio.start_server(resolver.stream, "127.0.0.2", upstream_port)
    server = DnsServer(lambda: ("127.0.0.2",), "127.0.0.1", 0, upstream_port=upstream_port)
    port = await server.start()
    server.update(inputs(WEB, API, DB, tasks={"a": task("a", front=ASKER), "b": task("b", back="127.0.0.8")}))
    yield Net(server, port, resolver)
    await server.close()
    transport.close()
    tcp.close()


async def test_names_of_the_cluster(net: Net) -> None:
    assert answers(await net.ask("web")) == ["10.1.0.2"]
    assert answers(await net.ask("tasks.web")) == ["10.1.64.2", "10.1.64.3"]
    reply = await net.ask("web", "AAAA")
    assert reply.header.rcode == RCODE.NOERROR and not reply.rr
    assert answers(await net.ask("2.0.1.10.in-addr.arpa", "PTR")) == ["Web."]
    reply = await net.ask("77.0.2.10.in-addr.arpa", "PTR")
    assert reply.header.rcode == RCODE.NXDOMAIN
    reply = await net.ask("_80._tcp.web", "SRV")
    assert answers(reply) == ["0 1 80 Web.1.", "0 1 80 Web.2."]
    assert sorted(str(rr.rdata) for rr in reply.ar) == ["10.1.64.2", "10.1.64.3"]
    assert not net.resolver.asked, "nothing of ours leaks"


async def test_the_same_question_from_another_network(net: Net) -> None:
    assert answers(await net.ask("db", source="127.0.0.8")) == ["10.2.0.2"]
    assert (await net.ask("db")).header.rcode == RCODE.NXDOMAIN
    assert (await net.ask("web", source="127.0.0.9")).header.rcode == RCODE.REFUSED
    assert answers(await net.ask("web", source="127.0.0.1")) == ["10.1.0.2"], "the host itself"


async def test_everything_else_is_for_the_hosts_resolvers(net: Net) -> None:
    assert answers(await net.ask("example.com")) == ["192.0.2.1"]
    assert (await net.ask("unknown")).header.rcode == RCODE.NXDOMAIN
    assert net.resolver.asked == ["example.com.", "unknown."]
    assert [answers(r) for r in await net.ask_tcp("example.com", "web")] == [["192.0.2.1"], ["10.1.0.2"]]
    assert net.resolver.asked[-1] == "tcp example.com."


async def test_a_large_answer_is_for_tcp(net: Net) -> None:
    reply = await net.ask("big.example.com", "TXT")
    assert reply.header.tc
    (whole,) = await net.ask_tcp("big.example.com", qtype="TXT")
    assert len(whole.rr) == 20
    many = service("many")
    for i in range(100):
        endpoint = many.endpoints.add(task_id=f"m{i}", task_name=f"many.{i}")
        endpoint.addresses.add(network_id=FRONT, address=f"10.1.65.{i}")
    net.server.update(inputs(many, tasks={"a": task("a", front=ASKER)}))
    assert (await net.ask("many")).header.tc
    reply = await net.ask("many", edns=True)
    assert not reply.header.tc and len(reply.rr) == 100
    (whole,) = await net.ask_tcp("many")
    assert len(whole.rr) == 100


async def test_the_order_of_many_changes(net: Net) -> None:
    seen = {tuple(str(rr.rdata) for rr in (await net.ask("tasks.web")).rr) for _ in range(40)}
    assert len(seen) == 2


async def test_resolvers_that_fail(net: Net) -> None:
    net.resolver.code = RCODE.SERVFAIL
    assert (await net.ask("other.example")).header.rcode == RCODE.SERVFAIL
    net.resolver.silent = True
    assert (await net.ask("example.com")).header.rcode == RCODE.SERVFAIL


async def test_a_resolver_that_is_down_is_passed_over() -> None:
    loop = asyncio.get_running_loop()
    resolver = Resolver()
    transport, _ = await loop.create_datagram_endpoint(lambda: resolver, local_addr=("127.0.0.2", 0))
    port = transport.get_extra_info("sockname")[1]
    server = DnsServer(lambda: ("127.0.0.3", "127.0.0.2"), "127.0.0.1", 0, upstream_port=port)
    mine = await server.start()
    server.update(inputs(tasks={"a": task("a", front=ASKER)}))
    net = Net(server, mine, resolver)
    assert answers(await net.ask("example.com")) == ["192.0.2.1"]
    own = task("a", front=ASKER)
    own.spec.container.dns.servers.append("127.0.0.3")
    server.update(inputs(tasks={"a": own}))
    assert (await net.ask("example.com")).header.rcode == RCODE.SERVFAIL, "its own servers and no others"
    await server.close()
    transport.close()


async def test_without_resolvers() -> None:
    server = DnsServer(lambda: ("127.0.0.1",), "127.0.0.1", 0)  # its own address is no resolver
    net = Net(server, await server.start(), Resolver())
    server.update(inputs(tasks={"a": task("a", front=ASKER)}))
    assert (await net.ask("unknown")).header.rcode == RCODE.NXDOMAIN
    assert (await net.ask("example.com")).header.rcode == RCODE.SERVFAIL
    await server.close()


@pytest.mark.parametrize(
    "data",
    [b"", b"x", b"\x00" * 11, random.Random(1).randbytes(40), bytes.fromhex("000101000001") + b"\xff" * 30],
    ids=range(5),
)
async def test_rubbish_is_ignored(net: Net, data: bytes) -> None:
    with pytest.raises(TimeoutError):
        await net.raw(data, timeout=0.05)
    assert answers(await net.ask("web")) == ["10.1.0.2"]


async def test_odd_questions(net: Net) -> None:
    two = DNSRecord(DNSHeader(id=5), questions=[DNSQuestion("web"), DNSQuestion("api")])
    assert DNSRecord.parse(await net.raw(two.pack())).header.rcode == RCODE.NOTIMP
    with pytest.raises(TimeoutError):
        await net.raw(DNSRecord(DNSHeader(id=5, qr=1), q=DNSQuestion("web")).pack(), timeout=0.05)


async def test_a_port_that_is_taken(net: Net) -> None:
    with pytest.raises(PreconditionFailed, match=r"cannot listen on 127\.0\.0\.1"):
        await DnsServer(tuple, "127.0.0.1", net.port).start()


def test_resolv_conf(tmp_path: Path) -> None:
    text = (
        "# c\nnameserver 10.0.0.1 # x\nnameserver 10.0.0.2\nsearch a.example.\nsearch b.example c.example\nnameserver\n"
    )
    assert parse(text) == (("10.0.0.1", "10.0.0.2"), ("b.example", "c.example"))
    now = [0.0]
    path = tmp_path / "resolv.conf"
    conf = ResolvConf(path, lambda: now[0])
    assert conf.servers() == ()
    path.write_text(text)
    assert conf.servers() == (), "it looks once a second"
    now[0] += 2
    assert conf.servers() == ("10.0.0.1", "10.0.0.2") and conf.search() == ("b.example", "c.example")
    path.write_text("nameserver 10.0.0.9\n")
    now[0] += 2
    assert conf.servers() == ("10.0.0.9",)
