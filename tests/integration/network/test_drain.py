"""A task leaves, or dies, while connections come in all the time by hosts that have not heard of it."""

from __future__ import annotations

import asyncio
import contextlib

from tests.integration.network.bed import Bed
from tests.integration.network.load import eventually, load

VIP = "10.200.0.10"


async def _web(bed: Bed, *numbers: int) -> None:
    for number in numbers:
        await bed.task(f"web{number}", number, service="web")
    for number in (1, 2, 3):
        await bed.task(f"idle{number}", number, last=6, serve=False)
    bed.service("web", *(bed.endpoint(f"web{n}") for n in numbers), vip=VIP, published=8080)
    await bed.apply()


def _leave(bed: Bed, name: str) -> None:
    others = [t for t in bed.tasks if t.startswith("web") and t != name]
    bed.tasks[name].leaving = True
    bed.service("web", *(bed.endpoint(t) for t in others), bed.endpoint(name, leaving=True), vip=VIP, published=8080)


async def test_a_task_leaves_under_load_though_no_entry_host_is_ever_updated(bed: Bed) -> None:
    await _web(bed, 1, 2, 3)
    task = bed.tasks["web2"].id
    owner = bed.host(2)
    ways = [
        (bed.client, "10.90.0.11", 8080),
        (bed.client, "10.90.0.12", 8080),
        (bed.client, "10.90.0.13", 8080),
        (bed.containers["idle1"], VIP, 80),
        (bed.containers["idle2"], VIP, 80),
        (bed.host(1), VIP, 80),
        (bed.host(3), "127.0.0.1", 8080),
    ]
    async with load(*ways) as running:
        await running.until(500)
        assert not await owner.do(owner.network.drained(task)) or running.answers["web2"]
        _leave(bed, "web2")
        await bed.apply(owner)  # and nobody else
        redirected = bed.servers["web2"].connections
        await running.until(2000)
        late = bed.servers["web2"].connections - redirected
        await eventually(lambda: owner.do(owner.network.drained(task)))
        figures = await owner.do(owner.network.drain_figures(task))
    assert running.failures == []
    assert late <= 3  # what was in the server's own accept queue when `apply` returned
    assert figures.late_connections == 0
    assert figures.redirected_at > 0
    assert owner.network.redirected() == {task: figures.redirected_at}
    assert figures.open_connections == 0
    assert running.slowest < 8  # nobody hung until TCP tried again and again


async def test_an_open_connection_lives_on_and_keeps_the_task_from_being_drained(bed: Bed) -> None:
    await _web(bed, 1, 2)
    owner, task = bed.host(2), bed.tasks["web2"].id
    streams = []
    for _ in range(20):  # by an entry host that is not the owner
        sock = bed.client.tcp_socket()
        await asyncio.get_running_loop().sock_connect(sock, ("10.90.0.11", 8080))
        streams.append(await asyncio.open_connection(sock=sock))
    mine = []
    for reader, writer in streams:
        writer.write(b"x\n")
        if (await reader.readline()).startswith(b"web2"):
            mine.append((reader, writer))
        else:
            writer.close()
    assert 0 < len(mine) < 20
    _leave(bed, "web2")
    await bed.apply()
    assert not await owner.do(owner.network.drained(task))
    figures = await owner.do(owner.network.drain_figures(task))
    assert figures.open_connections == len(mine)
    for reader, writer in mine:
        writer.write(b"y" * 200 + b"\n")
        assert await reader.readline() == b"y" * 200 + b"\n"
    assert not await owner.do(owner.network.drained(task))
    for _, writer in mine:
        writer.close()
    await eventually(lambda: owner.do(owner.network.drained(task)))
    assert (await owner.do(owner.network.drain_figures(task))).resets == 0


async def test_a_task_that_dies_costs_one_retransmission(bed: Bed) -> None:
    """Its server vanishes under load; the owner notices a little later, the entry hosts never."""
    await _web(bed, 1, 2)
    owner, task = bed.host(2), bed.tasks["web2"].id
    ways = [(bed.client, "10.90.0.11", 8080), (bed.client, "10.90.0.12", 8080), (bed.containers["idle1"], VIP, 80)]
    async with load(*ways) as running:
        await running.until(300)
        bed.servers["web2"].stop()
        await asyncio.sleep(0.02)  # an agent is told by the kernel; this is longer than it takes
        await owner.do(owner.network.task_died(task))
        before = running.answers["web2"]
        await running.until(600)
        assert running.answers["web2"] <= before + 9
    refused = [f for f in running.failures if "Refused" in f]
    assert refused == []
    # a connection that was open when the server died is reset, once for each client that had one
    assert len(running.failures) <= 9, running.failures
    assert running.slowest < 8  # nobody hung until TCP tried again and again


