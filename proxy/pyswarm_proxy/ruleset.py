"""The text of the table: chains, sets and maps that are the same on every host. All that varies is in elements.

The order of the hooks is the design. A packet's way: raw (frames of nobody's go, a flow's zone is set by its entry
host), nat (a peer's flow is marked; redirects, VIPs, published ports), back (a reply of a marked flow is sent by way of
its peer), the graves (what a dead task's clients still send is reset), forward or input (who may talk to whom), nat
again (masquerade where it cannot be avoided), and the door, which counts what should not have happened.

A reply goes by way of its peer by being given, while its route is looked up, an address that stands for the peer: a
plain route and a plain neighbour do the rest. Rules for routing by mark would do it too, but the first one makes every
look-up of the whole host slower, for good.
"""

from __future__ import annotations

from dataclasses import dataclass

from pyswarm_proxy.state import (
    GROUP,
    GROUP_MASK,
    LINK_GROUP,
    MARK_MASK,
    MARK_PEER,
    MARK_SOURCE,
    PEER_GROUP,
    RETURN_RANGE,
    SourceChecks,
)

TABLE = "ip pyswarm"
VXLAN_PORT = 4789

# Same seed on all hosts: with affinity, a client reaches the same backend whichever host it enters by.
AFFINITY_SEED = 0x79

# A port that answered within this time does not refuse: a task that dies between two looks of its agent costs its
# client a retransmission, not a refused connection. After it, a closed port is as closed as anywhere.
LISTENING_SECONDS = 3

# How many owners in a row may redirect one flow. Each passes it on with a TTL lower by one; 5 and less is dropped.
PASSED_ON = 5

# Devices are matched by their group, a number, and not by their name: it is three times as fast, and on every packet.
_LINK = f"{LINK_GROUP:#x}"
_PEER = f"{PEER_GROUP:#x}"
_OURS = f"& {GROUP_MASK:#x} == {GROUP:#x}"
_NOT_OURS = f"& {GROUP_MASK:#x} != {GROUP:#x}"
_IS_MARKED = f"ct mark & {MARK_MASK:#x} == {MARK_PEER:#x}"
_GIVE_BACK = f"ip daddr {RETURN_RANGE} ip daddr set ct original ip saddr"


