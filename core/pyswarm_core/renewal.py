"""Certificates renew themselves, well before they expire, at a random moment, without a restart of anybody.

The key stays the same. So only one file is replaced, in one step, and whoever reads the folder at any moment has a key
and a certificate that belong together.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import time

from pyswarm_core.enrolment import request_of
from pyswarm_core.errors import PyswarmError
from pyswarm_core.log import get_logger
from pyswarm_core.tls import Identity, validity_of

log = get_logger("renewal")

EARLIEST, LATEST = 0.5, 0.75  # of a certificate's life; random, so that a cluster's do not come at once
LOOK_AGAIN = 3600.0  # seconds; clocks are set, and files are replaced by others
RETRY, RETRY_MAX = 5.0, 600.0  # seconds

Sign = Callable[[bytes], Awaitable[bytes]]  # a request (PEM) → the certificate (PEM)


def renewal_time(valid_from: float, valid_to: float, fraction: float) -> float:
    """Unix seconds. `fraction` in [0, 1), random."""
    return valid_from + (valid_to - valid_from) * (EARLIEST + (LATEST - EARLIEST) * fraction)


async def renew_when_due(folder: Path, sign: Sign, fraction: float) -> tuple[float, Identity | None]:
    """The new one, when it was due; else None and the seconds until it is. Raises PyswarmError."""
    identity = Identity.load(folder)
    due = renewal_time(*validity_of(identity.cert_pem), fraction) - time()
    if due > 0:
        return due, None
    certificate = await sign(request_of(identity.key_pem))
    fresh = Identity(identity.ca_pem, certificate, identity.key_pem)
    fresh.save_certificate(folder)
    log.info("certificate renewed", folder=folder, role=fresh.subject.role, expires_at=fresh.expires_at)
    return 0.0, fresh


async def keep_fresh(
    folder: Path,
    sign: Sign,
    rng: random.Random,
    renewed: Callable[[Identity], Awaitable[None]] | None = None,
    only: str = "",
) -> None:
    """For ever. What fails is logged, and tried again: the certificate is good for a long time yet.

    `renewed`: told each time, for those who keep connections. `only`: leaves certificates of other roles alone; that of
    the folder may change."""
    retry = RETRY
    fraction = rng.random()
    while True:
        try:
            identity = Identity.load(folder)
            if only and identity.subject.role != only:
                await asyncio.sleep(LOOK_AGAIN)
                continue
            due, fresh = await renew_when_due(folder, sign, fraction)
            if fresh is None:
                await asyncio.sleep(min(due, LOOK_AGAIN))
                continue
            if renewed is not None:
                await renewed(fresh)
            retry, fraction = RETRY, rng.random()
        except PyswarmError as error:
            log.warning("certificate not renewed yet", folder=folder, reason=error)
            await asyncio.sleep(retry * rng.uniform(0.5, 1.0))
            retry = min(retry * 2, RETRY_MAX)
