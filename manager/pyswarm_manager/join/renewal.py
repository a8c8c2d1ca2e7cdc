"""A manager signs for itself, and for the etcd member beside it, which reads its files at each handshake."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

from pyswarm_core import renewal
from pyswarm_core.enrolment import public_key_of
from pyswarm_core.tls import Identity, Role, alternatives_of
from pyswarm_manager.join.vault import Vault


class LocalSigner:
    def __init__(self, vault: Vault, folder: Path) -> None:
        self._vault = vault
        self._folder = folder

    async def __call__(self, csr_pem: bytes) -> bytes:
        """As the one in the folder: its name, role and addresses."""
        current = Identity.load(self._folder)
        names, addresses = alternatives_of(current.cert_pem)
        authority = await self._vault.authority()
        return authority.certify(
            public_key_of(csr_pem),
            common_name=current.subject.common_name,
            role=cast(Role, current.subject.role),
            names=names,
            addresses=addresses,
        )


async def keep_fresh(
    vault: Vault,
    tls_dir: Path,
    member_tls_dir: Path | None,
    renewed: Callable[[Identity], Awaitable[None]],
    rng: random.Random,
) -> None:
    """For ever. `renewed`: told of the manager's own."""
    async with asyncio.TaskGroup() as group:
        group.create_task(renewal.keep_fresh(tls_dir, LocalSigner(vault, tls_dir), rng, renewed))
        if member_tls_dir is not None:
            group.create_task(renewal.keep_fresh(member_tls_dir, LocalSigner(vault, member_tls_dir), rng))
