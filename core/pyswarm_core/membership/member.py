"""What a member is: its place in the cluster, kept in /etc/pyswarm/node.json, which is written last. Pure, but for
reading and writing that file."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from pyswarm_core import files
from pyswarm_core.errors import InvalidInput, PreconditionFailed

API_PORT, JOIN_PORT, ETCD_PORT, ETCD_PEER_PORT = 2377, 2378, 2379, 2380
MANAGER_METRICS_PORT, AGENT_METRICS_PORT = 9377, 9378
ETC = Path("/etc/pyswarm")
DATA = Path("/var/lib/pyswarm")
RUN = Path("/run/pyswarm")
RECORD = ETC / "node.json"


# Hidden from a hardened unit, or gone after a reboot.
_NO_PLACE_FOR_DATA = ("/home", "/root", "/tmp", "/var/tmp", "/run", "/dev", "/proc", "/sys")


def check_data_dir(path: str) -> str:
    """Raises InvalidInput. A unit, a shell and mount options take it as it is, without quotes."""
    if not re.fullmatch(r"(/[A-Za-z0-9][A-Za-z0-9._-]*)+", path):
        raise InvalidInput(
            f"'{path}' cannot be the data folder: name an absolute path of letters, digits, '.', '_' and '-'"
        )
    for place in _NO_PLACE_FOR_DATA:
        if path == place or path.startswith(f"{place}/"):
            raise InvalidInput(f"'{path}' cannot be the data folder: daemons do not see {place}, or it is not kept")
    return path


def check_metrics_host(address: str) -> str:
    """Raises InvalidInput."""
    try:
        return str(ipaddress.IPv4Address(address))
    except ValueError:
        raise InvalidInput(
            f"metrics cannot listen on '{address}': name an IPv4 address of this host, or 0.0.0.0 for all of them"
        ) from None


@dataclass(frozen=True, slots=True)
class Member:
    node_id: str
    role: str  # manager or worker
    address: str  # IPv4, by which other hosts reach this one
    hostname: str
    managers: tuple[str, ...]  # HOST:PORT of the API
    etcd: tuple[str, ...] = ()  # HOST:PORT; managers only, its own among them
    data_dir: str = str(DATA)
    context: str = "/root/.config/pyswarm/contexts/default"  # folder of root's for the command line, on a manager
    metrics_host: str = "127.0.0.1"  # IPv4, where its daemons' metrics listen

    @property
    def daemons(self) -> tuple[str, ...]:
        """In the order in which they start."""
        return ("etcd", "manager", "agent") if self.role == "manager" else ("agent",)

    def as_manager(self, managers: Sequence[str], etcd: Sequence[str]) -> Member:
        """This host as one more beside those. Its own etcd is its last: it does not answer before it has caught up."""
        own = f"{self.address}:{ETCD_PORT}"
        return replace(
            self,
            role="manager",
            managers=tuple(dict.fromkeys((*managers, f"{self.address}:{API_PORT}"))),
            etcd=(*(endpoint for endpoint in etcd if endpoint != own), own),
        )


def load(path: Path = RECORD) -> Member | None:
    """None: this host is no member. PreconditionFailed: its record makes no sense."""
    try:
        document = json.loads(path.read_text())
        known = {field.name for field in fields(Member)}  # a later version's record may have more
        lists = {name: tuple(document[name]) for name in ("managers", "etcd")}
        return Member(**{**{key: value for key, value in document.items() if key in known}, **lists})
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        raise PreconditionFailed(
            f"{path} cannot be read as this host's membership; mend it, or remove it with 'pyswarm leave --force'"
        ) from None


def save(member: Member, path: Path = RECORD) -> None:
    files.put(path, json.dumps(asdict(member), indent=2) + "\n")


def follow(managers: tuple[str, ...], path: Path = RECORD) -> Member | None:
    """Who manages the cluster has changed: the record says so from now on. Returns it; None: there is none."""
    found = load(path)
    if found is not None and found.managers != managers:
        found = replace(found, managers=managers)
        save(found, path)
    return found


def refuse_members() -> None:
    """Raises PreconditionFailed on a host that is in a cluster already."""
    found = load()
    if found is not None:
        raise PreconditionFailed(
            f"this host is in a cluster already, as the {found.role} {found.node_id}; nothing was changed. 'pyswarm "
            "node ls' shows the cluster, 'pyswarm leave' takes the host out of it"
        )
