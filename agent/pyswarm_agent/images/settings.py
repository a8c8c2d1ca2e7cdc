"""Where images are kept and how they are fetched."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """Registries, mirrors, certificates and the signature policy are the host's own (/etc/containers) unless given."""

    data_dir: Path = Path("/var/lib/pyswarm")  # images/ (containers-storage), rootfs/<task id>/
    run_dir: Path = Path("/run/pyswarm")
    skopeo: str = "skopeo"
    registries_conf: str = ""  # instead of /etc/containers/registries.conf
    full_at: float = 0.80  # of the disk that images/ is on: from here on unused images go
    pull_timeout: float = 1800.0  # seconds, for one image
    parallel_pulls: int = 3  # different images at once; skopeo fetches several layers of each
    keep_recent: float = 600.0  # seconds in which an image is not collected after its last pull or mount
