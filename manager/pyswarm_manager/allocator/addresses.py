"""Task addresses: which are taken, which comes next, and new blocks for nodes.

An address is taken from the moment a task has it until `addresses_free` is set, terminal or not. **Oldest free first**,
without storing a cursor (that would rewrite the Network, and send it to every node, with each task):

1. Of the addresses nobody in the store remembers, the next one after the block's most recent hand-out, wrapping
   around. The most recent hand-out is the address of the block's task with the latest `created_at` (ties: the higher
   address), whether or not that task still holds it.
2. When all free ones are remembered by finished tasks, the one whose last holder ended first (`status.at`).

When history is pruned, an address may come again sooner than by true age: that is no danger (it was free, so every node
had confirmed), only less spread.

A block's first address is the node's own. Network and broadcast addresses are not special: all are routed /32s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.allocator.ranges import Layout, layout, parse_range, to_int, to_text
from pyswarm_manager.plan import World, changed


class Addresses:
    """One planning run's view of all addresses: reads the world once, and remembers what the run has handed out."""

    def __init__(self, world: World) -> None:
        self._networks = world.networks
        self._nodes = world.nodes
        self._pools: dict[str, _Pool | None] = {}
        self._memory: dict[str, list[pb.Task]] = {}
        for task in world.tasks.values():
            for held in task.addresses:
                self._memory.setdefault(held.network_id, []).append(task)

    def _pool(self, network_id: str) -> _Pool | None:
        """Made when first asked for: most runs touch few of the networks."""
        if network_id not in self._pools:
            network = self._networks.get(network_id)
            self._pools[network_id] = (
                None
                if network is None or network.removing
                else _Pool(network, self._nodes, self._memory.get(network_id, ()))
            )
        return self._pools[network_id]

    def take(self, network_ids: Sequence[str], node: pb.Node) -> list[tuple[str, str]] | str:
        """One address of this node in each network, as (network id, address); or, and then nothing is taken, the id of
        the first network that has none left for this node (or that is unknown or being removed)."""
        blocks: list[_Block] = []
        for network_id in network_ids:
            pool = self._pools.get(network_id) or self._pool(network_id)
            block = pool.block_for(node) if pool is not None else None
            if block is None:
                return network_id
            blocks.append(block)
        if len(blocks) == 1:  # nearly always: worth a tenth of a placement's time
            return [(network_ids[0], blocks[0].take())]
        return [(network_id, block.take()) for network_id, block in zip(network_ids, blocks, strict=True)]

    def refresh(self, network_id: str) -> None:
        """This network's blocks are compared with the nodes as they are now, and differences written."""
        self._pool(network_id)

    def held_networks(self) -> frozenset[str]:
        """Ids of those in which a task holds an address."""
        return frozenset(
            network_id for network_id, tasks in self._memory.items() if any(not task.addresses_free for task in tasks)
        )

    def changed_networks(self) -> list[pb.Network]:
        """Copies of the networks whose blocks changed, by id. A new block that nothing was taken from is not kept."""
        pools = [pool for _, pool in sorted(self._pools.items()) if pool is not None]
        return [pool.result() for pool in pools if pool.is_changed()]


