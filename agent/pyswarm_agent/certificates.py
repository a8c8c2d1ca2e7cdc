"""Certificates are renewed by whichever manager answers: a worker's own; on a manager's host, where the manager renews
its own, that of root's context for the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pyswarm_core.errors import PyswarmError
from pyswarm_core.log import get_logger

if TYPE_CHECKING:
    import random

    import grpc.aio

log = get_logger("agent.certificates")

ANSWER_WITHIN = 15.0  # seconds
LOOK_AGAIN = 600.0


class RemoteSigner:
    """`channel`: to HOST:PORT, with the certificate as it is now."""

    def __init__(self, channel: Callable[[str], grpc.aio.Channel], managers: Callable[[], Sequence[str]]) -> None:
        self._channel = channel
        self._managers = managers

    async def __call__(self, csr_pem: bytes) -> bytes:
        """The certificate, PEM. PyswarmError: no manager gave one; the last one's reason."""
        import grpc.aio

        from pyswarm_core.v1 import join_pb2 as pb
        from pyswarm_core.v1 import join_pb2_grpc as rpc

        reason = ""
        for address in self._managers():
            channel = self._channel(address)
            try:
                answer = await rpc.MembershipStub(channel).Renew(
                    pb.RenewRequest(csr_pem=csr_pem), timeout=ANSWER_WITHIN
                )
                return bytes(answer.cert_pem)
            except grpc.aio.AioRpcError as error:
                reason = f"{address}: {error.details() or error.code().name}"
            finally:
                await channel.close()
        raise PyswarmError(f"no manager renews the certificate ({reason})")


async def keep_fresh(
    tls_dir: Path, channel: Callable[[str], grpc.aio.Channel], managers: Callable[[], Sequence[str]], rng: random.Random
) -> None:
    """For ever."""
    from pyswarm_core import renewal

    await renewal.keep_fresh(tls_dir, RemoteSigner(channel, managers), rng, only="worker")


async def keep_context_fresh(
    folder: Callable[[], Path | None], managers: Callable[[], Sequence[str]], rng: random.Random
) -> None:
    """For ever. `folder`: of root's context, with its certificates; None while this host has none to look after."""
    import asyncio

    import grpc.aio

    from pyswarm_core import renewal, tls

    fraction = rng.random()
    while True:
        found = folder()
        if found is not None:

            def channel(address: str, folder: Path = found) -> grpc.aio.Channel:
                credentials = tls.client_credentials(tls.Identity.load(folder))
                return grpc.aio.secure_channel(address, credentials, options=tls.channel_options())

            try:
                await renewal.renew_when_due(found, RemoteSigner(channel, managers), fraction)
            except PyswarmError as error:
                log.warning("root's context is not renewed yet", folder=found, reason=error)
        await asyncio.sleep(LOOK_AGAIN)
