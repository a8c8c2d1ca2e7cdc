"""The best host next: spread over the values of node labels first, then over hosts.

A heap for each branch of the preferences' tree, so that a placement costs O(log hosts), not a look at each host.
Order at the leaves: fewest tasks of this service, then the least loaded host, then the host's id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heapreplace

from pyswarm_core.errors import InvalidInput
from pyswarm_manager.scheduler.hosts import Host

Entry = tuple[int, int, int, Host]  # (slots of this service, load, place in the order of ids, host)

_PREFERENCE = "spread=node.labels."


def parse_preference(text: str) -> str:
    """The label's name. InvalidInput for anything but `spread=node.labels.X`."""
    compact = text.replace(" ", "")
    label = compact[len(_PREFERENCE) :]
    if not compact.lower().startswith(_PREFERENCE) or not label:
        raise InvalidInput(f"Placement preference {text!r} is not understood: write it as spread=node.labels.zone.")
    return label


def labels_of(preferences: Sequence[str]) -> tuple[str, ...]:
    """Those of a stored spec; one that cannot be parsed (the API refuses those) is no preference."""
    labels = []
    for text in preferences:
        try:
            labels.append(parse_preference(text))
        except InvalidInput:
            continue
    return tuple(labels)


class Leaf:
    """Hosts, as a heap."""

    __slots__ = ("heap",)

    def __init__(self, entries: list[Entry]) -> None:
        self.heap = entries
        heapify(self.heap)

    def best(self) -> Entry | None:
        return self.heap[0] if self.heap else None

    def placed(self, stays: bool) -> None:
        """The best host got one more task; `stays`: it may get another."""
        if stays:
            count, load, index, host = self.heap[0]
            heapreplace(self.heap, (count + 1, load + 1, index, host))
        else:
            heappop(self.heap)

    def drop(self) -> None:
        """The best host turned out to take none."""
        heappop(self.heap)


class Branch:
    """Label values, as a heap of (tasks of this service under it, value, the tree under it)."""

    __slots__ = ("heap",)

    def __init__(self, entries: list[tuple[int, str, Leaf | Branch]]) -> None:
        self.heap = entries
        heapify(self.heap)

    def best(self) -> Entry | None:
        while self.heap:
            found = self.heap[0][2].best()
            if found is not None:
                return found
            heappop(self.heap)
        return None

    def placed(self, stays: bool) -> None:
        """A host that takes no more goes, and what it has still counts for its branch."""
        count, value, under = self.heap[0]
        under.placed(stays)
        heapreplace(self.heap, (count + 1, value, under))

    def drop(self) -> None:
        self.heap[0][2].drop()


def tree(
    candidates: Sequence[Host],
    counts: Mapping[str, int],
    leaving_load: Mapping[str, int],
    labels: Sequence[str],
    everywhere: Mapping[str, Host],
) -> Leaf | Branch:
    """`counts`: tasks of this service by host id, also on hosts that are no candidates: they count for their branch.
    `leaving_load`: tasks to be left out of a host's load. Ties go to the host that comes first in `candidates`."""
    if not labels:
        if not counts and not leaving_load:
            return Leaf([(0, host.load, index, host) for index, host in enumerate(candidates)])
        return Leaf(
            [
                (counts.get(host.id, 0), host.load - leaving_load.get(host.id, 0), index, host)
                for index, host in enumerate(candidates)
            ]
        )
    label, rest = labels[0], labels[1:]
    members: dict[str, list[Host]] = {}
    for host in candidates:
        members.setdefault(host.node.spec.labels.get(label, ""), []).append(host)
    all_members: dict[str, dict[str, Host]] = {value: {} for value in members}
    for host in everywhere.values():
        value = host.node.spec.labels.get(label, "")
        if value in all_members:
            all_members[value][host.id] = host
    entries: list[tuple[int, str, Leaf | Branch]] = []
    for value, hosts in members.items():
        under = tree(hosts, counts, leaving_load, rest, all_members[value])
        total = sum(counts.get(host_id, 0) for host_id in all_members[value])
        entries.append((total, value, under))
    return Branch(entries)
