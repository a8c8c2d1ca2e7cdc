"""A Compose file and what lies beside it: .env and env_files. The only part that reads files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pyswarm_cli.compose import envfile, service, toplevel
from pyswarm_cli.compose.loader import ComposeError, Map, Scalar, load
from pyswarm_cli.compose.reader import Reader
from pyswarm_core.v1 import spec_pb2


@dataclass(frozen=True, slots=True)
class ComposeService:
    """`networks`: those that the file declares as its own (not external) and this service joins."""

    spec: spec_pb2.ServiceSpec
    networks: tuple[spec_pb2.NetworkSpec, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Project:
    path: Path
    top: Map
    variables: Mapping[str, str]

    @classmethod
    def load(cls, path: Path, environ: Mapping[str, str]) -> Project:
        """The environment overrides .env. Raises ComposeError, with the line where there is one."""
        if path.is_dir():
            raise ComposeError(str(path), 0, "this is a folder, not a Compose file")
        top = load(_read(path), str(path))
        beside = path.parent / ".env"
        found = envfile.parse(_read(beside), str(beside), environ) if beside.is_file() else {}
        variables = {**{key: value for key, value in found.items() if value is not None}, **environ}
        toplevel.check(Reader(str(path), variables), top)
        return cls(path, top, variables)

    @property
    def names(self) -> list[str]:
        entry = self.top.entries.get("services")
        return list(entry.value.entries) if entry is not None and isinstance(entry.value, Map) else []

    def service(self, name: str) -> ComposeService:
        """Only this service is looked at: what is wrong with another one does not matter."""
        reader = Reader(str(self.path), self.variables)
        services = self.top.entries["services"].value
        assert isinstance(services, Map)
        entry = services.entries[name]
        if isinstance(entry.value, Scalar) and entry.value.is_null:
            reader.fail(entry.line, f"services.{name} is empty; it needs an image")
        top = toplevel.read(reader, self.top)
        builder = service.Builder(reader, name, self.path.parent.absolute(), top, self._env_file)
        wanted = builder.build(entry)
        joined = {attachment.network_id for attachment in wanted.task.networks}
        own = tuple(network for network in top.own_networks if network.name in joined)
        return ComposeService(wanted, own, tuple(reader.warnings))

    def _env_file(self, name: str, required: bool) -> dict[str, str | None]:
        path = self.path.parent / name
        if not required and not path.exists():
            return {}
        return envfile.parse(_read(path), str(path), self.variables)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ComposeError(str(path), 0, f"the file cannot be read: {(error.strerror or 'unknown').lower()}") from None
    except UnicodeDecodeError as error:
        line = bytes(error.object)[: error.start].count(b"\n") + 1
        raise ComposeError(str(path), line, "the file is not UTF-8 text") from None
