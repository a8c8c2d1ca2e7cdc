"""Where the runtime keeps its things and which programs it uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """Paths are absolute. An empty program or profile means the usual places, tried in order."""

    data_dir: Path = Path("/var/lib/pyswarm")  # tasks/<id>/ (its log), volumes/<name>: survives a reboot
    run_dir: Path = Path("/run/pyswarm")  # containers/<id>/ (bundle), runtime/ (the OCI runtime's state): does not
    cgroup_parent: str = "pyswarm"  # below the root of the agent's cgroup namespace
    runtime: str = ""  # "": crun, else runc, on PATH
    conmon: str = ""  # "": on PATH
    init: str = ""  # "": catatonit; needed only by containers that ask for an init
    seccomp_profile: str = ""  # "": /etc/containers/seccomp.json, /usr/share/containers/seccomp.json
    conmon_log_level: str = "error"
