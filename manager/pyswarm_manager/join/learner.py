"""A new manager's etcd member begins without a vote; it gets one when it has caught up."""

from __future__ import annotations

import asyncio

from pyswarm_core.errors import PyswarmError
from pyswarm_core.etcd.cluster import Cluster
from pyswarm_core.log import get_logger

log = get_logger("join.learner")

PERIOD = 1.0  # seconds between two attempts


async def promote_own(etcd: Cluster, host: str) -> None:
    """Until the member whose peers reach it at `host` has a vote, or there is none."""
    said = ""
    while True:
        try:
            own = [m for m in await etcd.members() if any(_host(url) == host for url in m.peer_urls)]
            if not own or not own[0].is_learner:
                return
            if own[0].name:  # it has started
                await etcd.promote(own[0].id)
                log.info("etcd member has a vote", member=own[0].name)
                return
        except PyswarmError as error:
            if str(error) != said:
                said = str(error)
                log.info("etcd member has no vote yet", reason=said)
        await asyncio.sleep(PERIOD)


def _host(url: str) -> str:
    return url.rpartition("://")[2].rpartition(":")[0]
