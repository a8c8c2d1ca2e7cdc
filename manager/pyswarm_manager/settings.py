"""The manager's settings: read once, by whoever starts it, and handed to `app.run`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pyswarm_core.errors import InvalidInput
from pyswarm_manager.allocator.networks import parse_pool

METRICS_ADDRESS = "127.0.0.1:9377"


@dataclass(frozen=True, slots=True)
class Settings:
    """Addresses are HOST:PORT. InvalidInput, from the constructor, for what cannot be."""

    manager_id: str  # the id of this host's node: its certificate's common name
    advertise: str  # where agents, clients and other managers reach this one
    etcd_endpoints: tuple[str, ...]
    listen: str = "0.0.0.0:2377"
    join_listen: str = ""  # where hosts with a join token come: by custom, the port after `listen`'s; "" = nowhere
    tls_dir: Path = Path("/etc/pyswarm/tls")
    etcd_tls_dir: Path | None = None  # None: tls_dir
    member_tls_dir: Path | None = None  # of the etcd member on this host: renewed with the manager's own
    data_dir: Path = Path("/var/lib/pyswarm/manager")
    metrics_addr: str = METRICS_ADDRESS  # plain HTTP; "" = none
    address_pool: str = "10.128.0.0/10"  # CIDR that networks get their ranges from; the same on all managers
    lease_ttl: int = 5  # seconds that a leader that died is still the leader
    heartbeat_period: float = 5.0  # seconds
    node_down_after: float = 15.0  # seconds without any message from its agent
    node_grace: float = 15.0  # seconds that all nodes have, when a manager begins to lead, to connect to it
    apply_within: float = 10.0  # seconds; an agent that takes longer to apply endpoints is not waited for
    compact_every: float = 300.0  # seconds
    keep_revisions: int = 10_000  # of history in etcd, for watches to resume from
    log_level: str = "info"

    def __post_init__(self) -> None:
        if not self.manager_id:
            raise InvalidInput("The manager has no id: give it the common name of its certificate.")
        if not self.etcd_endpoints:
            raise InvalidInput("No etcd endpoint is given: name one or more as HOST:PORT.")
        for what, address in (("advertised", self.advertise), ("listening", self.listen)):
            split_address(address, what)
        for what, address in (("metrics", self.metrics_addr), ("joining", self.join_listen)):
            if address:
                split_address(address, what)
        parse_pool(self.address_pool)
        if self.lease_ttl < 2:
            raise InvalidInput(f"A lease of {self.lease_ttl} s is too short: etcd takes 2 s or more.")


def split_address(address: str, what: str) -> tuple[str, int]:
    """(host, port). InvalidInput: it is not HOST:PORT."""
    host, colon, port = address.rpartition(":")
    if not host or not colon or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise InvalidInput(f"The {what} address {address!r} is not HOST:PORT.")
    return host, int(port)
