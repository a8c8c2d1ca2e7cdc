"""What a node needs from the machine around it: a clock that agrees with others', links wide enough, room for flows."""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

from pyswarm_cli.system.result import Result

VXLAN_OVERHEAD = 50  # bytes of each packet between hosts
LEAST_MTU = 1280 + VXLAN_OVERHEAD
_EARLIEST = 1_700_000_000  # Unix seconds: a clock before this has lost its battery, and all certificates look future
_STA_UNSYNC = 0x0040
_SIOCGIFMTU = 0x8921
_TIMEX_SIZE = 512  # bytes; more than the kernel's struct has


def clock() -> Result:
    """Certificates and logs go by it; the cluster's own timers do not."""
    if time.time() < _EARLIEST:
        return Result("clock", False, "it is years behind; set it (date -s), and install chrony so that it stays right")
    buffer = ctypes.create_string_buffer(_TIMEX_SIZE)  # modes = 0: only read
    if ctypes.CDLL(None, use_errno=True).adjtimex(buffer) < 0:
        return Result("clock", False, "the kernel does not say whether it is kept right; install chrony", warns=True)
    # struct timex: modes (int, padded to long), offset, freq, maxerror, esterror (longs), status (int)
    status = ctypes.c_int.from_buffer(buffer, 5 * ctypes.sizeof(ctypes.c_long)).value
    if status & _STA_UNSYNC:
        return Result(
            "clock",
            False,
            "nothing keeps it right; install chrony ('apt-get install chrony'), or let the host do it",
            True,
        )
    return Result("clock", True, "synchronised")


def mtu() -> Result:
    """Of the link of the default route: what hosts talk over, unless another address is advertised."""
    link = default_link(Path("/proc/net/route").read_text())
    if not link:
        return Result("MTU", False, "there is no default route; name this host's address with --advertise-addr", True)
    size = link_mtu(link)
    if size < LEAST_MTU:
        return Result("MTU", False, f"{link} has {size}; raise it to {LEAST_MTU} or more ('ip link set {link} mtu …')")
    return Result("MTU", True, f"{link} has {size}, so containers have {size - VXLAN_OVERHEAD}")


def link_mtu(link: str) -> int:
    """Asked of the kernel: /sys may belong to another network namespace. OSError: there is no such link."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        answer = fcntl.ioctl(asking, _SIOCGIFMTU, struct.pack("16si12x", link.encode(), 0))
    return int(struct.unpack("16si12x", answer)[1])


def default_link(routes: str) -> str:
    """From /proc/net/route: the link of the default route with the lowest metric; "" = none."""
    found = []
    for line in routes.splitlines()[1:]:
        fields = line.split()
        if fields[1] == "00000000" and fields[7] == "00000000":
            found.append((int(fields[6]), fields[0]))
    return min(found)[1] if found else ""


def _kernel_limit(path: str, least: int, title: str, setting: str) -> Callable[[], Result]:
    def check() -> Result:
        try:
            value = int(Path(path).read_text())
        except (OSError, ValueError):
            return Result(title, True, "not known here")
        if value < least:
            todo = f"'sysctl -w {setting}={least}', and put it into /etc/sysctl.d to keep it"
            return Result(title, False, f"{value} is little for a busy host; {todo}", warns=True)
        return Result(title, True, str(value))

    return check


CHECKS: list[Callable[[], Result]] = [
    clock,
    mtu,
    _kernel_limit("/proc/sys/fs/inotify/max_user_instances", 128, "inotify instances", "fs.inotify.max_user_instances"),
    _kernel_limit(
        "/proc/sys/net/netfilter/nf_conntrack_max", 65_536, "connection tracking", "net.netfilter.nf_conntrack_max"
    ),
    _kernel_limit("/proc/sys/kernel/pid_max", 32_768, "process ids", "kernel.pid_max"),
]
