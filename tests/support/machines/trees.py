"""The Debian trees that hosts boot from, kept between runs under PYSWARM_TEST_CACHE (/var/cache/pyswarm-tests).

`base` is what an installer leaves: systemd, sshd, Python. `full` is an overlay layer above it with the packages that
the Ansible role wants, too; `debian` is an apt repository with those packages, for hosts that have only `base`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.support.lab import REPOSITORY

CACHE = Path(os.environ.get("PYSWARM_TEST_CACHE", "/var/cache/pyswarm-tests"))
TOOLS = ("mmdebstrap", "ssh", "ssh-keygen", "dpkg-deb", "unshare", "docker-registry", "buildah")
SUITE = "bookworm"
BASE = "systemd systemd-sysv dbus openssh-server python3 python3-apt ca-certificates iproute2 procps"
DEFAULTS = REPOSITORY / "deploy/ansible/roles/host/defaults/main.yml"
# Units that would touch the machine's own kernel settings, clock or devices, or that a namespace has no use for.
MASKED = """
systemd-sysctl.service systemd-modules-load.service systemd-binfmt.service systemd-random-seed.service
systemd-timesyncd.service systemd-udevd.service systemd-udev-trigger.service systemd-hwdb-update.service
systemd-remount-fs.service systemd-firstboot.service getty.target getty@.service console-getty.service
apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer
sys-kernel-debug.mount sys-kernel-tracing.mount sys-kernel-config.mount sys-fs-fuse-connections.mount
dev-hugepages.mount dev-mqueue.mount proc-sys-fs-binfmt_misc.automount
"""


@dataclass(frozen=True, slots=True)
class Trees:
    base: Path
    full: Path
    debian: Path


def missing() -> str:
    """Why there can be none here; "" = there can."""
    if os.geteuid() != 0:
        return "real hosts are made of namespaces: needs root"
    absent = [tool for tool in TOOLS if not shutil.which(tool)]
    return f"needs {', '.join(absent)}: run 'make setup'" if absent else ""


def wanted_packages() -> list[str]:
    """What the role installs on a manager, which is more than on a worker."""
    defaults = yaml.safe_load(DEFAULTS.read_text())
    return sorted({*defaults["pyswarm_host_packages"], *defaults["pyswarm_manager_packages"]})


def get() -> Trees:
    """Makes what is missing: a minute for the first run."""
    key = hashlib.sha256(repr((SUITE, BASE, MASKED, wanted_packages())).encode()).hexdigest()[:12]
    folder = CACHE / f"debian-{key}"
    trees = Trees(folder / "base", folder / "full", folder / "debian")
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            draft = folder.with_suffix(".new")
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir()
            _make(Trees(draft / "base", draft / "full", draft / "debian"))
            draft.rename(folder)
    return trees


def _make(trees: Trees) -> None:
    packages = " ".join(wanted_packages())
    trees.debian.mkdir()
    _run(
        *("mmdebstrap", "--variant=minbase", f"--include={','.join(BASE.split())}", "--quiet"),
        '--aptopt=Apt::Install-Recommends "false"',
        f'--customize-hook=APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -q -y --download-only install {packages}',
        f'--customize-hook=cp "$1"/var/cache/apt/archives/*.deb "{trees.debian}"',
        f'--customize-hook=systemctl --root="$1" mask {" ".join(MASKED.split())}',
        '--customize-hook=rm -f "$1"/etc/ssh/ssh_host_*',
        # its own, made at its first boot
        '--customize-hook=echo uninitialized > "$1"/etc/machine-id',
        '--customize-hook=rm -f "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*',
        '--customize-hook=echo "deb [trusted=yes] file:/srv/shared/debian ./" > "$1"/etc/apt/sources.list',
        *(SUITE, str(trees.base)),
    )
    _index(trees.debian)
    trees.full.mkdir()
    with _mounted(trees) as root:
        policy = root / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        apt = ("chroot", str(root), "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y")
        _run(*apt, "update")
        _run(*apt, "install", "--no-install-recommends", *wanted_packages())
        policy.unlink()


def _index(repository: Path) -> None:
    """`Packages`, without the tools for it, which not every machine has."""
    entries = []
    for package in sorted(repository.glob("*.deb")):
        control = subprocess.check_output(["dpkg-deb", "--field", str(package)], text=True).strip()
        digest = hashlib.sha256(package.read_bytes()).hexdigest()
        entries.append(f"{control}\nFilename: ./{package.name}\nSize: {package.stat().st_size}\nSHA256: {digest}\n")
    (repository / "Packages").write_text("\n".join(entries))


@contextmanager
def _mounted(trees: Trees) -> Iterator[Path]:
    root, work = trees.full.with_name("root"), trees.full.with_name("work")
    root.mkdir()
    work.mkdir()
    options = f"lowerdir={trees.base},upperdir={trees.full},workdir={work}"
    _run("mount", "-t", "overlay", "overlay", "-o", options, str(root))
    try:
        shared = root / "srv/shared/debian"
        shared.mkdir(parents=True)
        _run("mount", "--bind", str(trees.debian), str(shared))
        _run("mount", "-t", "proc", "proc", str(root / "proc"))
        yield root
    finally:
        for point in ("proc", "srv/shared/debian", "."):
            subprocess.run(["umount", str(root / point)], capture_output=True)
        root.rmdir()
        shutil.rmtree(work)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
