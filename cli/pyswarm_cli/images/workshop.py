"""Where buildah runs: a storage of its own, and a private mount namespace in which the context's names resolve.

`registry.lab` means the registry of the context in use: in the namespace, a file with that name in it lies over
/etc/hosts. No file of the machine is written for that; the namespace ends with the command.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pyswarm_cli.registry import auths
from pyswarm_core.contexts import Context
from pyswarm_core.errors import PreconditionFailed

STORAGE = Path("/var/lib/pyswarm/build")
REGISTRIES = Path("/etc/containers/registries.conf")
CACHE = Path("/var/lib/containers/cache")  # of which registry has which layer, in root's tools
NEEDS = {"buildah": "buildah", "unshare": "util-linux", "mount": "mount"}
# $1: the hosts file, $2: the folder that lies over CACHE, $3: CACHE; then the command.
_ENTER = """set -e
mount --bind "$1" /etc/hosts
if [ -d "$3" ]; then mount --bind "$2" "$3"; fi
shift 3
exec "$@"
"""


@dataclass(frozen=True, slots=True)
class Workshop:
    """`certs`: --cert-dir, the context's registry authorities; None when there are none."""

    storage: Path
    hosts: Path
    registries: Path
    certs: Path | None

    def command(self, verb: str, *args: str, options: Sequence[str] = ()) -> list[str]:
        """buildah VERB ARGS, inside. `options` come before the verb."""
        run = self.storage / "run" if "PYSWARM_BUILD_ROOT" in os.environ else Path("/run/pyswarm/build")
        return [
            *("unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER, "pyswarm-build"),
            *(str(self.hosts), str(self.storage / "cache"), str(CACHE)),
            *("buildah", "--root", str(self.storage / "images"), "--runroot", str(run), "--storage-driver", "overlay"),
            *options,
            verb,
            *args,
        ]

    def registry_options(self) -> list[str]:
        """For verbs that talk to a registry."""
        found = ["--cert-dir", str(self.certs)] if self.certs is not None else []
        return [*found, "--authfile", str(auths.file())] if auths.file().exists() else found

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "CONTAINERS_REGISTRIES_CONF": str(self.registries), "LC_ALL": "C.UTF-8"}


@contextmanager
def open_workshop(context: Context | None) -> Iterator[Workshop]:
    """Raises PreconditionFailed when this user or machine cannot do it."""
    _check()
    storage = Path(os.environ.get("PYSWARM_BUILD_ROOT") or STORAGE).absolute()
    for folder in (storage, storage / "cache"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pyswarm-build-") as scratch:
        folder = Path(scratch)
        hosts, registries = folder / "hosts", folder / "registries.conf"
        hosts.write_text(hosts_file(_text(Path("/etc/hosts")), context))
        registries.write_text(registries_file(_text(REGISTRIES)))
        certs = None
        if context is not None and context.registry_ca:
            certs = folder / "certs"
            certs.mkdir()
            for number, pem in enumerate(context.registry_ca.values()):
                (certs / f"ca-{number}.crt").write_text(pem)
        yield Workshop(storage, hosts, registries, certs)


def hosts_file(machines: str, context: Context | None) -> str:
    """The context's names come first: the first line that has a name wins."""
    own = "".join(f"{address} {name}\n" for name, address in (context.hosts if context else {}).items())
    return own + machines


def registries_file(machines: str) -> str:
    """With Docker's default, docker.io, unless the machine names other places for unqualified names."""
    if re.search(r"^\s*unqualified-search-registries\s*=", machines, re.MULTILINE):
        return machines
    return 'unqualified-search-registries = ["docker.io"]\n' + machines


def stream(command: Sequence[str], environment: dict[str, str], heard: Callable[[str], None]) -> int:
    """Runs it; each line of its stdout and stderr is `heard`. Returns its exit code. Ctrl-C ends it too."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    out: IO[str] = process.stdout
    try:
        for line in out:
            heard(line.rstrip("\n"))
        return process.wait()
    except BaseException:
        process.terminate()  # buildah got the terminal's signal as well; this is for the other ways out
        process.wait()
        raise
    finally:
        out.close()


def _check() -> None:
    if os.geteuid() != 0:
        raise PreconditionFailed("building and pushing images mounts file systems, so it needs root; try with sudo")
    for tool, package in NEEDS.items():
        if shutil.which(tool) is None:
            raise PreconditionFailed(f"'{tool}' is not installed; install it with 'apt-get install {package}'")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
