"""The cluster's authority and its join secrets, in etcd, where only managers can read. See docs/adr/0010."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from pyswarm_core.enrolment import JoinToken, digest_of_pem, new_secret
from pyswarm_core.errors import Conflict, InvalidInput, PreconditionFailed, StoreUnavailable
from pyswarm_core.log import get_logger
from pyswarm_core.store.base import Compare, Entry, Field, Put, Store
from pyswarm_core.tls import Authority

log = get_logger("join.vault")

# Outside of the prefix that every manager keeps in memory.
AUTHORITY_KEY = "/pyswarm/join/authority"
SECRETS_KEY = "/pyswarm/join/secrets"
TOKEN_ROLES = ("worker", "manager")
SEED = "seed.json"
_ROTATIONS = 5  # attempts, when others rotate at the same time


@dataclass(frozen=True, slots=True)
class Seed:
    """What `pyswarm init` leaves for the first manager, because etcd does not run yet."""

    authority: Authority
    secrets: dict[str, str] = field(repr=False)  # role → secret

    @classmethod
    def create(cls, authority: Authority) -> Seed:
        return cls(authority, {role: new_secret() for role in TOKEN_ROLES})

    def token(self, role: str) -> str:
        return str(JoinToken(digest_of_pem(self.authority.ca_pem), self.secrets[role]))

    def dump(self) -> str:
        return json.dumps({"authority": _dump(self.authority), "secrets": self.secrets})

    @classmethod
    def load(cls, text: str) -> Seed:
        document = json.loads(text)
        return cls(_load(document["authority"]), document["secrets"])


class Vault:
    """`seed`: where the first manager finds the `Seed`; None or no file: there is none (any more)."""

    def __init__(self, store: Store, seed: Path | None = None) -> None:
        self._store = store
        self._seed = seed

    async def take_seed(self) -> None:
        """Moves it into etcd, once. Repeating it after a crash is safe."""
        path = self._seed
        if path is None:
            return
        try:
            seed = Seed.load(path.read_text())
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("the cluster's seed cannot be read", path=path, reason=error)
            return
        absent = [Compare(AUTHORITY_KEY, Field.CREATE, 0)]
        puts = [
            Put(AUTHORITY_KEY, json.dumps(_dump(seed.authority)).encode()),
            Put(SECRETS_KEY, json.dumps(seed.secrets).encode()),
        ]
        result = await self._store.txn(absent, puts)
        stored = await self.authority()
        if stored.ca_pem != seed.authority.ca_pem:
            log.error("etcd has another cluster's authority, so the seed is left where it is", path=path)
            return
        path.unlink(missing_ok=True)
        log.info("authority stored", new=result.succeeded)

    async def authority(self) -> Authority:
        """Raises PreconditionFailed where there is none; errors of the store, also when there is none yet."""
        entry = await self._store.get(AUTHORITY_KEY)
        if entry is None and self._seed is not None and self._seed.exists():
            raise StoreUnavailable("The cluster is just being made, and its authority is not stored yet: try again.")
        if entry is None:
            raise PreconditionFailed(
                "This cluster was not made by 'pyswarm init', so its managers sign no certificates: have them issued "
                "by whoever made its authority."
            )
        return _load(json.loads(entry.value))

    async def secrets(self) -> dict[str, str]:
        """role → secret."""
        return (await self._secrets())[1]

    async def tokens(self) -> dict[str, str]:
        digest = digest_of_pem((await self.authority()).ca_pem)
        return {role: str(JoinToken(digest, secret)) for role, secret in (await self.secrets()).items()}

    async def rotate(self, role: str) -> None:
        """The former token of the role is refused from now on. InvalidInput: there is no such role."""
        if role not in TOKEN_ROLES:
            raise InvalidInput(f"There is no join token for '{role}': use {' or '.join(TOKEN_ROLES)}.")
        for _ in range(_ROTATIONS):
            entry, secrets = await self._secrets()
            value = json.dumps({**secrets, role: new_secret()}).encode()
            result = await self._store.txn(
                [Compare(SECRETS_KEY, Field.MOD, entry.mod_revision if entry else 0)], [Put(SECRETS_KEY, value)]
            )
            if result.succeeded:
                log.info("join token rotated", role=role)
                return
        raise Conflict("Others rotate the tokens at the same time: try again.")

    async def _secrets(self) -> tuple[Entry | None, dict[str, str]]:
        entry = await self._store.get(SECRETS_KEY)
        return entry, json.loads(entry.value) if entry is not None else {}


def _dump(authority: Authority) -> dict[str, str]:
    return {"ca": authority.ca_pem.decode(), "key": authority.key_pem.decode()}


def _load(document: dict[str, str]) -> Authority:
    return Authority(document["ca"].encode(), document["key"].encode())
