"""A host's data disk without a free byte during a rollout: what runs goes on, and it ends by the rules."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyswarm_cli.lab import daemons, lifecycle
from pyswarm_cli.lab import host as lab_hosts
from tests.integration.ha.faults import WORKER
from tests.integration.ha.ha_lab import PORT, HaLab, clean, new_running
from tests.integration.ha.witness import Witness
from tests.support.lab import REGISTRY, SOAK, eventually

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]


@contextlib.contextmanager
def small_disk(lab: HaLab, name: str) -> Iterator[None]:
    """The host's data lies on a file system of its own, of 600 MB. The host is rebooted for it, before and after."""
    host = lab.layout.host(name)
    lab_hosts.power_off(lab.layout, host)
    aside = host.folder / "data.aside"
    host.data.rename(aside)
    host.data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600m,mode=755", "tmpfs", str(host.data)], check=True)
    try:
        subprocess.run(["cp", "-a", f"{aside}/.", str(host.data)], check=True)
        lifecycle.start_host(lab.layout, host)
        yield
    finally:
        lab_hosts.power_off(lab.layout, host)
        shutil.rmtree(aside)
        subprocess.run(["cp", "-a", f"{host.data}/.", str(aside)], check=True)
        subprocess.run(["umount", str(host.data)], check=True)
        host.data.rmdir()
        aside.rename(host.data)
        lifecycle.start_host(lab.layout, host)


def fill(lab: HaLab, host: str) -> None:
    lab.inside(host, "dd if=/dev/zero of=/var/lib/pyswarm/ballast bs=1M 2>/dev/null; df /var/lib/pyswarm | tail -1")
    assert lab.inside(host, "df --output=avail /var/lib/pyswarm | tail -1").strip() == "0"


def free(lab: HaLab, host: str) -> None:
    lab.inside(host, "rm -f /var/lib/pyswarm/ballast")


def _ready(lab: HaLab) -> bool:
    return all(n["status"] == "ready" for n in lab.json("node", "ls"))


@pytest.mark.skipif(not SOAK, reason="reboots two hosts: in the full counts")
@pytest.mark.parametrize("which", ["a worker", "the host of the leader and of its etcd member"])
def test_a_rollout_with_a_full_disk(lab: HaLab, witness: Witness, report: Path, which: str) -> None:
    host = WORKER if which == "a worker" else witness.leader
    with small_disk(lab, host):
        eventually(lambda: _ready(lab), "all nodes ready")
        lab.deploy_web(8)
        before = [t.id for t in witness.tasks_of("web")]
        with lab.load(PORT, report) as seen, lab.updating() as update:
            witness.wait(lambda w: new_running(w, before) >= 1, "a task of the new version")
            fill(lab, host)
            code = update.finish()
            free(lab, host)
            for daemon in lab.layout.host(host).daemons:
                # Etcd ends itself when it cannot write; it is for systemd, or here the test, to start it again.
                if lab_hosts.daemon_process(lab.layout, lab.layout.host(host), daemon) is None:
                    print(f"{daemon} has ended: {_last_words(lab, host, daemon)}")
                    daemons.start(lab.layout, lab.layout.host(host), daemon)
                    assert daemon == "etcd"
            if code:
                # By the rules a task that cannot be started fails the rollout; and, where it is the old version's turn
                # on that host, the rollback, which is paused then.
                assert code in (2, 3), update.output
                reason = lab.service("web")["rollout"]["reason"]
                assert "disk" in reason, reason
            if code != 3:
                lab.settle(witness, 180)
        print(f"the disk of {which} full: exit code {code}; {seen['sent']} requests, {seen['failed']} failed")
        clean(seen)
        # Nothing of it remains: the next one works.
        lab.cli("service", "update", "web", "--image", f"{REGISTRY}/web:v2", "--force")
        lab.settle(witness)


def _last_words(lab: HaLab, host: str, daemon: str) -> str:
    log = lab.layout.host(host).log / f"{daemon}.log"
    return log.read_text(errors="replace").strip().splitlines()[-1][:300]
