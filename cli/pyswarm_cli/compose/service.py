"""One entry of `services` → a ServiceSpec. Pure, but for the env_files, which come by a function.

The keys of a service, in the order of the Compose specification; those of `deploy`, volumes and the like have files of
their own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pyswarm_cli.compose import deploy, refusals, volumes
from pyswarm_cli.compose.loader import Entry, Scalar, Seq, Value
from pyswarm_cli.compose.reader import Handler, Reader
from pyswarm_cli.compose.toplevel import TopLevel, real_name
from pyswarm_cli.flags import apply as applying
from pyswarm_cli.flags.scalars import RESTART_CONDITIONS
from pyswarm_cli.parse import durations, numbers, pairs, ports, processes, references
from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import spec_pb2 as spec

EnvFile = Callable[[str, bool], dict[str, "str | None"]]


class Builder:
    def __init__(self, reader: Reader, name: str, folder: Path, top: TopLevel, env_file: EnvFile) -> None:
        self.reader = reader
        self.folder = folder
        self.top = top
        self.env_file = env_file
        self.spec = applying.new_spec(name)
        self.task = self.spec.task
        self.container = self.spec.task.container
        self._file_env: list[str] = []
        self._own_env: list[str] = []
        self._restart: tuple[int, int] | None = None

    def build(self, entry: Entry) -> spec.ServiceSpec:
        where = f"services.{entry.key}"
        try:
            applying.check_name(entry.key)
        except InvalidInput as error:
            self.reader.fail(entry.line, str(error))
        self.reader.walk(entry.value, where, self._handlers(), refusals.SERVICE)
        if not self.container.image:
            self.reader.fail(entry.line, f"{where} has no image")
        if self.task.exclusive:
            deploy.check_order(self.reader, entry.value, where)
        self.container.env[:] = pairs.merge_env(self._file_env, self._own_env)
        if self._restart is not None and not self.task.HasField("restart"):
            self.task.restart.condition, self.task.restart.max_attempts = self._restart  # type: ignore[assignment]
        try:
            applying.coherent(self.spec)
        except InvalidInput as error:
            self.reader.fail(entry.line, f"{where}: {error}")
        return self.spec

    def _handlers(self) -> dict[str, Handler]:
        return {
            "image": self._image,
            "command": self._command,
            "entrypoint": self._entrypoint,
            "environment": self._environment,
            "env_file": self._env_files,
            "labels": self._labels,
            "hostname": self._text("hostname"),
            "user": self._text("user"),
            "working_dir": self._text("workdir"),
            "group_add": self._list("groups"),
            "read_only": self._flag("read_only"),
            "init": self._flag("init"),
            "tty": self._flag("tty"),
            "cap_add": self._list("cap_add", processes.capability),
            "cap_drop": self._list("cap_drop", processes.capability),
            "stop_signal": self._stop_signal,
            "stop_grace_period": self._stop_grace,
            "extra_hosts": self._extra_hosts,
            "dns": self._dns("servers", lambda text: pairs.ip(text, "it")),
            "dns_search": self._dns("search", str),
            "dns_opt": self._dns("options", str),
            "sysctls": self._sysctls,
            "ulimits": self._ulimits,
            "healthcheck": self._healthcheck,
            "logging": self._logging,
            "networks": self._networks,
            "ports": self._ports,
            "expose": self._expose,
            "volumes": self._volumes,
            "tmpfs": self._tmpfs,
            "restart": self._restart_short,
            "scale": self._scale,
            "cpus": self._resource("limit_nano_cpus", numbers.cpus),
            "mem_limit": self._resource("limit_memory", numbers.memory),
            "mem_reservation": self._resource("reserve_memory", numbers.memory),
            "pids_limit": self._resource("limit_pids", lambda text: numbers.whole(text, "it", 0, 4_194_304)),
            "deploy": lambda value, where: deploy.read(self.reader, self.spec, value, where),
            "x-pyswarm": lambda value, where: deploy.read_extension(self.reader, self.spec, value, where),
        }

    def _text(self, field: str) -> Handler:
        return lambda value, where: setattr(self.container, field, self.reader.text(value, where))

    def _flag(self, field: str) -> Handler:
        return lambda value, where: setattr(self.container, field, self.reader.boolean(value, where))

    def _list(self, field: str, parse: Callable[[str], str] = str) -> Handler:
        def handle(value: Value, where: str) -> None:
            items = self.reader.items(value, where)
            getattr(self.container, field)[:] = [self.reader.parsed(item, where, parse) for item in items]

        return handle

    def _resource(self, field: str, parse: Callable[[str], int]) -> Handler:
        def handle(value: Value, where: str) -> None:
            if not getattr(self.task.resources, field):  # deploy.resources says more, and wins
                setattr(self.task.resources, field, self.reader.parsed(value, where, parse))

        return handle

    def _dns(self, field: str, parse: Callable[[str], str]) -> Handler:
        def handle(value: Value, where: str) -> None:
            items = value.items if isinstance(value, Seq) else (value,)
            getattr(self.container.dns, field)[:] = [self.reader.parsed(item, where, parse) for item in items]

        return handle

    def _image(self, value: Value, where: str) -> None:
        self.container.image = self.reader.parsed(value, where, references.check)

    def _command(self, value: Value, where: str) -> None:
        self.container.args[:] = self._words(value, where)

    def _entrypoint(self, value: Value, where: str) -> None:
        self.container.entrypoint.SetInParent()
        self.container.entrypoint.values[:] = self._words(value, where)

    def _words(self, value: Value, where: str) -> list[str]:
        if isinstance(value, Seq):
            return self.reader.strings(value, where)
        return self.reader.parsed(value, where, processes.words)

    def _environment(self, value: Value, where: str) -> None:
        for key, text, line in self.reader.pairs(value, where):
            entry = key if text is None else f"{key}={text}"
            try:
                resolved = pairs.env(entry, self.reader.variables)
            except InvalidInput as error:
                self.reader.fail(line, f"{where}: {error}")
            if resolved is not None:
                self._own_env.append(resolved)

    def _env_files(self, value: Value, where: str) -> None:
        for item in value.items if isinstance(value, Seq) else (value,):
            given = {"path": "", "required": "yes"}
            if isinstance(item, Scalar):
                given["path"] = self.reader.text(item, where)
            else:
                self._env_file_entry(item, where, given)
            for key, text in self.env_file(given["path"], bool(given["required"])).items():
                resolved = pairs.env(key if text is None else f"{key}={text}", self.reader.variables)
                if resolved is not None:
                    self._file_env.append(resolved)

    def _env_file_entry(self, item: Value, where: str, given: dict[str, str]) -> None:
        def path(value: Value, at: str) -> None:
            given["path"] = self.reader.text(value, at)

        def required(value: Value, at: str) -> None:
            given["required"] = "yes" if self.reader.boolean(value, at) else ""

        self.reader.walk(item, where, {"path": path, "required": required}, {"format": "there is one format"})
        if not given["path"]:
            self.reader.fail(item.line, f"{where} has an entry without a path")

    def _labels(self, value: Value, where: str) -> None:
        for key, text, _ in self.reader.pairs(value, where):
            self.container.labels[key] = text or ""

    def _stop_signal(self, value: Value, where: str) -> None:
        self.container.stop_signal = self.reader.parsed(value, where, processes.stop_signal)

    def _stop_grace(self, value: Value, where: str) -> None:
        self.container.stop_grace = self.reader.parsed(value, where, durations.duration)

    def _extra_hosts(self, value: Value, where: str) -> None:
        if isinstance(value, Seq):
            self.container.hosts.extend(self.reader.parsed(item, where, pairs.host) for item in value.items)
            return
        for entry in self.reader.map(value, where).entries.values():
            for item in entry.value.items if isinstance(entry.value, Seq) else (entry.value,):
                address = self.reader.parsed(item, f"{where}.{entry.key}", lambda text: pairs.ip(text, "it"))
                self.container.hosts.add(hostname=entry.key, address=address)

    def _sysctls(self, value: Value, where: str) -> None:
        for key, text, line in self.reader.pairs(value, where):
            try:
                name, setting = pairs.sysctl(f"{key}={text}" if text is not None else key)
            except InvalidInput as error:
                self.reader.fail(line, f"{where}: {error}")
            self.container.sysctls[name] = setting

    def _ulimits(self, value: Value, where: str) -> None:
        for entry in self.reader.map(value, where).entries.values():
            at = f"{where}.{entry.key}"
            limits = {"soft": "", "hard": ""}
            if isinstance(entry.value, Scalar):
                limits["soft"] = limits["hard"] = self.reader.text(entry.value, at)
            else:
                for side in self.reader.map(entry.value, at).entries.values():
                    if side.key not in limits:
                        self.reader.unknown(side, at, limits)
                    limits[side.key] = self.reader.text(side.value, f"{at}.{side.key}")
            try:
                built = pairs.build_ulimit(entry.key, limits["soft"], limits["hard"], entry.key)
            except InvalidInput as error:
                self.reader.fail(entry.line, f"{at}: {error}")
            self.container.ulimits.append(built)

    def _healthcheck(self, value: Value, where: str) -> None:
        deploy.read_probe(self.reader, self.container, value, where)

    def _logging(self, value: Value, where: str) -> None:
        deploy.read_logging(self.reader, self.task, value, where)

    def _networks(self, value: Value, where: str) -> None:
        if isinstance(value, Seq):
            for item in value.items:
                name = self.reader.text(item, where)
                self._join(name, [], item.line)
            return
        for entry in self.reader.map(value, where).entries.values():
            aliases: list[str] = []

            def alias(inner: Value, at: str, aliases: list[str] = aliases) -> None:
                aliases.extend(self.reader.strings(inner, at))

            self.reader.walk(entry.value, f"{where}.{entry.key}", {"aliases": alias}, refusals.NETWORK)
            self._join(entry.key, aliases, entry.line)

    def _join(self, name: str, aliases: list[str], line: int) -> None:
        known = {"default": "default", **self.top.networks}
        self.task.networks.add(network_id=real_name(self.reader, known, name, line, "network"), aliases=aliases)

    def _ports(self, value: Value, where: str) -> None:
        for item in self.reader.items(value, where):
            if isinstance(item, Scalar):
                self.spec.ports.extend(self.reader.parsed(item, where, ports.ports))
                continue
            given = dict.fromkeys(("target", "published", "protocol", "mode"), "")
            for entry in self.reader.map(item, where).entries.values():
                at = f"{where}.{entry.key}"
                if entry.key in refusals.PORT:
                    self.reader.fail(entry.line, f"{at} is not supported: {refusals.PORT[entry.key]}")
                if entry.key in given:
                    given[entry.key] = self.reader.text(entry.value, at)
                elif not entry.key.startswith("x-"):
                    self.reader.unknown(entry, where, given)
            text = f"{given['published']}:{given['target']}"
            try:
                self.spec.ports.extend(
                    ports.pair(
                        given["published"], given["target"], given["protocol"] or None, given["mode"] or None, text
                    )
                )
            except InvalidInput as error:
                self.reader.fail(item.line, f"{where}: {error}")

    def _expose(self, value: Value, where: str) -> None:
        """Has its effect already: tasks of one network reach all of each other's ports."""
        for item in self.reader.items(value, where):
            self.reader.parsed(item, where, ports.ports)

    def _volumes(self, value: Value, where: str) -> None:
        for item in self.reader.items(value, where):
            self.container.mounts.append(volumes.read(self.reader, item, where, self.folder, self.top))

    def _tmpfs(self, value: Value, where: str) -> None:
        for item in value.items if isinstance(value, Seq) else (value,):
            self.container.mounts.append(self.reader.parsed(item, where, volumes.tmpfs))

    def _restart_short(self, value: Value, where: str) -> None:
        text = self.reader.text(value, where)
        policy, _, attempts = text.partition(":")
        words = {"no": "none", "always": "any", "unless-stopped": "any", "on-failure": "on-failure"}
        if policy not in words or (attempts and policy != "on-failure"):
            self.reader.fail(value.line, f"{where} must be no, always, unless-stopped or on-failure[:N], not '{text}'")
        count = numbers.whole(attempts, "it", 0, 1_000_000) if attempts.isdigit() else 0
        if attempts and not attempts.isdigit():
            self.reader.fail(value.line, f"{where}: '{attempts}' is not a number of restarts")
        self._restart = (RESTART_CONDITIONS(words[policy]), count)

    def _scale(self, value: Value, where: str) -> None:
        self.spec.replicas = self.reader.parsed(value, where, numbers.replicas)
