"""The real planners, put together for the loops. The only module of the shell that names them all."""

from __future__ import annotations

from pyswarm_manager.allocator import service as allocator
from pyswarm_manager.drain import stages
from pyswarm_manager.loops import Planners
from pyswarm_manager.orchestrator import converge
from pyswarm_manager.scheduler import assign


def real() -> Planners:
    return Planners(allocate=allocator.plan, converge=converge.plan, assign=assign.plan, drain=stages.plan)
