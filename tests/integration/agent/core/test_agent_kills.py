"""The real agent is killed over and over while tasks start and stop: none starts twice, none is lost, nothing leaks."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.agent.core.onehost import OneHost, missing, one_host
from tests.integration.agent.core.test_agent_process import state, task, told, until, welcome

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

pytestmark = [pytest.mark.skipif(bool(missing()), reason=missing() or "-"), pytest.mark.timeout(300)]
KILLS = 50 if os.environ.get("SOAK") == "1" else 12
SLOTS = 4
SEED = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 10**6)


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[OneHost]:
    with one_host(tmp_path) as made:
        yield made


def counted(bed: OneHost, number: int, address: str) -> pb.Task:
    """A task that writes its id into a volume when it starts, and obeys SIGTERM at once."""
    made = task(
        bed,
        f"k{number}",
        ["sh", "-c", f"echo k{number} >> /out/starts; trap 'exit 0' TERM; sleep 1000 & wait"],
        address,
    )
    made.service_id = made.service_name = f"s{number}"
    made.spec.container.mounts.add(type=spec.MOUNT_TYPE_VOLUME, source="starts", target="/out")
    return made


async def test_kills_at_random_moments(bed: OneHost) -> None:
    print(f"SEED={SEED}")
    rng = random.Random(SEED)
    await bed.manager.start()
    try:
        await bed.start_agent()
        wanted: dict[str, pb.Task] = {}
        made = 0
        session = await welcome(bed)
        for _ in range(KILLS):
            # some go, some come; the addresses of those that go are not given to those that come in the same round
            for task_id in rng.sample(sorted(wanted), min(len(wanted), rng.randint(0, 2))):
                leaving = told(wanted[task_id], desired_state=pb.TASK_STATE_SHUTDOWN, leaving=True, released=True)
                wanted[task_id] = leaving
                session.assign([leaving])
            while sum(t.desired_state == pb.TASK_STATE_RUNNING for t in wanted.values()) < SLOTS:
                made += 1
                new = counted(bed, made, f"10.140.64.{made + 1}")
                wanted[new.id] = new
                session.assign([new])
            await asyncio.sleep(rng.random() * 0.25)
            await bed.end_agent(signal.SIGKILL)
            await bed.start_agent()
            session = await welcome(bed, *wanted.values())

        def settled() -> bool:
            return all(
                state(session, t.id)
                == (pb.TASK_STATE_RUNNING if t.desired_state == pb.TASK_STATE_RUNNING else pb.TASK_STATE_SHUTDOWN)
                for t in wanted.values()
            )

        try:
            await until(settled, "all tasks are where they should be", 40)
        except AssertionError:
            print({t.id: (t.desired_state, session.statuses.get(t.id)) for t in wanted.values()})
            raise
        starts = (bed.host.data / "volumes" / "starts").rglob("starts")
        lines = [line for path in starts for line in path.read_text().split()]
        assert len(lines) == len(set(lines)), f"started twice: {lines}"
        running = {t.id for t in wanted.values() if t.desired_state == pb.TASK_STATE_RUNNING}
        assert running <= set(lines)
        session.assign(removed=list(wanted))
        deadline = time.monotonic() + 30
        while left := await bed.leftovers():
            assert time.monotonic() < deadline, left
        assert "Traceback" not in bed.agent_log()
    finally:
        await bed.manager.stop()
