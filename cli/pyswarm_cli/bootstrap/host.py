"""What `init`, `join` and `leave` do to this machine: its files and its units."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from pyswarm_cli.bootstrap import units
from pyswarm_cli.bootstrap.member import DATA, ETC, RECORD, Member
from pyswarm_core.errors import InvalidInput, PreconditionFailed

_TEST_NET = "192.0.2.1"  # nothing is sent there: only the route is asked for


def refuse_all_but_root(what: str) -> None:
    if os.geteuid() != 0:
        raise PreconditionFailed(f"'{what}' writes to {ETC} and starts daemons, so it needs root; try with sudo")


def own_address(advertised: str) -> str:
    """The IPv4 address given, which must be this host's; else the one of the default route."""
    if advertised:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind((advertised, 0))
                if probe.getsockname()[0] != advertised or advertised == "0.0.0.0":
                    raise OSError
        except OSError:
            raise InvalidInput(
                f"'{advertised}' is not an IPv4 address of this host; 'ip -4 address' shows those it has"
            ) from None
        return advertised
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((_TEST_NET, 9))
            return str(probe.getsockname()[0])
    except OSError:
        raise PreconditionFailed(
            "this host has no default route, so it is not clear by which address others reach it; name one with "
            "--advertise-addr"
        ) from None


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
        draft = folder / f".{name}.new"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(folder / name)


def install_units(member: Member, *, pretend: bool = False) -> list[str]:
    """Where there is a folder for them, also when systemd is not the first process: the next boot may be another.
    Returns the names of those that were not there as they are now. `pretend`: only that."""
    folder = Path(units.FOLDER)
    if not folder.is_dir():
        return []
    wanted = units.units(member, pyswarm_command(), shutil.which("etcd") or "/usr/bin/etcd")
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


def start(member: Member) -> list[str]:
    """Starts the daemons where systemd is the first process, and returns nothing; elsewhere, the commands that do."""
    if has_systemd():
        _systemctl("daemon-reload")
        for daemon in member.daemons:
            _systemctl("enable", "--now", units.name(daemon))
        return []
    commands = {"etcd": "etcd", **{d: f"{pyswarm_command()} {d} run" for d in ("manager", "agent")}}
    return [f"sh -c 'set -a; . {ETC}/{d}.env; exec {commands[d]}'" for d in member.daemons]


def stop(member: Member) -> None:
    """By systemd; elsewhere, whoever started the daemons has to have stopped them: PreconditionFailed."""
    if has_systemd():
        for daemon in reversed(member.daemons):
            _systemctl("disable", "--now", units.name(daemon))
        return
    for daemon in reversed(member.daemons):
        if running := _processes(daemon):
            raise PreconditionFailed(
                f"the {daemon} still runs here (process {running[0]}); stop it first, then repeat this"
            )


def erase(member: Member | None) -> None:
    """This host's membership: units, configuration, certificates, the daemons' state. The record goes last."""
    for daemon in ("etcd", "manager", "agent"):
        (Path(units.FOLDER) / units.name(daemon)).unlink(missing_ok=True)
    if has_systemd():
        _systemctl("daemon-reload")
    data = Path(member.data_dir) if member is not None else DATA
    for folder in (ETC / "tls", ETC / "etcd-tls", data / "etcd", data / "manager", data / "agent"):
        shutil.rmtree(folder, ignore_errors=True)
    for name in ("etcd.env", "manager.env", "agent.env"):
        (ETC / name).unlink(missing_ok=True)
    RECORD.unlink(missing_ok=True)


def _processes(daemon: str) -> list[int]:
    """In this pid namespace, by their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            is_etcd = daemon == "etcd" and Path(words[0]).name == "etcd"
            if is_etcd or ([daemon, "run"] == words[-3:-1] and any("pyswarm" in word for word in words)):
                found.append(int(entry.name))
    return found


def _systemctl(*words: str) -> None:
    done = subprocess.run(["systemctl", *words], capture_output=True, text=True)
    if done.returncode:
        reason = " ".join(done.stderr.split())
        raise PreconditionFailed(
            f"'systemctl {' '.join(words)}' failed: {reason}; 'journalctl -u {words[-1]}' says more"
        )