async def test_an_established_connection_to_a_dead_task_is_reset_at_once(bed: Bed) -> None:
    await _web(bed, 1, 2)
    owner, task = bed.host(2), bed.tasks["web2"].id
    for place, address, port in ((bed.client, "10.90.0.11", 8080), (bed.containers["idle2"], VIP, 80)):
        while True:
            sock = place.tcp_socket()
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
            reader, writer = await asyncio.open_connection(sock=sock)
            writer.write(b"x\n")
            if (await reader.readline()).startswith(b"web2"):
                break
            writer.close()
        # its namespace is gone as a whole: nothing of its kernel answers any more
        if place is bed.client:
            bed.tasks["web2"].status.state = 704  # FAILED
            bed.dead.add(task)
            await owner.do(owner.network.task_died(task))
        if place is bed.client:
            await owner.do(owner.network.links.detach(task))
        writer.write(b"still there?\n")
        with contextlib.suppress(ConnectionError):  # it is told, and does not repeat itself for minutes
            assert await asyncio.wait_for(reader.read(100), 15) == b""
        break


async def test_without_endpoints_a_service_holds_or_refuses(bed: Bed) -> None:
    await _web(bed, 1)
    ways = [(bed.client, "10.90.0.12", 8080), (bed.containers["idle2"], VIP, 80), (bed.host(3), "127.0.0.1", 8080)]
    bed.service("web", vip=VIP, published=8080, hold=False)
    await bed.apply()
    for place, address, port in ways:
        assert await place.outcome(address, port) == "refused"
        assert await place.outcome(address, port, proto="udp") == "refused"
    bed.service("web", vip=VIP, published=8080, hold=True)
    await bed.apply()
    waits = [asyncio.create_task(place.ask(address, port, timeout=5)) for place, address, port in ways]
    await asyncio.sleep(0.3)
    assert not any(w.done() for w in waits)
    bed.service("web", bed.endpoint("web1"), vip=VIP, published=8080)
    await bed.apply()
    for answer in await asyncio.gather(*waits):
        assert answer.startswith("web1")


async def test_the_last_task_leaves(bed: Bed) -> None:
    """Nothing to redirect to: new connections wait, or are refused, but never reach it."""
    await _web(bed, 2)
    owner, task = bed.host(2), bed.tasks["web2"].id
    bed.tasks["web2"].leaving = True
    for hold, outcome in ((True, "timeout"), (False, "refused")):
        bed.service("web", bed.endpoint("web2", leaving=True), vip=VIP, published=8080, hold=hold)
        await bed.apply(owner)
        before = bed.servers["web2"].connections
        for place, address, port in (
            (bed.client, "10.90.0.11", 8080),  # not updated
            (bed.client, "10.90.0.12", 8080),
            (bed.containers["idle1"], VIP, 80),
            (bed.containers["idle2"], VIP, 80),
            (bed.containers["idle2"], bed.address("web2"), 80),
        ):
            assert await place.outcome(address, port) == outcome, (hold, place.name, address)
        assert bed.servers["web2"].connections == before
    assert (await owner.do(owner.network.drain_figures(task))).late_connections == 0


async def test_datagrams_move_when_a_task_is_released(bed: Bed) -> None:
    await _web(bed, 1, 2)
    owner, task = bed.host(2), bed.tasks["web2"].id
    loop = asyncio.get_running_loop()

    async def talk(sock) -> str:  # type: ignore[no-untyped-def]
        await loop.sock_sendall(sock, b"x")
        return (await asyncio.wait_for(loop.sock_recv(sock, 100), 2)).decode().split()[0]

    while True:
        sock = bed.client.udp_socket()
        await loop.sock_connect(sock, ("10.90.0.11", 8080))
        if await talk(sock) == "web2":
            break
        sock.close()
    assert await talk(sock) == "web2"
    _leave(bed, "web2")
    await bed.apply(owner)
    assert await talk(sock) == "web2"  # its flow lives on
    await owner.do(owner.network.release(task))
    assert await talk(sock) == "web1"
    sock.close()


async def test_two_owners_that_redirect_to_each_other_do_not_loop(bed: Bed) -> None:
    await _web(bed, 1, 2)
    _leave(bed, "web1")
    await bed.apply(bed.host(1))
    _leave(bed, "web2")
    bed.tasks["web1"].leaving = False
    bed.service("web", bed.endpoint("web1"), bed.endpoint("web2", leaving=True), vip=VIP, published=8080)
    await bed.apply(bed.host(2))

    assert await bed.client.outcome("10.90.0.13", 8080, timeout=1.5) == "timeout"
    said = bed.host(1).exec("ip", "-s", "link", "show", "psx4201")
    sent = int(said.splitlines()[-1].split()[1])
    assert sent < 60, said