def base(gateway: str, address: str, checks: SourceChecks) -> str:
    """The whole of table `ip pyswarm` without elements. `gateway`: the host end of every task's link; `address`: this
    node's on the underlay."""
    source = f"meta mark set {MARK_SOURCE:#x}" if checks.mark_peers else ""
    spoofed = f"iifgroup {_LINK} fib saddr . iif oif 0 drop" if checks.tasks else ""
    return f"""table {TABLE} {{
 ct timeout brief {{ protocol tcp; l3proto ip; policy = {{ time_wait : 10 }}; }}

 set ranges {{ type ipv4_addr; flags interval; }}
 set vipranges {{ type ipv4_addr; flags interval; }}
 map same {{ typeof ip saddr : verdict; flags interval; }}
 map inside {{ typeof iifname : verdict; }}
 set nodes {{ typeof ip saddr; }}
 set vnis {{ typeof @th,96,24; }}
 map zones {{ typeof ether saddr : ct zone; }}
 map marks {{ typeof iifname . ether saddr : ct mark; }}
 map returns {{ typeof ct mark : ip daddr; }}
 map sources {{ typeof oifname : ip saddr; }}

 map vips {{ typeof ip daddr : verdict; }}
 map backends {{ typeof ip daddr . numgen random mod 65536 : ip daddr; }}
 map ports {{ typeof meta l4proto . th dport : verdict; }}
 map portbackends {{ typeof meta l4proto . th dport . numgen random mod 65536 : ip daddr . tcp dport; }}
 set refused {{ typeof meta l4proto . th dport; }}

 map leaving {{ typeof ip daddr : verdict; }}
 set shut {{ typeof ip daddr; }}
 set closed {{ typeof ip daddr; }}
 set late {{ typeof ip daddr; counter; }}
 set tombs {{ typeof ip daddr; }}

 set selves {{ typeof ip saddr . ip daddr; }}
 set accepted {{ typeof ip daddr; counter; }}
 set listening {{ typeof ip saddr . tcp sport; size 65535; flags dynamic,timeout; timeout {LISTENING_SECONDS}s; }}

 chain refuse {{
  meta l4proto tcp reject with tcp reset
  reject with icmp port-unreachable
 }}
 chain forbid {{
  reject with icmp admin-prohibited
 }}

 # A flow is one of its entry host: the same client by two of them is two. Frames of nobody's are dropped.
 chain raw {{
  type filter hook prerouting priority raw;
  iifgroup {_PEER} goto raw_peer
  {spoofed}
  meta l4proto udp goto raw_udp
 }}
 chain raw_peer {{
  ct original zone set ether saddr map @zones accept
  drop
 }}
 # A datagram that fits the underlay but not the overlay may be split: its sender would only learn of it by losing the
 # first one. (Senders give what they forbid to split no number of its own; the pieces need one.)
 chain raw_udp {{
  udp dport {VXLAN_PORT} ip daddr {address} goto raw_vxlan
  ip frag-off & 0x4000 == 0 accept
  ip length <= 1280 accept
  fib daddr type != local accept
  ip id set numgen random mod 65536
  ip frag-off set 0
 }}
 # The outer packets of the overlay: tracking them would tell nothing and costs on each one.
 chain raw_vxlan {{
  ip saddr @nodes notrack accept
  @th,96,24 @vnis drop
 }}
 chain raw_out {{
  type filter hook output priority raw;
  udp dport {VXLAN_PORT} ip daddr @nodes notrack
 }}

 chain nat_pre {{
  type nat hook prerouting priority dstnat;
  iifgroup {_LINK} goto nat_link
  iifgroup {_PEER} goto nat_peer
  fib daddr type local meta l4proto . th dport vmap @ports
 }}
 chain nat_link {{
  ct timeout set "brief"
  ip daddr vmap @leaving
  ip daddr vmap @vips
  fib daddr type local meta l4proto . th dport vmap @ports
  ip daddr @nodes meta l4proto . th dport vmap @ports
 }}
 # Every new flow from a peer is marked, whoever the client is: a reply must pass the host that changed its addresses.
 chain nat_peer {{
  ct timeout set "brief"
  ct mark set iifname . ether saddr map @marks
  ip daddr vmap @leaving
  fib daddr type local meta l4proto . th dport vmap @ports
 }}
 # After nat, which would take the address back of a reply whose port it had to change.
 chain back {{
  type filter hook prerouting priority -90;
  {_IS_MARKED} goto marked
 }}
 chain marked {{
  ct direction reply goto reply
  {source}
 }}
 # A peer that is no more: nobody else can do anything with its replies.
 chain reply {{
  ip daddr set ct mark map @returns accept
  drop
 }}
 chain nat_out {{
  type nat hook output priority -100;
  ip saddr {gateway} accept
  ip daddr @closed goto refuse
  ip daddr vmap @leaving
  ip daddr vmap @vips
  ip daddr @vipranges goto refuse
  fib daddr type local meta l4proto . th dport vmap @ports
 }}
 # Like all nat chains it sees the first packet of a flow alone. The agent's own probes do not count.
 chain nat_post {{
  type nat hook postrouting priority srcnat;
  ip saddr != {gateway} meta l4proto tcp ip daddr @shut drop
  ip saddr != {gateway} ip daddr @accepted
  ip saddr @ranges oifgroup {_NOT_OURS} oifname != "lo" masquerade
  ct status & dnat == 0 accept
  ip saddr 127.0.0.0/8 oifgroup {_PEER} snat to oifname map @sources
  ip saddr 127.0.0.0/8 oifgroup {_LINK} snat to {gateway}
  ip saddr . ip daddr @selves snat to {gateway}
 }}

 chain forward {{
  type filter hook forward priority filter;
  ct status & assured != 0 oifgroup != {_PEER} accept
  ct state established,related goto known
  iifgroup {_OURS} ct state invalid drop
  oifgroup {_OURS} ct state invalid drop
  ip daddr @closed goto refuse
  meta l4proto tcp ip daddr @shut drop
  iifgroup {_LINK} goto from_task
  iifgroup {_PEER} goto from_peer
  oifgroup {_OURS} ct status & dnat == 0 drop
 }}
 chain known {{
  oifgroup {_PEER} {_GIVE_BACK}
  ct status & assured == 0 iifgroup {_LINK} jump young
  accept
 }}
 # Until data has passed both ways.
 chain young {{
  tcp flags & (syn | ack | rst) == (syn | ack) update @listening {{ ip saddr . tcp sport }}
  tcp flags & rst != 0 ct direction reply goto refusal
 }}
 chain refusal {{
  ip saddr @tombs drop
  ip saddr . tcp sport @listening drop
 }}
 chain from_task {{
  ip saddr vmap @same
  ct status & dnat != 0 ct original ip daddr != @ranges accept
  ip daddr @ranges goto forbid
  ip daddr @nodes goto forbid
 }}
 chain from_peer {{
  ip saddr 127.0.0.0/8 drop
  # Owners that redirect to each other would do so for ever. A flow may be passed on a few times, though: where several
  # tasks leave one after the other, each owner knows of the later ones a little later.
  oifgroup {_PEER} ct status & dnat != 0 ip ttl > {PASSED_ON + 5} ip ttl set {PASSED_ON + 5}
  iifname vmap @inside
  drop
 }}

 # 127/8, which route_localnet lets in, ends here too.
 chain input {{
  type filter hook input priority filter;
  iifgroup {_OURS} goto input_ours
  ct state new meta l4proto . th dport @refused goto refuse
 }}
 chain input_ours {{
  ct state established,related accept
  iifgroup {_LINK} ip daddr {gateway} udp dport 53 accept
  iifgroup {_LINK} ip daddr {gateway} tcp dport 53 accept
  icmp type echo-request accept
  meta l4proto . th dport @refused goto refuse
  iifgroup {_LINK} goto forbid
  drop
 }}
}}
"""


