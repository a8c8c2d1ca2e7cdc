"""Coroutines that live and die together, with the first one's error unwrapped (a TaskGroup would wrap it)."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def run_together(*coroutines: Coroutine[Any, Any, None]) -> None:
    """Returns when the first one returns, raises what the first one raises; the others are cancelled, and awaited."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:  # in the order given, so that it is not a matter of luck which error is told
        if task in done:
            task.result()
