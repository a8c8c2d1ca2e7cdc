"""What a lab consists of: names, addresses and paths. Pure, but for loading and saving itself, and reading its hosts'
records of membership."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pyswarm_core import files
from pyswarm_core.errors import InvalidInput, NotFound
from pyswarm_core.membership import member
from pyswarm_core.membership.member import API_PORT

ROOT = Path("/var/lib/pyswarm/lab")
FIRST_OCTET = 90
LAST_OCTET = 127
MAX_HOSTS = 50
REGISTRY_NAME = "registry.lab"
REGISTRY_PORT = 5000


@dataclass(frozen=True, slots=True)
class Host:
    number: int  # from 1
    address: str
    is_manager: bool  # since the lab was made; 'node promote' and 'node demote' do not count
    folder: Path
    link: str  # the machine's end of its cable

    @property
    def name(self) -> str:
        return f"host-{self.number}"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def etc(self) -> Path:
        """The upper layer of the host's /etc."""
        return self.folder / "etc"

    @property
    def member(self) -> member.Member | None:
        """What `init` or `join` has made of it, as it is now."""
        return member.load(self.etc / "pyswarm" / member.RECORD.name)

    @property
    def node_id(self) -> str:
        """NotFound: it is in no cluster."""
        if (found := self.member) is None:
            raise NotFound(f"{self.name} is in no cluster")
        return found.node_id

    @property
    def daemons(self) -> tuple[str, ...]:
        """In the order in which they start."""
        return found.daemons if (found := self.member) is not None else ()


@dataclass(frozen=True, slots=True)
class Lab:
    name: str
    octet: int  # 10.<octet>.0.0/16
    host_count: int
    manager_count: int
    former_context: str = ""

    @property
    def folder(self) -> Path:
        return ROOT / self.name

    @property
    def gateway(self) -> str:
        """The machine's own address on the lab's bridge; the registry is there."""
        return f"10.{self.octet}.0.1"

    @property
    def bridge(self) -> str:
        return f"pslab{self.octet}"

    @property
    def table(self) -> str:
        return f"pyswarm_lab_{self.octet}"

    @property
    def hosts(self) -> tuple[Host, ...]:
        return tuple(
            Host(
                number=n,
                address=f"10.{self.octet}.0.{10 + n}",
                is_manager=n <= self.manager_count,
                folder=self.folder / "hosts" / f"host-{n}",
                link=f"pl{self.octet}h{n}",
            )
            for n in range(1, self.host_count + 1)
        )

    @property
    def managers(self) -> tuple[Host, ...]:
        return tuple(h for h in self.hosts if h.is_manager)

    @property
    def manager_addresses(self) -> tuple[str, ...]:
        return tuple(f"{h.address}:{API_PORT}" for h in self.managers)

    @property
    def registry(self) -> str:
        return f"{REGISTRY_NAME}:{REGISTRY_PORT}"

    def host(self, name: str) -> Host:
        for host in self.hosts:
            if host.name == name:
                return host
        known = ", ".join(h.name for h in self.hosts)
        raise NotFound(f"lab {self.name} has no host '{name}'; its hosts are {known}")

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        files.put(self.folder / "lab.json", json.dumps(asdict(self)))


def check(name: str, hosts: int, managers: int) -> None:
    """Raises InvalidInput."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,30}", name):
        raise InvalidInput(f"'{name}' cannot name a lab: use up to 31 lower-case letters, digits and inner hyphens")
    if not 1 <= hosts <= MAX_HOSTS:
        raise InvalidInput(f"a lab has 1 to {MAX_HOSTS} hosts, not {hosts}")
    if managers not in (1, 3, 5):
        raise InvalidInput(f"a lab has 1, 3 or 5 managers, not {managers}: an even number survives no more failures")
    if managers > hosts:
        raise InvalidInput(f"{managers} managers need at least {managers} hosts; add --hosts {managers}")


def load(name: str) -> Lab:
    """Raises NotFound."""
    try:
        return Lab(**json.loads((ROOT / name / "lab.json").read_text()))
    except FileNotFoundError:
        others = ", ".join(lab.name for lab in existing())
        hint = f"; running labs: {others}" if others else "; start one with 'pyswarm lab up'"
        raise NotFound(f"there is no lab '{name}'{hint}") from None


def existing() -> list[Lab]:
    if not ROOT.is_dir():
        return []
    return [load(d.name) for d in sorted(ROOT.iterdir()) if (d / "lab.json").is_file()]


@contextmanager
def lock() -> Iterator[None]:
    """One lab comes or goes at a time: they choose addresses. The lock file goes with the last lab's folder."""
    ROOT.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(ROOT, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def free_octet(taken: set[int]) -> int:
    for octet in range(FIRST_OCTET, LAST_OCTET + 1):
        if octet not in taken:
            return octet
    raise InvalidInput("too many labs are running on this machine; end one with 'pyswarm lab down --name NAME'")


def need_root() -> None:
    if os.geteuid() != 0:
        raise InvalidInput("a lab is made of network and mount namespaces and needs root: run it with sudo")
