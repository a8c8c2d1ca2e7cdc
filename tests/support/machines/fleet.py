"""Several real hosts on one bridge, with the image registry that they can reach, and nothing else of the world.

with Fleet("ansible", count=5) as fleet:
    fleet.boot(fleet.machines[:4])
    fleet.machines[0].ssh("systemctl is-system-running")
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pyswarm_cli.lab import cgroups, layout, registry, switch
from pyswarm_cli.lab import host as hosts
from pyswarm_cli.lab.layout import REGISTRY_NAME, Lab
from pyswarm_core import contexts
from pyswarm_core.tls import Authority
from tests.support.lab import LabUnderTest, leftovers
from tests.support.machines import trees, wheels
from tests.support.machines.machine import Machine, layers, make_key


class Fleet:
    """`bare`: the numbers (from 1) of the hosts whose tree has nothing of what pyswarm needs."""

    def __init__(self, name: str, count: int, *, bare: Sequence[int] = ()) -> None:
        self.trees = trees.get()
        self.folder = Path(tempfile.mkdtemp(prefix="pyswarm-fleet-"))
        self.shared = self.folder / "shared"
        self.lab = _bridged(f"{name}-{os.getpid()}", count)
        self._authority = Authority.create("tests")
        key = make_key(self.folder)
        self.machines = [
            Machine(self.lab, host, layers(self.trees, bare=host.number in bare), self.shared, key)
            for host in self.lab.hosts
        ]

    def __enter__(self) -> Fleet:
        try:
            self._share()
            for machine in self.machines:
                machine.install()
                trusted = machine.disk / "upper/etc/containers/certs.d" / self.lab.registry
                trusted.mkdir(parents=True)
                (trusted / "ca.crt").write_bytes(self._authority.ca_pem)
            (self.folder / "known_hosts").write_text("".join(m.host_key for m in self.machines))
            identity = self._authority.issue(
                common_name=REGISTRY_NAME, role="registry", names=[REGISTRY_NAME], addresses=[self.lab.gateway]
            )
            identity.save(self.lab.folder / "registry" / "tls")
            registry.start(self.lab)
            hosts.wait_until(lambda: registry.answers(self.lab), 30, "the registry did not answer")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        assert leftovers(self.lab.name) == []

    def close(self) -> None:
        for machine in self.machines:
            machine.cut_power()
        registry.stop(self.lab)
        switch.remove(self.lab)
        cgroups.remove(self.lab.name)
        shutil.rmtree(self.lab.folder, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def boot(self, machines: Iterable[Machine]) -> None:
        chosen = list(machines)
        for machine in chosen:
            machine.boot()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(Machine.wait, chosen))

    def wheel(self, version: str = "") -> Path:
        """Of this tree, for the host that Ansible runs on."""
        return wheels.build(self.folder / f"wheel-{version or 'current'}", version=version)

    def build_images(self) -> None:
        """web:v1, web:v2 and the others of the lab's tests, into the registry."""
        config = self.folder / "config"
        under_test = LabUnderTest(self.lab.name, config)
        identity = self._authority.issue(common_name="tests", role="client", names=[], addresses=[])
        os.environ["PYSWARM_CONFIG_DIR"], before = str(config), os.environ.get("PYSWARM_CONFIG_DIR")
        try:
            contexts.save(
                self.lab.name,
                contexts.Context(
                    managers=(f"{self.lab.hosts[0].address}:2377",),
                    ca=identity.ca_pem.decode(),
                    cert=identity.cert_pem.decode(),
                    key=identity.key_pem.decode(),
                    hosts={REGISTRY_NAME: self.lab.gateway},
                    registry_ca={self.lab.registry: identity.ca_pem.decode()},
                ),
            )
        finally:
            if before is None:
                del os.environ["PYSWARM_CONFIG_DIR"]
            else:
                os.environ["PYSWARM_CONFIG_DIR"] = before
        under_test.build_images(self.folder)

    def _share(self) -> None:
        """What the hosts see under /srv/shared: an apt repository, and wheels."""
        self.shared.mkdir()
        for name, source in (("debian", self.trees.debian), ("wheels", wheels.dependencies())):
            # hard links: one folder to mount, and no second copy
            subprocess.run(["cp", "-al", str(source), str(self.shared / name)], check=True)


def _bridged(name: str, count: int) -> Lab:
    with layout.lock():
        octet = layout.free_octet({lab.octet for lab in layout.existing()})
        lab = Lab(name=name, octet=octet, host_count=count, manager_count=0)
        lab.save()
    switch.make(lab)
    return lab
