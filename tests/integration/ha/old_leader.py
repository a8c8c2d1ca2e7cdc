"""A leader that was deposed and does not know it: run on a manager's host in the place of its manager.

    old_leader.py ADDRESS TLS_DIR

Whoever opens a session is welcomed under a term that ended before the last one that it has heard of, and told that no
task is to be on its host. Prints the node's id each time. Ends with its standard input."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio

from pyswarm_core import tls
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import dispatcher_pb2_grpc as rpc


class OldLeader(rpc.DispatcherServicer):
    async def Session(self, request_iterator: AsyncIterator[wire.AgentMessage], context: Any) -> Any:
        hello = (await anext(aiter(request_iterator))).hello
        print(hello.node_id, flush=True)
        newest = hello.last_fence
        fence = wire.Fence(leader_revision=newest.leader_revision - 1, revision=newest.revision + 1000)
        yield wire.ManagerMessage(fence=fence, welcome=wire.Welcome(node_id=hello.node_id, node_number=1))
        yield wire.ManagerMessage(fence=fence, assignments=wire.AssignmentUpdate(seq=1, complete=True))
        async for _ in request_iterator:
            pass


async def main(address: str, tls_dir: Path) -> None:
    server = grpc.aio.server()
    rpc.add_DispatcherServicer_to_server(OldLeader(), server)
    server.add_secure_port(address, tls.server_credentials(tls.Identity.load(tls_dir)))
    await server.start()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(None)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