class _Pool:
    """One network: its blocks, and what is known about every address.

    A block of a node that was removed is taken back when no task holds an address in it; where a node's underlay
    address changed, its blocks follow.
    """

    __slots__ = (
        "_cursors",
        "_ended",
        "_kept",
        "_layout",
        "_network",
        "_new",
        "_next_index",
        "_of_node",
        "_stale",
        "_taken",
        "_used",
    )

    def __init__(self, network: pb.Network, nodes: Mapping[str, pb.Node], tasks: Iterable[pb.Task]) -> None:
        """`tasks`: all that have, or had, an address of this network."""
        self._network = network
        self._layout: Layout = layout(network.spec.subnet)
        self._taken: set[int] = set()
        self._ended: dict[int, float] = {}
        self._cursors: dict[int, tuple[float, int]] = {}  # block's index → (created_at, address) of the latest hand-out
        self._of_node: dict[str, list[_Block]] = {}
        self._new: list[_Block] = []
        self._used: set[int] = set()
        self._next_index = 0
        for task in tasks:
            ended = task.status.at if task.addresses_free else None
            for held in task.addresses:
                if held.network_id == network.id:
                    self._remember(to_int(held.address), task.created_at, ended)
        self._kept: list[pb.Block] = []
        self._stale = False
        held_blocks = {self._layout.index_of(address) for address in self._taken}
        for block in network.blocks:
            index = self._layout.index_of(parse_range(block.cidr).first)
            self._next_index = index + 1
            node = nodes.get(block.node_id)
            if node is None and index not in held_blocks:
                self._stale = True
                continue
            if node is not None and not block_is_current(block, node):
                self._stale = True
                block = make_block(self._layout, index, node)
            self._kept.append(block)
            self._used.add(index)
            self._of_node.setdefault(block.node_id, []).append(_Block(self, index, None))

    def _remember(self, address: int, created_at: float, ended: float | None) -> None:
        """A task has (ended is None) or had this address."""
        if ended is None:
            self._taken.add(address)
        elif ended > self._ended.get(address, -1.0):
            self._ended[address] = ended
        index = self._layout.index_of(address)
        latest = self._cursors.get(index)
        if latest is None or (created_at, address) > latest:
            self._cursors[index] = (created_at, address)

    def block_for(self, node: pb.Node) -> _Block | None:
        """The node's first block with a free address, a new one if it has none, None if there is no room for one."""
        blocks = self._of_node.get(node.id)
        if blocks is None:
            blocks = self._of_node[node.id] = []
        for block in blocks:
            if block.has_room():
                return block
        index = self._free_index()
        if index is None:
            return None
        block = _Block(self, index, node)
        self._used.add(index)
        self._next_index = index + 1
        blocks.append(block)
        self._new.append(block)
        return block if block.has_room() else None

    def _free_index(self) -> int | None:
        """The next unused block after the one given last, wrapping around."""
        count = self._layout.block_count
        if len(self._used) >= count:
            return None
        index = self._next_index % count
        while index in self._used:
            index = (index + 1) % count
        return index

    def is_changed(self) -> bool:
        return self._stale or any(block.in_use for block in self._new)

    def result(self) -> pb.Network:
        network = changed(self._network)
        del network.blocks[:]
        network.blocks.extend(self._kept)
        for block in self._new:
            if block.in_use and block.node is not None:
                network.blocks.append(make_block(self._layout, block.index, block.node))
        return network

    def block_state(self, index: int) -> tuple[set[int], dict[int, float], int, int, int]:
        """For a block: taken, ended, its first address, its size, and the latest hand-out (its first if none)."""
        first = self._layout.blocks.first + index * self._layout.block_size
        latest = self._cursors.get(index)
        return self._taken, self._ended, first, self._layout.block_size, latest[1] if latest else first


class _Block:
    """One block while it is being handed out. Looks at its addresses only when it is first used."""

    __slots__ = (
        "_ended",
        "_first",
        "_last",
        "_pool",
        "_prefix",
        "_size",
        "_taken",
        "_upcoming",
        "in_use",
        "index",
        "node",
    )

    def __init__(self, pool: _Pool, index: int, node: pb.Node | None) -> None:
        self.index = index
        self.node = node  # set for a new block
        self.in_use = False
        self._pool: _Pool | None = pool
        self._upcoming = -1  # -1: not known; 0: the block is full

    def has_room(self) -> bool:
        if self._upcoming < 0:
            if self._pool is not None:
                self._taken, self._ended, self._first, self._size, self._last = self._pool.block_state(self.index)
                self._prefix = to_text(self._first).rpartition(".")[0] + "."
                self._pool = None
            self._upcoming = self._find()
        return self._upcoming > 0

    def take(self) -> str:
        """The next address; only after `has_room` said yes."""
        address = self._upcoming
        self._taken.add(address)
        self._last = address
        self._upcoming = -1
        self.in_use = True
        return f"{self._prefix}{address & 255}"  # a block is a /24 or smaller

    def _find(self) -> int:
        taken, ended, first, size = self._taken, self._ended, self._first, self._size
        offset = self._last - first
        oldest, oldest_end = 0, 0.0
        for step in range(1, size + 1):
            address = first + (offset + step) % size
            if address == first or address in taken:
                continue
            end = ended.get(address)
            if end is None:
                return address
            if oldest == 0 or end < oldest_end:
                oldest, oldest_end = address, end
        return oldest


def block_is_current(block: pb.Block, node: pb.Node) -> bool:
    return block.node_address == node.address and block.node_number == node.number


def make_block(of: Layout, index: int, node: pb.Node) -> pb.Block:
    return pb.Block(node_id=node.id, node_number=node.number, cidr=of.block(index).cidr, node_address=node.address)
