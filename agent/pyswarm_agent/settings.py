"""The agent's settings, read once from its command line."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pyswarm_core.errors import InvalidInput
from pyswarm_core.membership.member import RECORD

MANAGER_PORT = 2377
ROLES = ("worker", "manager")


@dataclass(frozen=True, slots=True)
class Settings:
    """The node's id is the common name of its certificate in `tls_dir`. Raises InvalidInput for what cannot be."""

    managers: tuple[str, ...]  # HOST:PORT or HOST
    tls_dir: Path = Path("/etc/pyswarm/tls")  # ca.pem, cert.pem, key.pem
    record: Path = RECORD  # of this host's membership, by `init` or `join`; it may be missing
    data_dir: Path = Path("/var/lib/pyswarm")  # agent/ (journal), images/, tasks/, volumes/: survives a reboot
    run_dir: Path = Path("/run/pyswarm")  # netns/, containers/: does not
    address: str = ""  # underlay IPv4 by which other nodes reach this host; "" = the one that leads to the managers
    hostname: str = ""  # "" = the host's own
    labels: Mapping[str, str] = field(default_factory=dict)  # used when the node registers for the first time
    role: str = "worker"  # or manager: what this host is registered as
    metrics_addr: str = "127.0.0.1:9378"  # HOST:PORT; "" = no metrics
    runtime: str = ""  # OCI runtime: a name or path; "" = crun, else runc
    log_level: str = "info"  # debug, info, warning, error

    def __post_init__(self) -> None:
        if not self.managers:
            raise InvalidInput("no manager is named: give --managers HOST:PORT[,HOST:PORT…]")
        for manager in self.managers:
            _check_endpoint(with_port(manager), "manager")
        if self.metrics_addr:
            _check_endpoint(self.metrics_addr, "metrics address")
        if self.address:
            try:
                ipaddress.IPv4Address(self.address)
            except ValueError:
                raise InvalidInput(f"'{self.address}' is not an IPv4 address of this host") from None
        if self.role not in ROLES:
            raise InvalidInput(f"unknown role '{self.role}': use one of {', '.join(ROLES)}")

    @property
    def manager_endpoints(self) -> tuple[str, ...]:
        return tuple(with_port(manager) for manager in self.managers)


def with_port(endpoint: str) -> str:
    """HOST becomes HOST:2377."""
    return endpoint if ":" in endpoint else f"{endpoint}:{MANAGER_PORT}"


def split_endpoint(endpoint: str) -> tuple[str, int]:
    host, _, port = endpoint.rpartition(":")
    return host, int(port)


def _check_endpoint(endpoint: str, what: str) -> None:
    host, _, port = endpoint.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidInput(f"the {what} '{endpoint}' is not HOST:PORT")
