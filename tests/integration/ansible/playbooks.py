"""Runs the collection's playbooks as an operator does: `ansible-playbook` in deploy/ansible, over SSH."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.lab import REPOSITORY
from tests.support.machines.fleet import Fleet
from tests.support.machines.machine import Machine

COLLECTION = REPOSITORY / "deploy/ansible"
ANSIBLE_PLAYBOOK = str(Path(sys.executable).parent / "ansible-playbook")
DATA = "/srv/data/pyswarm"
POOL = "10.192.0.0/12"
_RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Ran:
    changed: dict[str, int]  # by host
    output: str
    seconds: float

    @property
    def total(self) -> int:
        return sum(self.changed.values())


def shape(words: list[str]) -> str:
    """A command without its values."""
    kept = []
    for before, word in zip(["", *words], words, strict=False):
        if word.startswith("-") or word.endswith(".yml"):
            kept.append(word.removeprefix("playbooks/"))
        elif before == "-e":
            kept.append(word.partition("=")[0])
    return " ".join(kept)


class Operator:
    """The host that Ansible runs on: an inventory, and a key."""

    def __init__(self, fleet: Fleet, wheel: Path) -> None:
        self.fleet = fleet
        self.wheel = wheel
        self.inventory = fleet.folder / "hosts.json"  # JSON is YAML
        self._home = fleet.folder / "ansible"
        self.played: set[str] = set()  # what was run, values left out: "drain.yml --limit -e pyswarm_availability"

    def write(self, managers: list[Machine], workers: list[Machine]) -> None:
        """Labels: host-2 has a disk; every host has a number."""
        document = {
            "pyswarm": {
                "vars": {
                    "ansible_user": "root",
                    "ansible_ssh_private_key_file": str(managers[0].key),
                    "ansible_ssh_common_args": f"-o UserKnownHostsFile={self.fleet.folder}/known_hosts",
                    "pyswarm_package": str(self.wheel),
                    "pyswarm_wheelhouse": "/srv/shared/wheels",
                    "pyswarm_address_pool": POOL,
                    "pyswarm_data_dir": DATA,
                },
                "children": {
                    "pyswarm_managers": {"hosts": {m.name: self._host(m) for m in managers}},
                    "pyswarm_workers": {"hosts": {m.name: self._host(m) for m in workers}},
                },
            }
        }
        self.inventory.write_text(json.dumps(document, indent=2))

    def _host(self, machine: Machine) -> dict[str, Any]:
        labels = {"number": str(machine.host.number)}
        return {"ansible_host": machine.address, "pyswarm_address": machine.address, "pyswarm_node_labels": labels}

    def play(self, name: str, *options: str, code: int = 0) -> Ran:
        """Fails, with all that was said, when it ends otherwise."""
        self.played.add(shape([f"{name}.yml", *options]))
        started = time.monotonic()
        done = subprocess.run(
            [ANSIBLE_PLAYBOOK, "-i", str(self.inventory), f"playbooks/{name}.yml", *options],
            cwd=COLLECTION,
            env={
                **os.environ,
                "ANSIBLE_HOME": str(self._home),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_LOCALHOST_WARNING": "0",
            },
            capture_output=True,
            text=True,
            timeout=900,
        )
        took = time.monotonic() - started
        said = done.stdout + done.stderr
        assert done.returncode == code, f"{name}.yml {' '.join(options)} exited {done.returncode}\n{said[-8000:]}"
        changed = {m[1]: int(m[3]) for m in _RECAP.finditer(done.stdout)}
        print(f"{name}.yml {' '.join(options)}: {took:.0f} s, changed {sum(changed.values())} {changed}")
        return Ran(changed, said, took)
