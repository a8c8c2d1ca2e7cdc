"""What a machine needs. Each check tries the thing itself where that leaves nothing behind."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from pyswarm_cli.system import environment, ports
from pyswarm_cli.system.result import Result

_NAMESPACES = {
    "network namespaces": 0x40000000,
    "mount namespaces": 0x00020000,
    "pid namespaces": 0x20000000,
    "uts namespaces": 0x04000000,
    "ipc namespaces": 0x08000000,
}


def run(role: str) -> list[Result]:
    """`role`: agent, manager or builder."""
    return [check() for check in _CHECKS[role]]


def _root() -> Result:
    if os.geteuid() == 0:
        return Result("root", True, "yes")
    return Result("root", False, "this user is not root; run it with sudo")


def _tool(name: str, package: str, alternative: str = "") -> Callable[[], Result]:
    def check() -> Result:
        for candidate in (name, alternative):
            if candidate and (path := shutil.which(candidate)):
                return Result(name, True, path)
        return Result(name, False, f"not found on PATH; install it with 'apt-get install {package}'")

    return check


def _cgroups() -> Result:
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        available = Path("/sys/fs/cgroup/cgroup.controllers").read_text().split()
        missing = [name for name in ("cpu", "memory", "pids") if name not in available]
        if missing:
            return Result("cgroups", False, f"v2 without {', '.join(missing)}; enable them at boot (cgroup_enable=…)")
        return Result("cgroups", True, "v2")
    found = [name for name in ("cpu", "memory", "pids") if Path(f"/sys/fs/cgroup/{name}").is_dir()]
    if len(found) == 3:
        return Result("cgroups", True, "v1")
    return Result("cgroups", False, "the cpu, memory and pids controllers are not mounted under /sys/fs/cgroup")


def _overlay() -> Result:
    return _filesystem("overlay", "overlayfs", "load it with 'modprobe overlay'")


def _filesystem(name: str, title: str, todo: str) -> Result:
    try:
        known = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
    except OSError:
        known = set()
    return Result(title, name in known, "yes" if name in known else f"this kernel does not list it; {todo}")


def _in_namespace(title: str, command: list[str], todo: str, stdin: str = "") -> Result:
    """Tries it in a network namespace that ends with the command."""
    if os.geteuid() != 0 or shutil.which("unshare") is None or shutil.which(command[0]) is None:
        return Result(title, False, f"cannot be tried without root, unshare and {command[0]}")
    try:
        done = subprocess.run(
            ["unshare", "--net", *command], input=stdin, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Result(title, False, f"{error}; {todo}")
    if done.returncode == 0:
        return Result(title, True, "yes")
    why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
    return Result(title, False, f"{why}; {todo}")


def _vxlan() -> Result:
    command = ["ip", "link", "add", "psxcheck", "type", "vxlan", "id", "1", "dstport", "4789", "local", "127.0.0.1"]
    return _in_namespace("vxlan", command, "load it with 'modprobe vxlan'")


def _veth() -> Result:
    command = ["ip", "link", "add", "psxcheck0", "type", "veth", "peer", "name", "psxcheck1"]
    return _in_namespace("veth", command, "load it with 'modprobe veth'")


def _nat() -> Result:
    rules = (
        "add table ip check\n"
        "add chain ip check pre { type nat hook prerouting priority -100 ; }\n"
        "add map ip check m { type ipv4_addr . inet_service : ipv4_addr . inet_service ; }\n"
        "add rule ip check pre meta l4proto tcp dnat to ip daddr . tcp dport map @m\n"
        "add rule ip check pre numgen random mod 2 0 counter ct mark set 1\n"
    )
    return _in_namespace("nftables NAT", ["nft", "-f", "-"], "load it with 'modprobe nft_chain_nat nft_numgen'", rules)


def _foreign_forward_drop() -> Result:
    """Another table's policy drop for forwarded packets also stops ours."""
    title = "forwarding"
    if os.geteuid() != 0 or shutil.which("nft") is None:
        return Result(title, False, "cannot be looked at without root and nft")
    done = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, timeout=10, check=False)
    if done.returncode:
        return Result(title, False, (done.stderr.strip().splitlines() or ["nft failed"])[0])
    table = ""
    for line in done.stdout.splitlines():
        if line.startswith("table "):
            table = line.removeprefix("table ").rstrip(" {")
        if "hook forward" in line and "policy drop" in line and "pyswarm" not in table:
            return Result(
                title,
                False,
                f"table {table} drops forwarded packets (Docker and ufw do), containers' traffic included; let it "
                "accept them, or run pyswarm on a host of its own",
            )
    return Result(title, True, "no other table drops forwarded packets")


def _namespace(flag: int, title: str) -> Callable[[], Result]:
    """Tried in a child, so that this process stays where it is."""

    def check() -> Result:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if ctypes.CDLL(None, use_errno=True).unshare(flag) == 0 else 1)
        ok = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        why = "refused; this may itself be a container: give it the right (CAP_SYS_ADMIN), or use a host of its own"
        return Result(title, ok, "yes" if ok else why)

    return check


_TOOLS = [
    _tool("crun", "crun", "runc"),
    _tool("conmon", "conmon"),
    _tool("skopeo", "skopeo"),
    _tool("nft", "nftables"),
    _tool("conntrack", "conntrack"),
    _tool("ip", "iproute2"),
]
_CHECKS: dict[str, list[Callable[[], Result]]] = {
    "agent": [
        *(_root, *_TOOLS, _cgroups, _overlay, _veth, _vxlan, _nat, _foreign_forward_drop),
        *(_namespace(flag, title) for title, flag in _NAMESPACES.items()),
        *environment.CHECKS,
        ports.vxlan,
        ports.tcp(9378),
    ],
    "manager": [
        _tool("etcd", "etcd-server"),
        *(ports.tcp(number) for number in (2377, 2378, 2379, 2380)),
        ports.tcp(9377),
        environment.clock,
    ],
    "builder": [_root, _tool("buildah", "buildah"), _tool("unshare", "util-linux"), _overlay],
}
