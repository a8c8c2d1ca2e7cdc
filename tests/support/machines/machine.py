"""One real host: its disk, its first process, and commands on it by SSH."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyswarm_cli.lab import cgroups, switch
from pyswarm_cli.lab import host as hosts
from pyswarm_cli.lab.layout import REGISTRY_NAME, Host, Lab
from tests.support.lab import eventually
from tests.support.machines.trees import Trees

BOOT = Path(__file__).with_name("boot.sh")
BOOTED_WITHIN = 120.0  # seconds; a loaded machine


@dataclass
class Machine:
    lab: Lab
    host: Host
    layers: list[Path]  # the uppermost first
    shared: Path
    key: Path  # of root, for SSH
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.host.name

    @property
    def address(self) -> str:
        return self.host.address

    @property
    def disk(self) -> Path:
        return self.host.folder

    def install(self) -> None:
        """The disk as a provider hands it over: a name, an address, root's SSH key."""
        for name in ("upper", "work", "data", "root", "log"):
            (self.disk / name).mkdir(parents=True)
        (self.disk / "upper/var/log/journal").mkdir(parents=True)  # kept over reboots
        lists = self.disk / "upper/var/lib/apt/lists"
        lists.mkdir(parents=True)
        os.utime(lists, (0, 0))  # what packages there are was not asked yet
        etc = self.disk / "upper/etc"
        ssh = self.disk / "upper/root/.ssh"
        (etc / "ssh").mkdir(parents=True)
        ssh.mkdir(parents=True, mode=0o700)
        (self.disk / "upper/root").chmod(0o700)
        shutil.copy(self.key.with_suffix(".pub"), ssh / "authorized_keys")
        _keygen(etc / "ssh/ssh_host_ed25519_key", self.name)
        names = "".join(f"{h.address} {h.name}\n" for h in self.lab.hosts)
        (etc / "hostname").write_text(f"{self.name}\n")
        (etc / "hosts").write_text(f"127.0.0.1 localhost\n{self.lab.gateway} {REGISTRY_NAME}\n{names}")
        (etc / "resolv.conf").write_text("# no resolver of the outside world\n")

    @property
    def host_key(self) -> str:
        """A line of known_hosts."""
        kind, key, _ = (self.disk / "upper/etc/ssh/ssh_host_ed25519_key.pub").read_text().split()
        return f"{self.address} {kind} {key}\n"

    def boot(self) -> None:
        """Returns when its first process runs; `wait` waits for what it starts."""
        groups = cgroups.make(self.lab.name, self.host.name)
        v1 = " ".join(option for option, _ in cgroups.hierarchies() if option)
        enter = "".join(f"echo $$ > '{group}/cgroup.procs'; " for group in groups)
        with (self.host.log / "boot.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["sh", "-c", enter + 'exec unshare -n -m -u -i -C -p --fork --kill-child sh "$0"', str(BOOT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={
                    **hosts.ENVIRONMENT,
                    "LOWER": ":".join(str(layer) for layer in self.layers),
                    "DISK": str(self.disk),
                    "SHARED": str(self.shared),
                    "HOST_NAME": self.name,
                    "HIERARCHIES": v1,
                },
                cwd="/",
                start_new_session=True,
            )
        assert self.process.stdin is not None and self.process.stdout is not None
        if self.process.stdout.readline() != b"ready\n":
            self.process.wait()
            raise RuntimeError(f"{self.name} does not boot: {(self.host.log / 'boot.log').read_text()[-1000:]}")
        pid = int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0])
        hosts.remember(self.disk / "init.pid", pid)
        switch.plug(self.lab, self.host, pid)
        self.process.stdin.write(b"go\n")
        self.process.stdin.close()

    def wait(self) -> None:
        """Until sshd answers and systemd says that all is started."""

        def answers() -> bool:
            try:
                with socket.create_connection((self.address, 22), 1) as connection:
                    return connection.recv(4) == b"SSH-"
            except OSError:
                return False

        eventually(answers, f"SSH to {self.name}", BOOTED_WITHIN)
        state = self.ssh("systemctl is-system-running --wait", code=None).strip()
        assert state == "running", f"{self.name} is {state}: {self.ssh('systemctl --failed --no-legend', code=None)}"

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def cut_power(self) -> None:
        """SIGKILL to the first process, as if the cable were pulled."""
        hosts.power_off(self.lab, self.host)
        if self.process is not None:
            self.process.wait()
            self.process = None

    def reboot(self) -> None:
        """As an operator does: what runs is stopped in order, and the host starts again from its disk."""
        self.ssh("systemctl reboot", code=None)
        eventually(lambda: not self.is_up, f"{self.name} shuts down", BOOTED_WITHIN)
        self.cut_power()
        self.boot()
        self.wait()

    def ssh(self, command: str, *, code: int | None = 0, stdin: str = "") -> str:
        done = subprocess.run(
            [*self.ssh_command, command], capture_output=True, text=True, input=stdin, timeout=300, check=False
        )
        assert code is None or done.returncode == code, (
            f"{self.name}: '{command}' exited {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout

    @property
    def ssh_command(self) -> list[str]:
        return [
            *("ssh", "-i", str(self.key), "-o", f"UserKnownHostsFile={self.key.parent / 'known_hosts'}"),
            *("-o", "BatchMode=yes", "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=10", f"root@{self.address}"),
        ]

    def pyswarm(self, words: str, *, code: int | None = 0) -> str:
        """`pyswarm WORDS`, as root on this host, in the shell that a person would have."""
        return self.ssh(f"pyswarm {words}", code=code)

    def json(self, words: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.pyswarm(f"{words} --format json"))
        return found

    def main_pid(self, daemon: str) -> int:
        return int(self.ssh(f"systemctl show -p MainPID --value pyswarm-{daemon}"))

    def containers(self) -> dict[str, int]:
        """Task id → its first process, by this host's pids: what an upgrade may not change."""
        script = (
            "cd /run/pyswarm/containers 2>/dev/null || exit 0; "
            "for f in */pid; do [ -e $f ] && echo ${f%/pid} $(cat $f); done; true"
        )
        found = (line.split() for line in self.ssh(script).splitlines())
        return {task: int(pid) for task, pid in found}

    def erase(self) -> None:
        hosts.erase(self.host)


def layers(trees: Trees, *, bare: bool) -> list[Path]:
    return [trees.base] if bare else [trees.full, trees.base]


def make_key(folder: Path) -> Path:
    path = folder / "id_ed25519"
    _keygen(path, "tests")
    return path


def _keygen(path: Path, comment: str) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)],
        check=True,
        stdin=subprocess.DEVNULL,
    )
