"""Each fault in the middle of a rolling update under load. Afterwards: the wanted state, no leak, balancers that are
equal to the endpoints, nothing that may never be; and requests that failed only where a container or a host died."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.ha.faults import FAULTS, WORKER, Fault
from tests.integration.ha.ha_lab import PORT, HaLab, new_running
from tests.integration.ha.witness import Witness
from tests.support.lab import SOAK

pytestmark = [pytest.mark.lab, pytest.mark.timeout(400)]

REPLICAS = 8


@pytest.mark.skipif(not SOAK, reason="half an hour: in the full counts")
@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.name)
def test_a_rollout_with(lab: HaLab, witness: Witness, report: Path, fault: Fault, number: int) -> None:
    lab.deploy_web(REPLICAS)
    before = [t.id for t in witness.tasks_of("web")]
    lost = {WORKER, witness.leader} if fault.entry_lost else set()
    entries = [h.address for h in lab.layout.hosts if h.name not in lost]
    with lab.load(PORT, report, on=entries) as seen, lab.updating() as update:
        witness.wait(lambda w: new_running(w, before) >= 1, "a task of the new version")
        with fault.inflict(lab, witness):
            pass
        code = update.finish()
        if code == 2 and fault.may_roll_back:
            # What died was of the new version, so the rollout failed by its rules and went back.
            lab.version = {"v1": "v2", "v2": "v1"}[lab.version]
        else:
            assert code == 0, f"exit code {code}\n{update.output}"
        lab.settle(witness)
    print(f"{fault.name}: exit code {code}; {seen['sent']} requests, {seen['failed']} failed", _reasons(seen))
    assert all(lab.version in t["image"] for t in lab.running("web"))
    assert seen["sent"] > 100
    assert seen["failed"] <= fault.lost, seen


def _reasons(seen: dict[str, Any]) -> dict[str, int]:
    return {**seen["new"]["reasons"], **seen["keep_alive"]["reasons"]}
