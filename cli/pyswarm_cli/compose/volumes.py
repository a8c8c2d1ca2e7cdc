"""`volumes` and `tmpfs` of a service. Pure."""

from __future__ import annotations

import os.path
from pathlib import Path

from pyswarm_cli.compose.loader import Scalar, Value
from pyswarm_cli.compose.reader import Reader
from pyswarm_cli.compose.toplevel import TopLevel, real_name
from pyswarm_cli.parse import mounts
from pyswarm_cli.parse.numbers import size
from pyswarm_core.errors import InvalidInput
from pyswarm_core.v1 import spec_pb2 as spec

_OPTIONS = ("ro", "rw", "z", "Z")


def read(reader: Reader, item: Value, where: str, folder: Path, top: TopLevel) -> spec.Mount:
    """`folder`: where relative paths of the host begin."""
    return (
        _short(reader, item, where, folder, top)
        if isinstance(item, Scalar)
        else _long(reader, item, where, folder, top)
    )


def _short(reader: Reader, item: Scalar, where: str, folder: Path, top: TopLevel) -> spec.Mount:
    """/in/container, NAME:/in/container[:ro], ./on/host:/in/container[:ro,rshared]."""
    text = reader.text(item, where)
    parts = text.split(":")
    if len(parts) > 3:
        reader.fail(item.line, f"{where}: '{text}' is not SOURCE:TARGET[:ro]")
    source, target = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1])
    options = parts[2].split(",") if len(parts) == 3 else []
    propagation = next((option for option in options if option in mounts.PROPAGATIONS), "")
    for option in options:
        if option in ("z", "Z"):
            reader.fail(item.line, f"{where}: the option '{option}' of '{text}' relabels files, which is not supported")
        if option not in _OPTIONS and option not in mounts.PROPAGATIONS:
            reader.fail(item.line, f"{where}: '{option}' is not an option of '{text}'; there are ro and rw")
    is_path = source.startswith(("/", ".", "~"))
    if is_path:
        source = _absolute(source, folder)
    elif source:
        source = real_name(reader, top.volumes, source, item.line, "volume")
    return _build(
        reader,
        item.line,
        where,
        type_="bind" if is_path else "volume",
        source=source,
        target=target,
        read_only="ro" in options,
        propagation=propagation,
        text=text,
    )


def _long(reader: Reader, item: Value, where: str, folder: Path, top: TopLevel) -> spec.Mount:
    given: dict[str, str] = {"type": "volume", "source": "", "target": ""}
    read_only = [False]
    tmpfs = [0, 0]

    def text(key: str) -> None:
        def handle(value: Value, at: str) -> None:
            given[key] = reader.text(value, at)

        handlers[key] = handle

    def readonly(value: Value, at: str) -> None:
        read_only[0] = reader.boolean(value, at)

    def bind(value: Value, at: str) -> None:
        def propagation(inner: Value, inner_at: str) -> None:
            given["propagation"] = reader.text(inner, inner_at)

        def create(inner: Value, inner_at: str) -> None:
            if reader.boolean(inner, inner_at):
                reader.fail(
                    inner.line, f"{inner_at} is not supported: the path must be on every node that it may run on"
                )

        refused = {"selinux": "files are not relabelled", "recursive": "a bind mount always is"}
        reader.walk(value, at, {"propagation": propagation, "create_host_path": create}, refused)

    def volume(value: Value, at: str) -> None:
        refused = {"nocopy": "there is no choice", "subpath": "a volume is mounted whole", "labels": "there are none"}
        reader.walk(value, at, {}, refused)

    def in_memory(value: Value, at: str) -> None:
        def size_(inner: Value, inner_at: str) -> None:
            tmpfs[0] = reader.parsed(inner, inner_at, size)

        def mode(inner: Value, inner_at: str) -> None:
            tmpfs[1] = reader.parsed(inner, inner_at, lambda t: mounts.mode(t.removeprefix("0o"), t))

        reader.walk(value, at, {"size": size_, "mode": mode})

    handlers = {"read_only": readonly, "bind": bind, "volume": volume, "tmpfs": in_memory}
    for key in ("type", "source", "target"):
        text(key)
    reader.walk(item, where, handlers, {"consistency": "there is no choice"})
    source = given["source"]
    if given["type"] == "bind":
        source = _absolute(source, folder) if source else source
    elif given["type"] == "volume" and source:
        source = real_name(reader, top.volumes, source, item.line, "volume")
    return _build(
        reader,
        item.line,
        where,
        type_=given["type"],
        source=source,
        target=given["target"],
        read_only=read_only[0],
        propagation=given.get("propagation", ""),
        tmpfs_size=tmpfs[0],
        tmpfs_mode=tmpfs[1],
        text=given["target"],
    )


def tmpfs(text: str) -> spec.Mount:
    """/run, or /run:size=64m,mode=1777."""
    target, _, options = text.partition(":")
    found_size, found_mode = 0, 0
    for option in options.split(",") if options else []:
        key, _, value = option.partition("=")
        if key == "size":
            found_size = size(value)
        elif key == "mode":
            found_mode = mounts.mode(value, text)
        else:
            raise InvalidInput(f"'{option}' is not an option of the tmpfs '{text}'; there are size and mode")
    return mounts.build(
        type_="tmpfs", source="", target=target, tmpfs_size=found_size, tmpfs_mode=found_mode, text=text
    )


def _build(reader: Reader, line: int, where: str, **given: object) -> spec.Mount:
    try:
        return mounts.build(**given)  # type: ignore[arg-type]
    except InvalidInput as error:
        reader.fail(line, f"{where}: {error}")


def _absolute(source: str, folder: Path) -> str:
    """Relative to the file; ~ is the caller's home, as in Compose."""
    return os.path.normpath(folder / Path(source).expanduser())