@dataclass(frozen=True, slots=True)
class OnDemand:
    """Chains that are there only while one of the sets has elements: they would cost every packet a look-up."""

    sets: frozenset[str]
    chains: tuple[str, ...]
    text: str  # its lines are statements

    def statements(self, gateway: str) -> list[str]:
        return self.text.replace("GATEWAY", gateway).splitlines()


ON_DEMAND = (
    # What is established with a task that died is reset, for nobody else would.
    OnDemand(
        frozenset({"tombs"}),
        ("graves",),
        f"""add chain {TABLE} graves {{ type filter hook prerouting priority -50; }}
add rule {TABLE} graves ip daddr @tombs ct state established,new meta l4proto tcp reject with tcp reset
""",
    ),
    # What we say in a task's place goes by way of the peer, as its own words do.
    OnDemand(
        frozenset({"tombs", "closed"}),
        ("back_out", "give_back"),
        f"""add chain {TABLE} back_out {{ type route hook output priority -90; }}
add rule {TABLE} back_out {_IS_MARKED} ct direction reply goto reply
add chain {TABLE} give_back {{ type filter hook output priority filter; }}
add rule {TABLE} give_back {_GIVE_BACK}
""",
    ),
    # What reaches a task though its owner has said that it leaves: after everything else, so that nothing is missed.
    OnDemand(
        frozenset({"late"}),
        ("door",),
        f"""add chain {TABLE} door {{ type filter hook postrouting priority 300; }}
add rule {TABLE} door ct state != new accept
add rule {TABLE} door meta l4proto tcp ct original ip saddr != GATEWAY ip daddr @late
""",
    ),
)


def containers(text: str, *, counted: bool) -> list[tuple[str, str]]:
    """("set" or "map", name) of all that are filled by us (the kernel fills the others), with those that count or
    not."""
    kept = (line for line in text.splitlines() if " dynamic" not in line and (counted or " counter;" not in line))
    lines = (line.split() for line in kept)
    return [(words[0], words[1]) for words in lines if words and words[0] in ("set", "map")]


def chain(name: str) -> str:
    """One of the chains shared by all places with N slots, as one line that may follow others.

    v: a VIP, h: a VIP with affinity, r: a leaving task, p: a published port, q: a published port with affinity.
    Or one of a network, in whose name its range stands: same_10_1_0_0_16, inside_10_1_0_0_16.
    """
    if "_" in name:
        return _network_chain(name)
    kind, slots = name[0], int(name[1:])
    pick = f"jhash ip saddr mod {slots} seed {AFFINITY_SEED:#x}" if kind in "hq" else f"numgen random mod {slots}"
    rules = ['ct timeout set "brief"']
    if kind == "r":
        rules.append("ip ttl < 6 drop")
    if kind in "pq":
        for proto in ("tcp", "udp"):
            rules.append(f"meta l4proto {proto} dnat ip to meta l4proto . th dport . {pick} map @portbackends")
    else:
        rules.append(f"dnat ip to ip daddr . {pick} map @backends")
    return "; ".join([f"add chain {TABLE} {name}"] + [f"add rule {TABLE} {name} {rule}" for rule in rules])


def network_chain(what: str, subnet: str) -> str:
    """`what` "same": from a task of the network; "inside": from its VXLAN device."""
    return f"{what}_{subnet.replace('.', '_').replace('/', '_')}"


def _network_chain(name: str) -> str:
    """Not sets of pairs of ranges, though it would be shorter: when such a set is replaced the kernel answers "not in
    it" for some microseconds, and new connections are lost."""
    what, *numbers = name.split("_")
    subnet = f"{'.'.join(numbers[:4])}/{numbers[4]}"
    rules = {
        "same": [f"ip daddr != {subnet} return", "ip daddr @vipranges goto refuse", "accept"],
        "inside": [f"ip daddr {subnet} accept", "drop"],
    }[what]
    return "; ".join([f"add chain {TABLE} {name}"] + [f"add rule {TABLE} {name} {rule}" for rule in rules])
