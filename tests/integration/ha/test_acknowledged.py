"""What was acknowledged is there, whole, whatever is killed meanwhile."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from pyswarm_core.kinds import decode
from pyswarm_core.v1 import objects_pb2 as pb
from tests.integration.ha.ha_lab import HaLab
from tests.integration.ha.witness import Witness, Write
from tests.support.lab import REGISTRY, SOAK

pytestmark = pytest.mark.lab

DEPLOYS = 200 if SOAK else 15
SERVICES = 10 if SOAK else 5
WORKERS = 3


class Killer:
    """Kills managers and etcd members, any of them at any time, and starts each again after a while."""

    def __init__(self, lab: HaLab, rng: random.Random) -> None:
        self._lab = lab
        self._rng = rng
        self._stop = threading.Event()
        self.kills: list[str] = []

    @contextmanager
    def killing(self) -> Iterator[None]:
        with ThreadPoolExecutor(1) as pool:
            done = pool.submit(self._run)
            try:
                yield
            finally:
                self._stop.set()
            done.result()

    def _run(self) -> None:
        while not self._stop.wait(self._rng.uniform(0, 3)):
            host = self._rng.choice([h.name for h in self._lab.layout.managers])
            names = self._rng.choice([("manager",), ("etcd",), ("etcd", "manager")])
            self.kills.append(f"{'+'.join(names)} of {host}")
            self._lab.kill(host, *names)
            self._stop.wait(self._rng.uniform(0, 2))
            self._lab.start(host, *names)


class Deploys:
    """Of one service, one after the other: which numbers were asked for, and which acknowledged."""

    def __init__(self, lab: HaLab, name: str) -> None:
        self._lab = lab
        self.name = name
        self.asked: list[int] = []
        self.acknowledged: list[int] = []
        self.refused: dict[int, str] = {}
        self._lock = threading.Lock()

    def one(self, number: int) -> None:
        with self._lock:
            self.asked.append(number)
            done = self._lab.run(
                *("service", "deploy", self.name, f"{REGISTRY}/busybox:1", "--detach", "--replicas", "1"),
                *("--env", f"NUMBER={number}", "--stop-grace-period", "100ms", "--update-monitor", "100ms"),
            )
            assert "Traceback" not in done.stderr, done.stderr
            if done.returncode == 0:
                self.acknowledged.append(number)
            else:
                assert len(done.stderr.strip().splitlines()) == 1, done.stderr
                self.refused[number] = done.stderr.strip()


@pytest.mark.timeout(300 + 15 * DEPLOYS)
def test_acknowledged_deploys_are_there(lab: HaLab, witness: Witness) -> None:
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"SEED={seed}")
    rng = random.Random(seed)
    services = [Deploys(lab, f"d{n}") for n in range(SERVICES)]
    killer = Killer(lab, rng)
    began = time.monotonic()
    with killer.killing(), ThreadPoolExecutor(WORKERS) as pool:
        order = [services[rng.randrange(SERVICES)] for _ in range(DEPLOYS)]
        list(pool.map(lambda pair: pair[1].one(pair[0]), enumerate(order)))
    acknowledged = sum(len(each.acknowledged) for each in services)
    print(
        f"{acknowledged} of {DEPLOYS} deploys acknowledged in {time.monotonic() - began:.0f} s, {len(killer.kills)} "
        f"kills; not acknowledged: {[line for each in services for line in each.refused.values()]}"
    )
    assert acknowledged > DEPLOYS / 2
    for name in ("etcd", "manager"):
        for host in lab.layout.managers:
            lab.start(host.name, name)
    witness.wait(lambda w: w.leader, "the election of a leader")
    witness.settled_revision()
    _are_whole(witness)
    for each in services:
        _is_there(witness, each)
    lab.settle(witness, 180)


def _number(service: pb.Service) -> int:
    return next(int(e.removeprefix("NUMBER=")) for e in service.spec.task.container.env if e.startswith("NUMBER="))


def _services(witness: Witness) -> Iterator[tuple[Write, pb.Service]]:
    for write in witness.since(0, ("service",)):
        if not write.is_delete:
            service = decode("service", write.value, write.revision)
            assert isinstance(service, pb.Service)
            yield write, service


def _is_there(witness: Witness, deploys: Deploys) -> None:
    """Each acknowledged one was stored, and what is wanted now is the last of them, or one after it that may have been
    stored though nobody could say so."""
    stored = [_number(s) for _, s in _services(witness) if s.spec.name == deploys.name]
    lost = set(deploys.acknowledged) - set(stored)
    assert not lost, f"{deploys.name}: acknowledged and never stored: {sorted(lost)}"
    if not deploys.acknowledged:
        return
    found = [s for s in witness.services.values() if s.spec.name == deploys.name]
    assert len(found) == 1, f"{len(found)} services are named {deploys.name}"
    last = deploys.acknowledged[-1]
    later = deploys.asked[deploys.asked.index(last) :]
    assert _number(found[0]) in later, f"{deploys.name} is at {_number(found[0])}; {last} was acknowledged"


def _are_whole(witness: Witness) -> None:
    """A service's new spec and its rollout are one write."""
    rollouts = {}
    for write in witness.since(0, ("rollout",)):
        if not write.is_delete:
            rollouts[(write.key.rpartition("/")[2], write.revision)] = decode("rollout", write.value, write.revision)
    versions: dict[str, int] = {}
    for write, service in _services(witness):
        if service.spec_version == versions.get(service.id, 0):
            continue
        versions[service.id] = service.spec_version
        rollout = rollouts.get((service.rollout_id, write.revision))
        assert isinstance(rollout, pb.Rollout), f"{service.spec.name} {service.spec_version} came without its rollout"
        assert rollout.to_version == service.spec_version
