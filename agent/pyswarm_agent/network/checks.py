"""How this host's kernel checks the sources of packets, and what follows for ours."""

from __future__ import annotations

from pathlib import Path

from pyswarm_proxy.state import SourceChecks

_EVERYWHERE = Path("/proc/sys/net/ipv4/conf/all")


def source_checks() -> SourceChecks:
    """A setting for all devices wins over that of one: any check over none, a looser one over a strict one."""
    reverse_path = _read("rp_filter")
    return SourceChecks(
        mark_peers=reverse_path not in ("", "0"),
        tasks=reverse_path == "2",
    )


def _read(name: str) -> str:
    try:
        return (_EVERYWHERE / name).read_text().strip()
    except OSError:
        return ""
