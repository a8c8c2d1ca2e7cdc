"""The shell of one task: carries out what its machine says, and tells it what came of that.

`feed` is the only way in; it never waits. What takes time runs as an asyncio task of its own and ends by feeding an
event, whatever happens, so that the machine is never left without an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Protocol

from pyswarm_agent.interfaces import ContainerFailure, Image, ImageFailure
from pyswarm_agent.tasks import events as ev
from pyswarm_agent.tasks.addresses import AddressGuard
from pyswarm_agent.tasks.drains import sample, watch_drain
from pyswarm_agent.tasks.life import Life, Phase
from pyswarm_agent.tasks.listens import listens_of
from pyswarm_agent.tasks.machine import Step, handle
from pyswarm_agent.tasks.request import container_request, effective_probe, effective_stop_signal
from pyswarm_agent.tasks.templates import TemplateError
from pyswarm_agent.tasks.tools import LAST_LINES, Running, Tools
from pyswarm_core.errors import PyswarmError
from pyswarm_core.log import get_logger
from pyswarm_core.v1 import objects_pb2 as pb

log = get_logger("agent.task")

ADDRESS_WAIT = 20.0  # seconds until an address's last holder is cleaned up; then the attempt counts as failed
READY_WAIT = 10.0  # seconds for the host's side of the task's networks
BURY_WAIT = 3.0  # seconds for the balancer to let go of a task that died; then its link goes all the same
WATCH_AGAIN = 1.0
STOP_WAIT = 5.0  # seconds for a container that is being made when the agent stops


class Audience(Protocol):
    """Who hears of a task."""

    def changed(self, life: Life) -> None:
        """Of every new life."""
        ...

    def report(self, life: Life) -> None:
        """When the manager is to be told its status."""
        ...

    def forgotten(self, life: Life) -> None:
        """When nothing of it is left."""
        ...


class TaskRunner:
    def __init__(
        self,
        tools: Tools,
        addresses: AddressGuard,
        first: Step,
        audience: Audience,
    ) -> None:
        self._tools = tools
        self._addresses = addresses
        self._audience = audience
        self._image: Image | None = None
        self._making: asyncio.Task[None] | None = None  # a pull, a preparation or a start: one at a time
        self._interruptible = False  # nothing is left half made when it is cancelled now
        self._recording: asyncio.Task[bool] | None = None  # that it may start
        self._others: set[asyncio.Task[None]] = set()
        self._drain: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._probing: Running | None = None  # or looking at its ports
        self._log = log.bind(task=first[0].id, service=first[0].task.service_name)
        self.life = first[0]
        self._first = first

    def begin(self) -> None:
        self._advance(self._first)

    def feed(self, event: ev.Event) -> None:
        self._advance(handle(self.life, event, self._tools.clock()))

    def _advance(self, step: Step) -> None:
        before, (self.life, todo) = self.life, step
        if self.life.status.state != before.status.state or self.life.phase != before.phase:
            self._log.debug("task moved on", phase=self.life.phase.name.lower(), state=self.life.status.state)
        for instruction in todo:
            self._carry_out(instruction)
        self._audience.changed(self.life)

    def _carry_out(self, instruction: ev.Instruction) -> None:
        match instruction:
            case ev.Journal():
                self._tools.lives.save(self.life)
            case ev.Report():
                self._audience.report(self.life)
            case ev.Pull():
                self._make(self._pull())
                self._interruptible = True
            case ev.Prepare():
                if self.life.may_start:
                    self._recording = asyncio.create_task(self._record())
                self._make(self._prepare())
            case ev.Start():
                self._make(self._start())
            case ev.WatchExit():
                self._spawn(self._watch_exit())
            case ev.StartProbing(probe=probe, started_at=started_at, health=health):
                address = self.life.task.addresses[0].address if self.life.task.addresses else "127.0.0.1"
                self._probing = self._tools.probes.start(
                    self.life.id, address, probe, started_at, health, lambda h, out: self.feed(ev.HealthChanged(h, out))
                )
            case ev.AwaitPorts(listens=listens, until=until):
                addresses = [a.address for a in self.life.task.addresses]
                self._probing = self._tools.ports.start(
                    self.life.id, self.life.status.pid, addresses, listens, until, lambda m: self.feed(ev.Settled(m))
                )
            case ev.StopProbing():
                self._stop_probing()
            case ev.Signal(name=name):
                self._spawn(self._signal(name))
            case ev.ArmTimer(at=at):
                self._arm(at)
            case ev.WatchDrain(deadline=deadline):
                self._drain = self._spawn(self._watch_drain(deadline))
            case ev.Clean(bury=bury):
                self._spawn(self._clean(bury))
            case ev.Forget():
                self._spawn(self._forget())

    async def close(self) -> None:
        """The agent stops: its work ends, no container is touched. What is just being made may finish."""
        self._stop_probing()
        if self._timer is not None:
            self._timer.cancel()
        if self._making is not None and not self._interruptible:
            await asyncio.wait({self._making}, timeout=STOP_WAIT)
        work = {*self._others, *(each for each in (self._making, self._recording) if each is not None)}
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)

    # ---- making ----

    def _make(self, work: Coroutine[None, None, None]) -> None:
        self._interruptible = False
        self._making = asyncio.create_task(work)

    async def _pull(self) -> None:
        task = self.life.task
        container = task.spec.container
        try:
            image = await self._tools.images.pull(
                container.image,
                container.digest,
                self._tools.auth(task.service_id),
                lambda message: self.feed(ev.Progress(message)),
            )
        except ImageFailure as error:
            self.feed(ev.PrepareFailed(str(error), error.final))
        except Exception as error:
            self.feed(self._unexpected("pull failed", error))
        else:
            self._image = image
            probe, word = effective_probe(container, image), effective_stop_signal(container, image)
            self.feed(ev.Pulled(probe, word, image.id, listens_of(task, image.config.exposed)))

    async def _prepare(self) -> None:
        try:
            pid = await self._create()
        except (ImageFailure, ContainerFailure) as error:
            self.feed(ev.PrepareFailed(str(error), error.final))
        except TemplateError as error:
            self.feed(ev.PrepareFailed(str(error), True))
        except TimeoutError:
            self.feed(ev.PrepareFailed("the host's network is not ready for it yet", False))
        except PyswarmError as error:
            self.feed(ev.PrepareFailed(str(error), not error.retryable))
        except Exception as error:
            self.feed(self._unexpected("prepare failed", error))
        else:
            self.feed(ev.Prepared(pid))

    async def _create(self) -> int:
        tools, task, image = self._tools, self.life.task, self._image
        assert image is not None, "a preparation follows a pull"
        addresses = [a.address for a in task.addresses]
        self._interruptible = True
        await self._addresses.take(task.id, addresses, ADDRESS_WAIT)
        async with tools.slots.create:
            self._interruptible = False
            pid = await self._make_parts(task, image, addresses)
        self._interruptible = True
        async with asyncio.timeout(READY_WAIT):
            await tools.ready.wait_for_task(task.id)
        return pid

    async def _make_parts(self, task: pb.Task, image: Image, addresses: list[str]) -> int:
        """The link side by side with what needs no more of it than the namespace. Returns when all have ended."""
        tools = self._tools
        netns: asyncio.Future[Path] = asyncio.get_running_loop().create_future()

        def pinned(path: Path) -> None:
            if not netns.done():
                netns.set_result(path)

        async def link() -> None:
            try:
                pinned(await tools.links.attach(task.id, addresses, dict(task.spec.container.sysctls), pinned))
            finally:
                netns.cancel()

        async def container() -> int:
            rootfs = await tools.images.mount(image, task.id)
            return await tools.runtime.create(container_request(task, image, rootfs, await netns, tools.here))

        linked, pid = await asyncio.gather(link(), container(), return_exceptions=True)
        if isinstance(linked, BaseException):
            raise linked
        if isinstance(pid, BaseException):
            raise pid
        return pid

    async def _record(self) -> bool:
        """Side by side with the preparation. Whether it worked: at the start it is tried again, and a failure told."""
        try:
            await self._tools.lives.sync()
        except Exception as error:
            self._log.warning("the journal is not on the disk", error=error)
            return False
        return True

    async def _start(self) -> None:
        tools, task_id = self._tools, self.life.id
        try:
            if self._recording is None or not await self._recording:
                await tools.lives.sync()
            async with tools.slots.start:
                if self.life.task.spec.exclusive:
                    await tools.guard(task_id)
                    # The permit is the host's. Orders come before the answer that renewed it, so what was given up
                    # while this waited (or was frozen) is known by now.
                    if self.life.unwanted:
                        raise ContainerFailure("it was given up before it could be started", final=True)
                await tools.runtime.start(task_id)
        except (ContainerFailure, PyswarmError) as error:
            # After an agent's restart in the middle of a start, the runtime may refuse because it runs already.
            if await self._runs():
                self.feed(ev.Started(tools.clock()))
            else:
                self.feed(ev.StartFailed(str(error)))
        except Exception as error:
            self.feed(ev.StartFailed(self._unexpected("start failed", error).sentence))
        else:
            self.feed(ev.Started(tools.clock()))

    async def _runs(self) -> bool:
        try:
            states = await self._tools.runtime.states()
        except Exception as error:
            self._log.error("containers cannot be listed", error=error)
            return False
        return any(s.task_id == self.life.id and (s.running or s.exit is not None) for s in states)

    # ---- watching ----

    async def _watch_exit(self) -> None:
        tools, task_id = self._tools, self.life.id
        while True:
            try:
                end = await tools.runtime.wait(task_id)
                break
            except Exception:
                self._log.exception("waiting for the container failed")
                await asyncio.sleep(WATCH_AGAIN)
        if self.life.phase is Phase.RUNNING:
            self._spawn(self._bury())  # clients wait: before its last words are read
        lines: tuple[str, ...] = ()
        try:
            lines = tuple(await tools.logs.last_lines(task_id, LAST_LINES))
        except Exception as error:
            self._log.warning("last log lines cannot be read", error=error)
        figures = await sample(tools.balancer, task_id) if self.life.phase >= Phase.DRAINING else None
        self.feed(ev.Exited(end, lines, figures))

    async def _watch_drain(self, deadline: float) -> None:
        self.feed(await watch_drain(self._tools.balancer, self.life.id, deadline - self._tools.clock()))

    def _arm(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        delay = max(0.0, at - self._tools.clock())
        self._timer = asyncio.get_running_loop().call_later(delay, lambda: self.feed(ev.TimerFired(at)))

    def _stop_probing(self) -> None:
        if self._probing is not None:
            self._probing.stop()
            self._probing = None

    # ---- ending ----

    async def _signal(self, name: str) -> None:
        try:
            await self._tools.runtime.kill(self.life.id, name)
        except Exception as error:
            self._log.error("signal not sent", signal=name, error=error)

    async def _clean(self, bury: bool) -> None:
        tools, task_id = self._tools, self.life.id
        if self._timer is not None:
            self._timer.cancel()
        if self._drain is not None:
            self._drain.cancel()
        try:
            if self._making is not None:
                if self._interruptible:
                    self._making.cancel()
                await asyncio.wait({self._making})
            if bury:
                await self._bury()
            await tools.runtime.delete(task_id)
            results = await asyncio.gather(
                tools.images.unmount(task_id), tools.links.detach(task_id), return_exceptions=True
            )
            for result in results:
                if isinstance(result, BaseException):
                    raise result
            await self._addresses.give_up(task_id)
        except Exception as error:
            self.feed(ev.CleanFailed(self._unexpected("clean-up failed", error).sentence))
        else:
            self.feed(ev.Cleaned())

    async def _bury(self) -> None:
        """Again for one that is buried does nothing, but waits until it is."""
        try:
            async with asyncio.timeout(BURY_WAIT):
                await self._tools.balancer.task_died(self.life.id)
        except Exception as error:
            self._log.error("the balancer did not let go of a task that died", error=error)

    async def _forget(self) -> None:
        try:
            await self._tools.runtime.forget(self.life.id)
        except Exception as error:
            self._log.error("log files are left behind", error=error)
        self._tools.lives.drop(self.life.id)
        self._audience.forgotten(self.life)

    # ---- helpers ----

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)
        return task

    def _unexpected(self, event: str, error: Exception) -> ev.PrepareFailed:
        if isinstance(error, (PyswarmError, ContainerFailure, ImageFailure)):
            self._log.warning(event, error=error)
        else:
            self._log.exception(event)
        return ev.PrepareFailed(str(error) or type(error).__name__, False)
