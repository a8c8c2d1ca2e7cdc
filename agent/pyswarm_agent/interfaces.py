"""The agent's inner borders: what the task machine's shell needs from runtime, images and network.

Real ones: `runtime.conmon.ConmonRuntime`, `images.store.ImageStore`, `network.links.TaskLinks`. Fakes
for tests are real classes in `tests/unit/agent/fakes.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """Of the image's OCI/Docker config, what a container starts from."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    stop_signal: str = ""
    volumes: tuple[str, ...] = ()  # paths that get an anonymous volume
    exposed: tuple[str, ...] = ()  # "80/tcp"
    probe: spec.Probe | None = None  # HEALTHCHECK
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Image:
    id: str  # of the config, hex
    digest: str  # of the manifest, sha256:…
    config: ImageConfig


class ImageFailure(Exception):
    """Pulling failed. `final`: the same pull would fail again (no such tag, bad digest, not allowed)."""

    def __init__(self, sentence: str, *, final: bool) -> None:
        super().__init__(sentence)
        self.final = final


class Images(Protocol):
    async def pull(
        self, image: str, digest: str, auth: pb.RegistryAuth | None, progress: Callable[[str], None]
    ) -> Image:
        """Makes sure the image is here. Concurrent calls for one image share one pull. Raises ImageFailure."""
        ...

    async def mount(self, image: Image, task_id: str) -> Path:
        """The task's copy-on-write root file system; the same path when it is mounted already."""
        ...

    async def unmount(self, task_id: str) -> None:
        """Also deletes what the container wrote. Nothing there is no error."""
        ...

    async def collect(self, keep: frozenset[str]) -> None:
        """While the disk is over 80 % full, removes images whose id is not in `keep`, oldest use first."""
        ...


@dataclass(frozen=True, slots=True)
class ContainerExit:
    code: int  # 128 + signal for a signal
    oom: bool
    at: float  # unix seconds


@dataclass(frozen=True, slots=True)
class ContainerState:
    task_id: str
    pid: int  # 0 when it does not run
    running: bool
    exit: ContainerExit | None
    started_at: float


@dataclass(frozen=True, slots=True)
class ContainerRequest:
    """Everything a runtime needs for one container. Templates in env, hostname and mounts are expanded already."""

    task_id: str
    service_name: str
    container: spec.ContainerSpec
    resources: spec.Resources
    log: spec.LogPolicy
    image: ImageConfig
    rootfs: Path
    netns: Path  # a bind-mounted network namespace
    hostname: str
    nameserver: str  # written to resolv.conf, with `search`
    search: tuple[str, ...]
    hosts: tuple[tuple[str, str], ...]  # (address, name) lines for /etc/hosts
    labels: Mapping[str, str]


class ContainerFailure(Exception):
    """Creating or starting failed; one sentence. `final`: it would fail again (bad command, no such user)."""

    def __init__(self, sentence: str, *, final: bool) -> None:
        super().__init__(sentence)
        self.final = final


class Runtime(Protocol):
    async def create(self, request: ContainerRequest) -> int:
        """Created, not started (OCI `create`); returns its pid. Idempotent per task_id."""
        ...

    async def start(self, task_id: str) -> None: ...

    async def wait(self, task_id: str) -> ContainerExit:
        """Returns when the container has ended, at once if it had. Survives the agent's restart."""
        ...

    async def kill(self, task_id: str, signal: str) -> None:
        """To the container's first process; "KILL" to all of them. A container that is gone is no error."""
        ...

    async def delete(self, task_id: str) -> None:
        """Cgroup, bundle, state, conmon: gone. Log files stay until `forget`. Nothing there is no error."""
        ...

    async def forget(self, task_id: str) -> None:
        """Deletes log files and everything else of the task on disk."""
        ...

    async def execute(self, task_id: str, argv: Sequence[str], timeout: float) -> tuple[int, str]:
        """Runs a command inside, as the container's user; (exit code, last 4 KiB of output).

        TimeoutError after `timeout` seconds, the process killed."""
        ...

    async def states(self) -> Sequence[ContainerState]:
        """All containers of this agent that the disk knows of: for re-adoption."""
        ...

    def log_files(self, task_id: str) -> Sequence[Path]:
        """Oldest first. Format: CRI lines, `RFC3339Nano stdout|stderr F|P text`."""
        ...


class Links(Protocol):
    """The task's side of the network: a namespace with one veth. The host's side (VXLAN, routes) is derived apart."""

    async def attach(
        self, task_id: str, addresses: Sequence[str], sysctls: Mapping[str, str], pinned: Callable[[Path], None]
    ) -> Path:
        """The namespace with lo up and all /32 addresses; returns its path. Idempotent.

        `pinned` is called as soon as a container can be made in the namespace, before it has addresses."""
        ...

    async def detach(self, task_id: str) -> None: ...

    async def attached(self) -> Sequence[str]:
        """Task ids that have a namespace or veth here, for the clean-up after a crash."""
        ...
