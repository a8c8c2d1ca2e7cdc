"""What the fixtures `compose` and `service` are."""

from __future__ import annotations

from collections.abc import Callable

from pyswarm_cli.compose.project import Project
from pyswarm_core.v1 import spec_pb2 as spec

Write = Callable[..., Project]  # (text, **environment)
Service = Callable[..., spec.ServiceSpec]  # (*lines, top="", **environment)
