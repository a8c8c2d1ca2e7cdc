"""Network namespaces by threads. A process that forks with live gRPC streams loses children, so nothing here forks: a
thread of its own enters a namespace, works, and ends with it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_MS_BIND = 4096
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def enter_new() -> None:
    """The calling thread, and it alone, is in a new namespace from now on."""
    _check(_libc.unshare(_CLONE_NEWNET), "unshare")


def enter(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(descriptor)
    finally:
        os.close(descriptor)


def _enter(descriptor: int) -> None:
    _check(_libc.setns(descriptor, _CLONE_NEWNET), "setns")


def pin(path: Path) -> None:
    """Keeps the calling thread's namespace alive under this path, which is created."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o444)
    own = f"/proc/self/task/{threading.get_native_id()}/ns/net".encode()
    _check(_libc.mount(own, os.fsencode(path), None, _MS_BIND, None), f"mount {path}")


def is_pinned(path: Path) -> bool:
    """A namespace is there, and not the mere file that a crash (or a reboot, on disk) left."""
    try:
        return path.stat().st_dev == Path("/proc/self/ns/net").stat().st_dev
    except FileNotFoundError:
        return False


def unpin(path: Path) -> None:
    """Nothing there is no error. The namespace goes when nothing else uses it."""
    while is_pinned(path):
        _check(_libc.umount2(os.fsencode(path), _MNT_DETACH), f"umount {path}")
    path.unlink(missing_ok=True)


class Threads:
    """A few threads for calls that change their thread's network namespace; after a call its thread is back where it
    began. They begin in the namespaces of the thread that uses them first. (A new thread for each call costs as much as
    a call: whoever starts it has to wait until it runs.)"""

    def __init__(self, count: int) -> None:
        self._homes = threading.local()
        self._open: list[int] = []
        self._pool = ThreadPoolExecutor(count, "netns", initializer=self._begin)

    def _begin(self) -> None:
        self._homes.descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._open.append(self._homes.descriptor)

    async def run(self, call: Callable[[], T]) -> T:
        """Not cancelled half-way: it takes milliseconds."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._run, call)

    def _run(self, call: Callable[[], T]) -> T:
        # Also before: should the way back have failed, the next call must not begin in a task's namespace.
        _enter(self._homes.descriptor)
        try:
            return call()
        finally:
            _enter(self._homes.descriptor)

    def close(self) -> None:
        self._pool.shutdown()
        while self._open:
            os.close(self._open.pop())


async def in_own_thread(call: Callable[[], T]) -> T:
    """For a call that changes its thread's namespace. Not cancelled half-way: it takes milliseconds."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            result = call()
        except BaseException as e:
            loop.call_soon_threadsafe(settle, None, e)
        else:
            loop.call_soon_threadsafe(settle, result, None)

    threading.Thread(target=run, name="netns", daemon=True).start()
    return await future
