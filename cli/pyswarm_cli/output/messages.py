"""Protobuf messages as JSON-able dicts: the protos' field names, enums in lower case without their prefix, times as
RFC 3339. Not `json_format`: that writes 64-bit numbers as strings and enums in capitals."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from pyswarm_cli.output.times import rfc3339

_TIMES = frozenset({"at", "start_after", "monitor_until"})


def enum_name(descriptor: EnumDescriptor, number: int) -> str:
    """`running` for TASK_STATE_RUNNING; the number itself for a value that this version does not know."""
    value = descriptor.values_by_number.get(number)
    if value is None:
        return str(number)
    prefix = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", descriptor.name).upper() + "_"
    name: str = value.name
    return name.removeprefix(prefix).lower()


def to_dict(message: Message, *, omit: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Every field, set or not, so that scripts need no defaults; an unset sub-message or `optional` is None."""
    result: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.name not in omit:
            result[field.name] = _field(message, field)
    return result


def _field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.is_repeated:
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            of_value = entry.fields_by_name["value"]
            return {key: _one(value[key], of_value) for key in sorted(value)}
        return [_one(item, field) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return _one(value, field)


def _one(value: Any, field: Any) -> Any:
    if field.enum_type is not None:
        return enum_name(field.enum_type, value)
    if isinstance(value, Message):
        return to_dict(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if field.type == FieldDescriptor.TYPE_DOUBLE and (field.name in _TIMES or field.name.endswith("_at")):
        return rfc3339(value)
    return value
