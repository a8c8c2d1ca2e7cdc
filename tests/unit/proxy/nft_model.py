"""A model of the part of nftables that the balancer's batches use: elements of sets and maps, chains. It refuses what
the kernel refuses: deleting what is not there, adding what is there with another value, leading to a chain that is not
there."""

from __future__ import annotations

import re

_ELEMENT = re.compile(r"^(add|delete) element ip pyswarm (\w+) \{ (.*) \}$")
_CHAIN = re.compile(r"^(add|delete|flush) chain ip pyswarm (\w+)( \{.*\})?$")
_RULE = re.compile(r"^add rule ip pyswarm (\w+) (.+)$")


class Refused(Exception):
    pass


class Model:
    def __init__(self) -> None:
        self.elements: dict[tuple[str, str], str] = {}
        self.chains: dict[str, list[str]] = {}

    def take(self, batch: str) -> None:
        """All or nothing."""
        before = dict(self.elements), {name: list(rules) for name, rules in self.chains.items()}
        try:
            for statement in _statements(batch):
                self._take(statement)
            for (name, key), value in self.elements.items():
                if value.startswith(("goto ", "jump ")) and value[5:] not in self.chains:
                    raise Refused(f"{name} {key}: no chain {value[5:]}")
        except Refused:
            self.elements, self.chains = before
            raise

    def _take(self, statement: str) -> None:
        if match := _ELEMENT.match(statement):
            verb, name, text = match.groups()
            for item in text.split(", "):
                key, _, value = item.partition(" : ")
                if verb == "delete":
                    if self.elements.pop((name, key), None) is None:
                        raise Refused(f"{statement}: no such element")
                elif self.elements.get((name, key), value) != value:
                    raise Refused(f"{statement}: another value is there")
                else:
                    self.elements[name, key] = value
        elif match := _CHAIN.match(statement):
            verb, name, _ = match.groups()
            if verb == "add":
                self.chains.setdefault(name, [])
            elif name not in self.chains:
                raise Refused(f"{statement}: no such chain")
            elif verb == "flush":
                self.chains[name].clear()
            else:
                if any(value[5:] == name for value in self.elements.values() if value[:5] in ("goto ", "jump ")):
                    raise Refused(f"{statement}: in use")
                del self.chains[name]
        elif match := _RULE.match(statement):
            name, rule = match.groups()
            if name not in self.chains:
                raise Refused(f"{statement}: no such chain")
            self.chains[name].append(rule)
        elif statement:
            raise Refused(f"not understood: {statement}")


def _statements(batch: str) -> list[str]:
    return re.split(r"; (?=add |delete |flush )", batch)


def whole_elements(text: str) -> dict[tuple[str, str], str]:
    """What a file for `nft -f` puts into sets and maps."""
    found: dict[tuple[str, str], str] = {}
    for line in text.splitlines():
        if match := _ELEMENT.match(line):
            for item in match[3].split(", "):
                key, _, value = item.partition(" : ")
                found[match[2], key] = value
    return found
