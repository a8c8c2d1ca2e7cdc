"""Are the ports free that the daemons listen on, and if not, who has them?"""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pyswarm_cli.system.result import Result
from pyswarm_proxy.state import DEVICE_PREFIX

VXLAN = 4789


def tcp(number: int) -> Callable[[], Result]:
    def check() -> Result:
        title = f"TCP port {number}"
        return _free(number, socket.SOCK_STREAM, title) or _taken(title, *_holder(number))

    return check


def vxlan() -> Result:
    """The kernel itself has it, for a device of ours or of another overlay."""
    title = f"UDP port {VXLAN}"
    free = _free(VXLAN, socket.SOCK_DGRAM, title)
    if free is not None:
        return free
    devices = _said("ip", "-o", "link", "show", "type", "vxlan")
    names = [line.split(":")[1].strip() for line in devices.splitlines() if line.count(":") >= 2]
    return _taken(title, ", ".join(names), bool(names) and all(name.startswith(DEVICE_PREFIX) for name in names))


def _free(number: int, kind: int, title: str) -> Result | None:
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind == socket.SOCK_STREAM:
            # As daemons do: connections of one that ended linger for a minute, and are in nobody's way.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", number))
        except OSError:
            return None
    return Result(title, True, "free")


def _taken(title: str, holder: str, is_own: bool) -> Result:
    if is_own:
        return Result(title, True, f"in use by this host's own pyswarm ({holder})", is_running=True)
    who = f"{holder} has it" if holder else "something else has it"
    return Result(title, False, f"{who}; stop that, and see to it that it does not start again with the host")


def _holder(number: int) -> tuple[str, bool]:
    """Who listens, "" when it cannot be told, and whether it is a daemon of ours."""
    found = re.search(r'\(\("([^"]*)",pid=(\d+)', _said("ss", "-Hlntp", f"sport = :{number}"))
    if found is None:
        return "", False
    words = b""
    for file in ("cmdline", "environ"):
        with suppress(OSError):
            words += Path("/proc", found[2], file).read_bytes()
    # Of etcd, its certificates tell; Debian's own would not have them.
    is_own = b"pyswarm_cli" in words or b"/pyswarm\0" in words or b"/etc/pyswarm/" in words
    return f"{found[1]}, process {found[2]}", is_own


def _said(*command: str) -> str:
    """ "" when it cannot be run."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
