"""The leader is killed in the middle of a rolling update under load: another goes on where it was."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.integration.ha.ha_lab import PORT, HaLab, clean, new_running
from tests.integration.ha.witness import Witness, percentiles
from tests.support.lab import SOAK

pytestmark = pytest.mark.lab

KILLS = 20 if SOAK else 2
REPLICAS = 10


@pytest.mark.timeout(300 + 60 * KILLS)
def test_a_rolling_update_outlives_its_leaders(lab: HaLab, witness: Witness, report: Path) -> None:
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"SEED={seed}")
    rng = random.Random(seed)
    lab.deploy_web(REPLICAS, "--update-parallelism", "3")
    elected: dict[str, list[float]] = {"manager": [], "manager and etcd": []}
    wrote: dict[str, list[float]] = {"manager": [], "manager and etcd": []}
    with lab.load(PORT, report) as seen:
        for number in range(KILLS):
            victims = ("manager", "etcd") if number % 2 else ("manager",)
            before = [t.id for t in witness.tasks_of("web")]
            point = rng.randrange(1, REPLICAS)
            with lab.updating() as update:
                witness.wait(lambda w, b=before, p=point: new_running(w, b) >= p, f"{point} tasks of the new version")
                leader, term, revision = witness.leader, witness.leader_revision, witness.revision
                killed_at = lab.kill(leader, *victims)
                witness.wait(lambda w, term=term: w.leader_revision not in (0, term), "the election of another leader")
                new_term = witness.leader_revision
                witness.wait(lambda w, new_term=new_term: w.since(new_term), "the new leader's first write")
                lab.web_is_updated(update)
            lab.start(leader, *reversed(victims))
            # Of the old leader nothing can come any more: what follows the new key is the new leader's.
            first = witness.since(new_term)[0]
            election = next(w for w in witness.since(revision, ("leader",)) if w.revision == new_term)
            kind = " and ".join(victims)
            elected[kind].append(election.at - killed_at)
            wrote[kind].append(first.at - killed_at)
            print(
                f"{number}: {kind} of {leader} killed at {point} of {REPLICAS}, {witness.leader} leads after "
                f"{elected[kind][-1]:.2f} s, its first write ({first.kind}) after {wrote[kind][-1]:.2f} s"
            )
    lab.settle(witness)
    for kind in elected:
        print(f"{kind}: kill to election {percentiles(elected[kind])}; to the first write {percentiles(wrote[kind])}")
    print("load:", seen["sent"], "requests,", seen["failed"], "failed; ms", seen["new"]["ms"], seen["keep_alive"]["ms"])
    clean(seen)
