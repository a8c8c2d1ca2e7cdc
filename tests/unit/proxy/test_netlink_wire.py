from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from pyswarm_proxy import conntrack
from pyswarm_proxy.netlink import wire


@given(st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=40)), max_size=8))
def test_attributes_survive_the_way_there_and_back(pairs: list[tuple[int, bytes]]) -> None:
    data = b"".join(wire.attr(kind, payload) for kind, payload in pairs)
    assert [(kind, bytes(payload)) for kind, payload in wire.each_attr(memoryview(data))] == pairs
    assert len(data) % 4 == 0


@given(st.binary(max_size=64))
def test_garbage_ends_the_walk_and_nothing_else(data: bytes) -> None:
    list(wire.each_attr(memoryview(data)))
    list(wire.messages(memoryview(data)))


def _tuple(source: str, destination: str, proto: int) -> bytes:
    ip = wire.nest(1, wire.ipv4(1, source), wire.ipv4(2, destination))
    return ip + wire.nest(2, wire.u8(1, proto), wire.be16(2, 4000), wire.be16(3, 80))


def test_a_flow_is_read_as_the_kernel_tells_it() -> None:
    body = struct.pack("=BBH", 2, 0, 0)
    body += wire.nest(1, _tuple("10.0.0.9", "10.90.0.11", 6)) + wire.nest(2, _tuple("10.1.64.5", "10.0.0.9", 6))
    body += wire.be32(3, 0x1 << 1 | 1 << 2) + wire.nest(4, wire.nest(1, wire.u8(1, 3))) + wire.be32(12, 77)
    flow = conntrack._parse(body)
    assert flow is not None
    assert (flow.proto, flow.client, flow.server, flow.tcp_state) == (6, "10.0.0.9", "10.1.64.5", 3)
    assert flow.replied and flow.assured
    assert flow.handle == wire.nest(1, _tuple("10.0.0.9", "10.90.0.11", 6)) + wire.be32(12, 77)
    assert conntrack._parse(struct.pack("=BBH", 2, 0, 0)) is None
