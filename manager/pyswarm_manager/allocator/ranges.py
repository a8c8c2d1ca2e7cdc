"""The arithmetic of a network's range, on plain integers: the standard library's address objects cost microseconds
each, and the scheduler hands out tens of thousands of addresses a second.

A network's subnet has four quarters. The first is for VIPs; the other three are cut into blocks, one or more for each
node: /24 where the subnet is /20 or larger, else a sixteenth of the subnet, so that twelve nodes fit into any.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network

from pyswarm_core.errors import InvalidInput

LARGEST_PREFIX = 26  # a /26 has 12 blocks of /30: a node's own address and three tasks each
SMALLEST_PREFIX = 8
_BLOCK_PREFIX = 24


def to_int(address: str) -> int:
    a, b, c, d = address.split(".")
    return int(a) << 24 | int(b) << 16 | int(c) << 8 | int(d)


def to_text(address: int) -> str:
    return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


@dataclass(frozen=True, slots=True)
class Range:
    """`size` addresses from `first` on."""

    first: int
    size: int

    @property
    def prefix(self) -> int:
        return 33 - self.size.bit_length()

    @property
    def cidr(self) -> str:
        return f"{to_text(self.first)}/{self.prefix}"

    def __contains__(self, address: int) -> bool:
        return self.first <= address < self.first + self.size

    def overlaps(self, other: Range) -> bool:
        return self.first < other.first + other.size and other.first < self.first + self.size


@lru_cache(maxsize=65536)
def parse_range(cidr: str) -> Range:
    """InvalidInput when it is no IPv4 CIDR, or has bits set behind its prefix."""
    try:
        network = IPv4Network(cidr, strict=False)
    except ValueError as error:
        raise InvalidInput(f"{cidr!r} is not an IPv4 range: write it as 10.20.0.0/16.") from error
    if "/" not in cidr:
        raise InvalidInput(f"{cidr!r} has no prefix length: write it as 10.20.0.0/16.")
    if cidr.split("/")[0] != str(network.network_address):
        raise InvalidInput(f"{cidr} begins inside its range: write {network}.")
    return Range(int(network.network_address), network.num_addresses)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a network's subnet is divided. Block `i` begins at `blocks.first + i * block_size`."""

    subnet: Range
    vips: Range
    blocks: Range
    block_size: int

    @property
    def block_count(self) -> int:
        return self.blocks.size // self.block_size

    def block(self, index: int) -> Range:
        return Range(self.blocks.first + index * self.block_size, self.block_size)

    def index_of(self, address: int) -> int:
        """Of the block that an address is in; negative for a VIP's."""
        return (address - self.blocks.first) // self.block_size


@lru_cache(maxsize=4096)
def layout(subnet: str) -> Layout:
    whole = parse_range(subnet)
    quarter = whole.size // 4
    block_size = 1 << (32 - max(_BLOCK_PREFIX, whole.prefix + 4))
    return Layout(
        subnet=whole,
        vips=Range(whole.first, quarter),
        # Three quarters are no power of two: `blocks` is a span, never printed as CIDR.
        blocks=Range(whole.first + quarter, whole.size - quarter),
        block_size=block_size,
    )
