"""Small images for tests, FROM scratch with a static busybox, built by buildah and pushed to a registry on loopback.

images = ImageBuilder(tmp_path, registry)
digest = images.push("web:v1", ['CMD ["sleep", "1000"]'], {"etc/passwd": "root:x:0:0::/:/bin/sh\\n"})
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.registry import PASSWORD, USER, Registry

BUSYBOX = shutil.which("busybox")
needs_buildah = pytest.mark.skipif(
    shutil.which("buildah") is None or BUSYBOX is None, reason="needs the packages buildah and busybox-static"
)
# Not all of busybox: each name is a link that a build copies.
_NAMES = """
sh cat cp date dd echo env false grep head hostname id kill ls mkdir mknod mount ping printf ps pwd rm sleep sort stat
sync tail test timeout touch trap true tty umount uname unshare wc wget yes chown chroot httpd nc seq tr
"""
COMMANDS = _NAMES.split()


class ImageBuilder:
    """Builds in `folder`, which keeps the layers, so that a second version shares the first one's."""

    def __init__(self, folder: Path, registry: Registry) -> None:
        self._folder = folder / "buildah"
        self._registry = registry
        self._base = self._folder / "base"
        (self._base / "bin").mkdir(parents=True)
        assert BUSYBOX is not None
        shutil.copy(BUSYBOX, self._base / "bin" / "busybox")
        for command in COMMANDS:
            (self._base / "bin" / command).symlink_to("busybox")
        for name in ("etc", "tmp", "root", "var"):
            (self._base / name).mkdir()
        (self._base / "tmp").chmod(0o1777)

    def push(
        self,
        name: str,
        lines: Sequence[str] = ('CMD ["sleep", "1000"]',),
        files: Mapping[str, str | bytes] | None = None,
        *,
        base: bool = True,
        platforms: Sequence[str] = (),
    ) -> str:
        """Builds and pushes NAME:TAG; returns the digest of what was pushed. `files` (path in the image → content) are
        a layer of their own above busybox. With `platforms` it is an index."""
        context = self._folder / "contexts" / name.replace(":", "-").replace("/", "-")
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir(parents=True)
        steps = ["FROM scratch"]
        if base:
            shutil.copytree(self._base, context / "base", symlinks=True)
            steps.append("COPY base /")
        if files:
            for path, content in files.items():
                target = context / "files" / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.encode() if isinstance(content, str) else content)
            steps.append("COPY files /")
        (context / "Dockerfile").write_text("\n".join([*steps, *lines]) + "\n")
        reference = f"{self._registry.host}/{name}"
        build = ["bud", "--isolation", "chroot", "--format", "docker"]
        if platforms:
            # Not with --layers: buildah would take one platform's layers, and its entry, for the other's.
            self._buildah("manifest", "create", reference)
            for platform in platforms:
                self._buildah(*build, "--platform", platform, "--manifest", reference, str(context))
            self._buildah("manifest", "push", "--all", *self._credentials(), reference, f"docker://{reference}")
        else:
            self._buildah(*build, "--layers", "-t", reference, str(context))
            self._buildah("push", *self._credentials(), reference)
        repository, _, tag = name.rpartition(":")
        return "" if self._registry.needs_auth else self._registry.digest(repository, tag)

    def _credentials(self) -> list[str]:
        return ["--tls-verify=false", *(["--creds", f"{USER}:{PASSWORD}"] if self._registry.needs_auth else [])]

    def _buildah(self, *arguments: str) -> None:
        storage = [
            *("--root", str(self._folder / "root")),
            *("--runroot", str(self._folder / "run")),
            *("--storage-driver", "overlay"),
            # Or each process that opens the storage leaves a bind mount behind.
            *("--storage-opt", "overlay.skip_mount_home=true"),
        ]
        done = subprocess.run(
            ["buildah", *storage, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"buildah {' '.join(arguments)}: {done.stdout}{done.stderr}"
