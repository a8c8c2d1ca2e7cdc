"""What happens to a task (events, into the machine) and what is to be done (instructions, out of it)."""

from __future__ import annotations

from dataclasses import dataclass

from pyswarm_agent.interfaces import ContainerExit
from pyswarm_agent.tasks.listens import NOTHING, Listens
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec


@dataclass(frozen=True, slots=True)
class DrainSample:
    """What the host's kernel says about the connections of a task that leaves."""

    open: int = 0  # connections that are not over yet, the agent's own probes left out
    late: int = 0  # connections that reached it after the redirect
    resets: int = 0


# ---- events ----


@dataclass(frozen=True, slots=True)
class Ordered:
    """The manager's words about the task changed. `gone`: it does not know the task any more."""

    task: pb.Task | None
    gone: bool = False


@dataclass(frozen=True, slots=True)
class Pulled:
    """The image is here; `probe` and `stop_signal` are its own, or the spec's where that has them; `listens` its ports,
    or the service's."""

    probe: spec.Probe | None = None
    stop_signal: str = "TERM"
    image_id: str = ""
    listens: Listens = NOTHING


@dataclass(frozen=True, slots=True)
class Progress:
    """What a long preparation is at: "pulling 3/7 layers"."""

    message: str


@dataclass(frozen=True, slots=True)
class Prepared:
    pid: int = 0


@dataclass(frozen=True, slots=True)
class PrepareFailed:
    """Pulling, mounting, attaching or creating failed. `final`: the same would fail again."""

    sentence: str
    final: bool


@dataclass(frozen=True, slots=True)
class Started:
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class StartFailed:
    sentence: str


@dataclass(frozen=True, slots=True)
class Settled:
    """It lives, and listens where it was waited for; or the time for that is over, and these ports are `missing`."""

    missing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class HealthChanged:
    health: pb.Health.ValueType
    output: str = ""  # of the last probe, when it is unhealthy


@dataclass(frozen=True, slots=True)
class Exited:
    """`exit` None: nobody knows how it ended, or, when `with_host`, it did so as its host was restarted."""

    exit: ContainerExit | None
    last_lines: tuple[str, ...] = ()
    sample: DrainSample | None = None
    with_host: bool = False


@dataclass(frozen=True, slots=True)
class Redirected:
    """The redirect away from the task is in this host's kernel."""

    at: float


@dataclass(frozen=True, slots=True)
class Drained:
    sample: DrainSample


@dataclass(frozen=True, slots=True)
class DrainTimedOut:
    sample: DrainSample


@dataclass(frozen=True, slots=True)
class TimerFired:
    """`at`, the unix time that it was armed for, has come: by a clock that nobody sets, the wall's may say otherwise. A
    timer that came late, from a stage that is over, does no harm."""

    at: float


@dataclass(frozen=True, slots=True)
class Cleaned:
    pass


@dataclass(frozen=True, slots=True)
class CleanFailed:
    sentence: str


@dataclass(frozen=True, slots=True)
class Lapsed:
    """An exclusive task may not run on: no leader has been heard for too long."""


Event = (
    Ordered
    | Pulled
    | Progress
    | Prepared
    | PrepareFailed
    | Started
    | StartFailed
    | Settled
    | HealthChanged
    | Exited
    | Redirected
    | Lapsed
    | Drained
    | DrainTimedOut
    | TimerFired
    | Cleaned
    | CleanFailed
)


# ---- instructions, to be carried out in order ----


@dataclass(frozen=True, slots=True)
class Journal:
    """Write the task's life down. `durable`: what follows may not begin before this is on the disk, or an earlier
    record that says that the task may be started."""

    durable: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the manager the task's status."""


@dataclass(frozen=True, slots=True)
class Pull:
    pass


@dataclass(frozen=True, slots=True)
class Prepare:
    """Mount and attach, side by side, then create."""


@dataclass(frozen=True, slots=True)
class Start:
    pass


@dataclass(frozen=True, slots=True)
class WatchExit:
    pass


@dataclass(frozen=True, slots=True)
class StartProbing:
    probe: spec.Probe
    started_at: float
    health: pb.Health.ValueType  # STARTING: it never was healthy yet


@dataclass(frozen=True, slots=True)
class AwaitPorts:
    """Look at its ports, at the longest until `until` (unix seconds); it must live to be settled."""

    listens: Listens
    until: float


@dataclass(frozen=True, slots=True)
class StopProbing:
    """And no more looks at its ports."""


@dataclass(frozen=True, slots=True)
class Signal:
    name: str  # without SIG; KILL goes to all processes


@dataclass(frozen=True, slots=True)
class ArmTimer:
    """One timer a task; a new one replaces it."""

    at: float


@dataclass(frozen=True, slots=True)
class WatchDrain:
    """Until no connection is open, at the longest until `deadline`."""

    deadline: float


@dataclass(frozen=True, slots=True)
class Clean:
    """Delete the container, then its mount and its link. First end what is still being prepared.

    `bury`: it died while it was taking connections, so the balancer must have let go of it before the link goes."""

    bury: bool = False


@dataclass(frozen=True, slots=True)
class Forget:
    """Log files and the journal's entry too: nothing of the task is left."""


Instruction = (
    Journal
    | Report
    | Pull
    | Prepare
    | Start
    | WatchExit
    | StartProbing
    | AwaitPorts
    | StopProbing
    | Signal
    | ArmTimer
    | WatchDrain
    | Clean
    | Forget
)
