"""From values to elements of the ruleset's sets and maps. Pure, and one function for each group that changes as one.

An element's key is (name of the set or map, its text in nft's language), its value the mapped text ("" in a set).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import gcd

from pyswarm_proxy.ruleset import network_chain
from pyswarm_proxy.state import Backend, HostState, LocalTask, Pool, Redirect, Service, flow_mark, return_address

Key = tuple[str, str]
Elements = dict[Key, str]

# A pool of more slots is scaled down: weights of 1000 and 999 would otherwise make 1,999 elements.
MAX_SLOTS = 1024


def slots(backends: Sequence[Backend]) -> list[str]:
    """The addresses of a pool, each as often as its weight says, in the fewest slots that keep the proportions."""
    live = [(b.address, b.weight) for b in backends if b.weight > 0]
    if not live:
        return []
    shared = gcd(*(weight for _, weight in live))
    total = sum(weight for _, weight in live) // shared
    if total > MAX_SLOTS:
        scale = MAX_SLOTS / total
        live = [(address, max(1, round(weight // shared * scale))) for address, weight in live]
        shared = 1
    return [address for address, weight in live for _ in range(weight // shared)]


def service_elements(service: Service) -> Elements:
    out: Elements = {}
    for vip in service.vips:
        _place(out, "vips", "backends", vip.address, vip.pool, "h" if vip.pool.affinity else "v", "")
    for port in service.published:
        key = f"{port.proto.value} . {port.port}"
        _place(out, "ports", "portbackends", key, port.pool, "q" if port.pool.affinity else "p", f" . {port.target}")
        if not port.pool.backends and not port.pool.hold:
            out["refused", key] = ""
    return out


def _place(out: Elements, verdicts: str, backends: str, key: str, pool: Pool, kind: str, suffix: str) -> None:
    addresses = slots(pool.backends)
    if addresses:
        out[verdicts, key] = f"goto {kind}{len(addresses)}"
        for i, address in enumerate(addresses):
            out[backends, f"{key} . {i}"] = address + suffix
    elif pool.hold:
        out[verdicts, key] = "drop"


def redirect_elements(redirect: Redirect) -> Elements:
    address, pool = redirect.address, redirect.pool
    out: Elements = {("late", address): "", ("shut", address): ""}
    _place(out, "leaving", "backends", address, pool, "r", "")
    if not pool.backends and not pool.hold:
        out["closed", address] = ""
    if redirect.dead:
        out["tombs", address] = ""
    return out


def task_elements(task: LocalTask) -> Elements:
    out: Elements = {}
    for address in task.addresses:
        out["accepted", address] = ""
        for other in task.addresses:
            out["selves", f"{address} . {other}"] = ""
    return out


def host_elements(state: HostState) -> Elements:
    """What the networks and the other nodes give."""
    out: Elements = {("nodes", state.address): ""}
    for peer in state.peers:
        out["nodes", peer.address] = ""
        out["zones", peer.mac] = str(peer.number)
    for segment in state.segments:
        out["ranges", segment.subnet] = ""
        out["vipranges", segment.vip_range] = ""
        out["same", segment.subnet] = f"jump {network_chain('same', segment.subnet)}"
        out["inside", f'"{segment.device}"'] = f"goto {network_chain('inside', segment.subnet)}"
        out["sources", f'"{segment.device}"'] = segment.source
        out["vnis", str(segment.vni)] = ""
        for peer in state.peers:
            mark = f"{flow_mark(segment.vni, peer.number):#x}"
            out["marks", f'"{segment.device}" . {peer.mac}'] = mark
            out["returns", mark] = return_address(segment.vni, peer.number)
    return out


def chains_in(elements: Iterable[str]) -> set[str]:
    """The shared chains that these values lead to."""
    return {value[5:] for value in elements if value.startswith(("goto ", "jump "))}
