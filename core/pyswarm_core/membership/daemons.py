"""The daemons of a member on this machine: their files and units, starting and stopping them.

By systemd where it is the first process. Elsewhere the machine's own way of starting things is not known: then a daemon
is found by its command line, and started detached, so that the first process inherits it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pyswarm_core.errors import PreconditionFailed
from pyswarm_core.files import put
from pyswarm_core.membership import units
from pyswarm_core.membership.member import DATA, ETC, RECORD, Member

ALL = ("etcd", "manager", "agent")
LOGS = "log"  # in the data folder: of daemons that no systemd starts
STOPS_WITHIN = 20.0  # seconds from SIGTERM to SIGKILL
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def has_systemd() -> bool:
    """systemd is the first process (sd_booted)."""
    return Path("/run/systemd/system").is_dir() and Path("/proc/1/comm").read_text().strip() == "systemd"


def pyswarm_command() -> str:
    """For units: by the name on PATH when that is this program, for such a link can be turned to another version."""
    script = Path(sys.executable).with_name("pyswarm")
    if not script.exists():
        return f"{sys.executable} -m pyswarm_cli"
    found = shutil.which("pyswarm")
    return found if found and Path(found).samefile(script) else str(script)


def write(files: Mapping[str, str], folder: Path = ETC, mode: int = 0o644) -> None:
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    for name, content in files.items():
        put(folder / name, content, mode)


def install_units(member: Member, *, pretend: bool = False) -> list[str]:
    """Where there is a folder for them, also when systemd is not the first process: the next boot may be another.
    Returns the names of those that were not there as they are now. `pretend`: only that."""
    folder = Path(units.FOLDER)
    if not folder.is_dir():
        return []
    wanted = units.units(member, pyswarm_command())
    changed = [name for name, text in wanted.items() if _text(folder / name) != text]
    if changed and not pretend:
        write({name: wanted[name] for name in changed}, folder)
    return changed


def refresh_units(member: Member, *, pretend: bool) -> list[str]:
    """As this version has them, after an upgrade. Nothing is restarted."""
    changed = install_units(member, pretend=pretend)
    if changed and not pretend and has_systemd():
        _systemctl("daemon-reload")
    return changed


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def make_folders(member: Member) -> None:
    """What the units expect to be there."""
    data = Path(member.data_dir)
    data.mkdir(mode=0o755, parents=True, exist_ok=True)
    for name in ("etcd", "manager") if member.role == "manager" else ():
        (data / name).mkdir(mode=0o700, exist_ok=True)


def command(daemon: str) -> str:
    """A shell's command that runs the daemon in the foreground with its settings."""
    return f"sh -c 'set -a; . {ETC}/{daemon}.env; exec {pyswarm_command()} {daemon} run'"


def start(member: Member, names: Sequence[str], *, detached: bool) -> list[str]:
    """Starts the daemons where systemd is the first process, and returns nothing. Elsewhere it starts them `detached`;
    or returns the commands that do. One that runs is left alone. `detached` waits for nobody."""
    if has_systemd():
        _systemctl("daemon-reload")
        for name in names:
            _systemctl("enable", "--now", *(["--no-block"] if detached else []), units.name(name))
        return []
    if not detached:
        return [command(name) for name in names]
    logs = Path(member.data_dir) / LOGS
    logs.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not processes(name):
            with (logs / f"{name}.log").open("ab") as log:
                # The shell in between ends at once, so the first process becomes the daemon's parent.
                subprocess.run(
                    ["sh", "-c", f"setsid {command(name)} </dev/null &"],
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    env={"PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8"},
                    cwd="/",
                    check=True,
                )
    return []


def stop(names: Iterable[str]) -> None:
    """And never again by themselves. PreconditionFailed: one does not end."""
    if has_systemd():
        for name in names:
            if (Path(units.FOLDER) / units.name(name)).exists():
                _systemctl("disable", "--now", units.name(name))
        return
    for name in names:
        _end(name, signal.SIGTERM, STOPS_WITHIN) or _end(name, signal.SIGKILL, STOPS_WITHIN)
        if running := processes(name):
            raise PreconditionFailed(f"the {name} (process {running[0]}) does not end; end it, then repeat this")


def forget(names: Sequence[str]) -> None:
    """Their units, settings and certificates. Not their data."""
    for name in names:
        (Path(units.FOLDER) / units.name(name)).unlink(missing_ok=True)
        (ETC / f"{name}.env").unlink(missing_ok=True)
        if name == "etcd":
            shutil.rmtree(ETC / "etcd-tls", ignore_errors=True)
    if has_systemd():
        _systemctl("daemon-reload")
        # One that had to be killed would stay in systemd's list as failed. Refused for those that did not.
        for name in names:
            subprocess.run(["systemctl", "reset-failed", units.name(name)], capture_output=True)


def erase(data_dir: Path = DATA) -> None:
    """This host's membership: units, configuration, certificates, the daemons' state. The record goes last."""
    forget(ALL)
    shutil.rmtree(ETC / "tls", ignore_errors=True)
    for name in (*ALL, LOGS):
        shutil.rmtree(data_dir / name, ignore_errors=True)
    RECORD.unlink(missing_ok=True)


def processes(daemon: str) -> list[int]:
    """In this pid namespace, by their command line."""
    here = Path("/proc/self/ns/pid").readlink()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if (entry / "ns/pid").readlink() != here:
                    continue  # a container's, or another host's in namespaces on this machine
            except OSError:
                continue
            if is_one(command_line(int(entry.name)), daemon):
                found.append(int(entry.name))
    return found


def command_line(pid: int) -> list[str]:
    """Empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def is_one(words: Sequence[str], daemon: str) -> bool:
    """Whether this is the daemon's command line: etcd's own, or `… pyswarm … DAEMON run …`."""
    if daemon == "etcd" and words and Path(words[0]).name == "etcd":
        return True
    pairs = [i for i in range(1, len(words) - 1) if words[i] == daemon and words[i + 1] == "run"]
    return bool(pairs) and any("pyswarm" in word for word in words[: pairs[0]])


def _end(daemon: str, number: signal.Signals, within: float) -> bool:
    for pid in processes(daemon):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
    until = time.monotonic() + within
    while processes(daemon):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def _systemctl(*words: str) -> None:
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True)
    if done.returncode:
        reason = " ".join(done.stderr.split())
        raise PreconditionFailed(
            f"'systemctl {' '.join(words)}' failed: {reason}; 'journalctl -u {words[-1]}' says more"
        )
