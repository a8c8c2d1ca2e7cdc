"""Where etcd is, kept up to date while the manager runs: members come and go. What was last known is on the disk, for a
manager whose first-known members are all gone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pyswarm_core import files
from pyswarm_core.errors import PyswarmError
from pyswarm_core.etcd.client import Client
from pyswarm_core.etcd.cluster import Cluster, Member
from pyswarm_core.log import get_logger

log = get_logger("members.follow")

PERIOD = 5.0  # seconds
FILE = "etcd.json"  # in the manager's data folder


def endpoints_of(members: Iterable[Member], own_host: str) -> tuple[str, ...]:
    """HOST:PORT where those with a vote serve clients; the one on this host first, the rest in order. Pure."""
    found = {url.partition("://")[2] for m in members if not m.is_learner for url in m.client_urls}
    return tuple(sorted(found, key=lambda endpoint: (endpoint.rpartition(":")[0] != own_host, endpoint)))


def remembered(folder: Path) -> tuple[str, ...]:
    """What `follow` left there; () = nothing that can be read."""
    try:
        return tuple(str(endpoint) for endpoint in json.loads((folder / FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return ()


async def follow(client: Client, own_host: str, folder: Path) -> None:
    """For ever."""
    etcd = Cluster(client)
    stored = remembered(folder)
    while True:
        try:
            found = endpoints_of(await etcd.members(), own_host)
            if found and client.use(found):
                log.info("etcd's members have changed", endpoints=found)
            if found and found != stored:
                _remember(found, folder)
                stored = found
        except (PyswarmError, OSError) as error:
            log.debug("etcd's members are not known now", reason=error)
        await asyncio.sleep(PERIOD)


def _remember(endpoints: Sequence[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files.put(folder / FILE, json.dumps(list(endpoints)))
