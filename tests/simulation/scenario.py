"""What will happen in one run: made of a seed beforehand, so that a part of it can be left out."""

from __future__ import annotations

import random
from dataclasses import dataclass

CYCLE, STORM = 360.0, 200.0  # seconds: faults come in the first part of each cycle, the user acts in all of it
FAULTS_PER_HOUR = 84  # up to a quarter of them find nothing to hit
ACTIONS_PER_HOUR = 72
FIRST = 20.0  # seconds until the services of the beginning are there

FAULTS = {
    "a manager is killed": 6,
    "a manager is killed at a write": 7,
    "a manager is frozen": 5,
    "a leader loses time and etcd": 3,
    "a leader's writes are late": 3,
    "a member is killed": 3,
    "etcd loses its quorum": 2,
    "etcd loses answers": 4,
    "writes are lost": 10,
    "etcd is slow": 3,
    "a watch stands still": 3,
    "history is compacted": 4,
    "streams break": 4,
    "a stream is half open": 3,
    "a clock jumps": 3,
    "the network is slow": 2,
    "an agent is killed": 5,
    "an agent is killed at a write": 8,
    "an agent is away": 3,
    "an agent is frozen": 3,
    "a disk is full": 2,
    "a disk is slow": 2,
    "a host loses its power": 3,
    "a host loses its power at a start": 3,
    "a host is cut off": 4,
    "a host is cut off one way": 3,
    "two hosts lose each other": 2,
    "a writer is cut off": 4,
    "a writer's agent is frozen": 3,
    "a writer's agent is back as it is given up": 3,
    "a writer stays with an old leader": 2,
    "a fuse dies": 2,
    "a container dies": 6,
    "a container dies while it drains": 4,
    "a container falls ill": 7,
    "a service falls ill": 4,
    "a registry is away": 2,
    "images are slow": 2,
    "a kernel refuses": 2,
    "a kernel hangs": 3,
    "a runtime fails": 2,
    "a host is slow": 3,
}
ACTIONS = {
    "deploy": 8,
    "update": 30,
    "scale": 14,
    "roll back": 6,
    "remove": 8,
    "drain": 8,
    "activate": 8,
    "pause": 3,
    "relabel": 3,
    "make a network": 3,
    "remove a network": 2,
    "remove a node": 2,
    "two at once": 4,
    "change one's mind": 8,
}
# While etcd does not say, or not soon, what has become of a write, somebody is to write: soon after these faults begin.
UNSURE = ("a leader's writes are late", "etcd loses answers", "writes are lost", "etcd is slow", "a member is killed")
SOON = 8.0  # seconds
CHANGES = {"update": 4, "scale": 3, "deploy": 2, "remove": 2, "change one's mind": 1}


@dataclass(frozen=True, slots=True)
class Step:
    """`number` decides all that is left open."""

    at: float  # simulated seconds
    what: str
    number: int


def make(seed: int, hours: float) -> tuple[Step, ...]:
    rng = random.Random(f"{seed}/scenario")
    length = hours * 3600
    faults = [_in_storm(rng, length) for _ in range(round(FAULTS_PER_HOUR * hours))]
    actions = [rng.uniform(FIRST, FIRST + length) for _ in range(round(ACTIONS_PER_HOUR * hours))]
    steps = [Step(at, rng.choices(list(FAULTS), list(FAULTS.values()))[0], rng.getrandbits(32)) for at in faults]
    steps += [Step(at, rng.choices(list(ACTIONS), list(ACTIONS.values()))[0], rng.getrandbits(32)) for at in actions]
    for at in [step.at for step in steps if step.what in UNSURE for _ in range(2)]:
        what = rng.choices(list(CHANGES), list(CHANGES.values()))[0]
        steps.append(Step(at + rng.uniform(0.0, SOON), what, rng.getrandbits(32)))
    return tuple(sorted(steps, key=lambda step: (step.at, step.number)))


def _in_storm(rng: random.Random, length: float) -> float:
    while True:
        at = rng.uniform(0, length)
        if at % CYCLE < STORM:
            return FIRST + at
