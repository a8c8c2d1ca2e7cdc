"""The cluster's authority, from the seed that `init` leaves into the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyswarm_core import tls
from pyswarm_core.errors import PreconditionFailed, StoreUnavailable
from pyswarm_core.store.memory import MemoryStore
from pyswarm_manager.join.vault import Seed, Vault


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    path = tmp_path / "seed.json"
    path.write_text(Seed.create(tls.Authority.create("test")).dump())
    return path


async def test_who_asks_before_the_seed_is_stored_may_ask_again(seed: Path) -> None:
    vault = Vault(MemoryStore(), seed)
    with pytest.raises(StoreUnavailable, match="try again"):
        await vault.tokens()
    await vault.take_seed()
    assert not seed.exists()
    assert (await vault.tokens()).keys() == {"worker", "manager"}


async def test_a_cluster_of_another_authority_signs_nothing(tmp_path: Path) -> None:
    vault = Vault(MemoryStore(), tmp_path / "seed.json")
    await vault.take_seed()
    with pytest.raises(PreconditionFailed, match="was not made by 'pyswarm init'"):
        await vault.authority()
