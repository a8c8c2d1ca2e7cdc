"""What concerns the process in a container: commands, signals, capabilities, probes."""

from __future__ import annotations

import difflib
import re
import shlex
import signal

from pyswarm_cli.parse.ports import port_number
from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import spec_pb2 as spec

CAPABILITIES = (
    "AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "CHOWN",
    "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE",
    "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST",
    "NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYSLOG", "SYS_ADMIN", "SYS_BOOT",
    "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE",
    "SYS_TIME", "SYS_TTY_CONFIG", "WAKE_ALARM",
)  # fmt: skip


def words(text: str) -> list[str]:
    """A command line → argv, by the shell's quoting rules."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InvalidInput(f"the command '{text}' cannot be split into words: {str(error).lower()}") from None


def capability(text: str) -> str:
    """net_admin, CAP_NET_ADMIN → CAP_NET_ADMIN; ALL stays."""
    name = text.strip().upper().removeprefix("CAP_")
    if name == "ALL":
        return "ALL"
    if name not in CAPABILITIES:
        close = difflib.get_close_matches(name, CAPABILITIES, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise InvalidInput(f"there is no capability '{text}'{hint}")
    return f"CAP_{name}"


def stop_signal(text: str) -> str:
    """TERM, SIGTERM, 15, RTMIN+3 → SIGTERM, …"""
    upper = text.strip().upper()
    if upper.isdigit():
        try:
            return signal.Signals(int(upper)).name
        except ValueError:
            raise InvalidInput(f"there is no signal {text}") from None
    name = upper if upper.startswith("SIG") else f"SIG{upper}"
    if name in signal.Signals.__members__ or re.fullmatch(r"SIGRT(MIN\+\d{1,2}|MAX-\d{1,2})", name):
        return name
    raise InvalidInput(f"there is no signal '{text}'; write SIGTERM, or 15")


def shell_probe(text: str) -> spec.StringList:
    if not text.strip():
        raise InvalidInput("the probe's command is empty; --no-healthcheck switches the probe off")
    return spec.StringList(values=["/bin/sh", "-c", text])


def http_probe(text: str) -> spec.HttpCheck:
    """PORT/PATH: 80/healthz. Only the port: the path is /."""
    port, slash, path = text.partition("/")
    if any(c.isspace() for c in path):
        raise InvalidInput(f"the path of the probe '{text}' must not contain spaces")
    return spec.HttpCheck(port=_probe_port(port, text, "80/healthz"), path=slash + path or "/")


def tcp_probe(text: str) -> spec.TcpCheck:
    return spec.TcpCheck(port=_probe_port(text, text, "5432"))


def _probe_port(port: str, text: str, example: str) -> int:
    if not port.isdigit():
        raise InvalidInput(f"'{text}' is not a probe; write a port first, as in {example}")
    return port_number(port, text)
