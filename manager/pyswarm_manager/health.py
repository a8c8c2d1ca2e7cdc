"""grpc.health.v1: the whole manager serves when it has read the store once; the Dispatcher, while it leads."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

CONTROL, DISPATCHER = "pyswarm.v1.Control", "pyswarm.v1.Dispatcher"


class Health:
    def __init__(self) -> None:
        self._servicer = health.aio.HealthServicer()

    def add_to(self, server: grpc.aio.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    async def set_ready(self, is_ready: bool) -> None:
        await self._set("", is_ready)
        await self._set(CONTROL, is_ready)

    async def set_leading(self, is_leading: bool) -> None:
        await self._set(DISPATCHER, is_leading)

    async def _set(self, service: str, serves: bool) -> None:
        status = health_pb2.HealthCheckResponse
        await self._servicer.set(service, status.SERVING if serves else status.NOT_SERVING)
