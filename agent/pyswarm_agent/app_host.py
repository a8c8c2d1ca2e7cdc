"""What this host is: its name, size, kernel and addresses, as the managers are told."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from importlib import metadata
from pathlib import Path

from pyswarm_agent.settings import Settings, split_endpoint
from pyswarm_core.errors import PreconditionFailed
from pyswarm_core.scrape.http import reachable
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_SIOCGIFADDR = 0x8915
DEFAULT_MTU = 1500


def platform() -> spec.Platform:
    machine = os.uname().machine
    return spec.Platform(
        os="linux",
        architecture=_ARCHITECTURES.get(machine, machine),
        variant="v7" if machine == "armv7l" else "",
    )


def description(hostname: str, address: str, runtime: str, metrics_addr: str = "") -> pb.NodeDescription:
    return pb.NodeDescription(
        hostname=hostname,
        platform=platform(),
        nano_cpus=len(os.sched_getaffinity(0)) * 1_000_000_000,
        memory=memory_total(Path("/proc/meminfo").read_text()),
        version=version(),
        kernel=os.uname().release,
        runtime=runtime,
        mtu=underlay_mtu(address),
        metrics_address=reachable(metrics_addr, address),
    )


def version() -> str:
    try:
        return metadata.version("pyswarm-orchestrator")
    except metadata.PackageNotFoundError:
        return "0"


def memory_total(meminfo: str) -> int:
    """Bytes."""
    for line in meminfo.splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return 0


def hostname_of(settings: Settings) -> str:
    return settings.hostname or socket.gethostname()


def address_of(settings: Settings) -> str:
    """The underlay address: as set, else the source of packets to a manager. Raises PreconditionFailed."""
    if settings.address:
        return settings.address
    for endpoint in settings.manager_endpoints:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
                probe.connect(split_endpoint(endpoint))  # sends nothing
                found: str = probe.getsockname()[0]
        except OSError:
            continue
        if not found.startswith("127."):
            return found
    raise PreconditionFailed("this host's address cannot be told from the way to the managers: give it with --address")


def underlay_mtu(address: str) -> int:
    """Of the device that has the address."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as any_socket:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(any_socket, _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                try:
                    return int(Path(f"/sys/class/net/{name}/mtu").read_text())
                except (OSError, ValueError):
                    return DEFAULT_MTU
    return DEFAULT_MTU
