"""What is in the kernel as groups of elements, and the one-line batch that turns it into what is wanted. Pure.

Two groups may want the same key for a moment (a port moves from one service to another, and the news of it arrives in
two parts): the group whose name is smaller has it, and the other gets it when that one lets go. So the outcome depends
on the groups alone and not on the order in which they came.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pyswarm_proxy import ruleset
from pyswarm_proxy.elements import Elements, Key, chains_in
from pyswarm_proxy.state import SourceChecks

_TABLE = ruleset.TABLE


class Table:
    """Elements by group. `replace` changes what is wanted; `batch` says it in nft's language, and takes it as done."""

    def __init__(self, gateway: str, address: str, checks: SourceChecks) -> None:
        """As of `ruleset.base`."""
        self._gateway = gateway
        self._address = address
        self._checks = checks
        self._groups: dict[str, Elements] = {}
        self._rivals: dict[Key, set[str]] = {}  # groups that want a key, where there is more than one
        self._owner: dict[Key, str] = {}
        self._chains: set[str] = set()
        self._before: dict[Key, str | None] = {}  # touched keys → their value in the kernel
        # elements of the sets that need chains of their own, and which of these are in the kernel
        self._count = dict.fromkeys((name for demand in ruleset.ON_DEMAND for name in demand.sets), 0)
        self._there: set[ruleset.OnDemand] = set()

    def __contains__(self, group: str) -> bool:
        return group in self._groups

    def groups(self) -> Iterable[str]:
        return self._groups.keys()

    def elements(self) -> Elements:
        """All that is wanted; each key once."""
        return {key: self._groups[owner][key] for key, owner in self._owner.items()}

    def value(self, key: Key) -> str | None:
        owner = self._owner.get(key)
        return None if owner is None else self._groups[owner][key]

    def replace(self, group: str, elements: Mapping[Key, str] | None) -> None:
        """The group's elements from now on; None or nothing: it is gone."""
        old = self._groups.get(group, {})
        new = dict(elements or {})
        if old == new:
            return
        for key in old.keys() | new.keys():
            if old.get(key) == new.get(key) and (key in old) == (key in new):
                continue
            self._before.setdefault(key, self.value(key))
            if key in new:
                self._claim(key, group)
            else:
                self._give_up(key, group)
        if new:
            self._groups[group] = new
        else:
            self._groups.pop(group, None)

    def _claim(self, key: Key, group: str) -> None:
        owner = self._owner.get(key)
        if owner is None:
            self._owner[key] = group
            if key[0] in self._count:
                self._count[key[0]] += 1
        elif owner != group:
            self._rivals.setdefault(key, {owner}).add(group)
            self._owner[key] = min(owner, group)

    def _give_up(self, key: Key, group: str) -> None:
        rivals = self._rivals.get(key)
        if rivals is None:
            del self._owner[key]
            if key[0] in self._count:
                self._count[key[0]] -= 1
            return
        rivals.discard(group)
        self._owner[key] = min(rivals)
        if len(rivals) == 1:
            del self._rivals[key]

    def batch(self) -> str:
        """One line, one transaction; "" when there is nothing to do. After it `elements()` is what the kernel has."""
        gone: dict[str, list[str]] = {}
        come: dict[str, list[str]] = {}
        values: list[str] = []
        for key, before in self._before.items():
            after = self.value(key)
            if before == after:
                continue
            if before is not None:
                gone.setdefault(key[0], []).append(key[1])
            if after is not None:
                come.setdefault(key[0], []).append(f"{key[1]} : {after}" if after else key[1])
                values.append(after)
        self._before.clear()
        parts = [ruleset.chain(name) for name in sorted(chains_in(values) - self._chains)]
        self._chains |= chains_in(values)
        parts += [f"delete element {_TABLE} {name} {{ {', '.join(keys)} }}" for name, keys in gone.items()]
        parts += [f"add element {_TABLE} {name} {{ {', '.join(keys)} }}" for name, keys in come.items()]
        for name in sorted(self._networks_left(gone)):
            self._chains.discard(name)
            parts += [f"flush chain {_TABLE} {name}", f"delete chain {_TABLE} {name}"]
        for demand in ruleset.ON_DEMAND:
            if self._demanded(demand) and demand not in self._there:
                parts += demand.statements(self._gateway)
                self._there.add(demand)
            elif demand in self._there and not self._demanded(demand):
                for name in demand.chains:
                    parts += [f"flush chain {_TABLE} {name}", f"delete chain {_TABLE} {name}"]
                self._there.discard(demand)
        return "; ".join(parts)

    def _demanded(self, demand: ruleset.OnDemand) -> bool:
        return any(self._count[name] for name in demand.sets)

    def _networks_left(self, gone: Mapping[str, object]) -> set[str]:
        """Chains of networks that this host has no more. (Those for N slots stay: there are few.)"""
        if not gone.keys() & {"same", "inside"}:
            return set()
        used = chains_in(value for key, value in self.elements().items() if key[0] in ("same", "inside"))
        return {name for name in self._chains if "_" in name} - used

    def whole(self, *, anew: bool, recount: bool = True) -> str:
        """All of the table, in place of what is there, as one transaction for `nft -f`.

        `anew=False` empties the table that is there and fills it again, which no connection notices; it is refused when
        the table has other sets than it should. `anew=True` deletes it first: of the connections that begin in that
        moment, one in some hundreds must send its SYN again. `recount=False` keeps the counters, where the table is not
        made anew.
        """
        self._before.clear()
        elements = self.elements()
        self._chains = chains_in(elements.values())
        base = ruleset.base(self._gateway, self._address, self._checks)
        lines = [f"add table {_TABLE}"]
        if anew:
            lines += [f"delete table {_TABLE}", f"add table {_TABLE}"]
        else:
            lines.append(f"flush table {_TABLE}")
            lines += [f"flush {kind} {_TABLE} {name}" for kind, name in ruleset.containers(base, counted=recount)]
        # nft sends the elements of a map of ranges along with the map: what they lead to must be there by then
        lines += [f"add chain {_TABLE} {name}" for name in sorted(self._chains)]
        lines.append(base)
        lines += [line for name in sorted(self._chains) for line in ruleset.chain(name).split("; ")]
        by_name: dict[str, list[str]] = {}
        for (name, key), value in elements.items():
            by_name.setdefault(name, []).append(f"{key} : {value}" if value else key)
        for name, keys in by_name.items():
            # a statement of 50,000 elements is slower to parse than fifty of a thousand
            for at in range(0, len(keys), 1000):
                lines.append(f"add element {_TABLE} {name} {{ {', '.join(keys[at : at + 1000])} }}")
        for demand in ruleset.ON_DEMAND:
            lines += demand.statements(self._gateway)
            if not self._demanded(demand):
                lines += [f"delete chain {_TABLE} {name}" for name in demand.chains]
        self._there = {demand for demand in ruleset.ON_DEMAND if self._demanded(demand)}
        return "\n".join(lines) + "\n"
