"""What comes before etcd on a manager's host: without data it is no member, whatever it was before. docs/adr/0013."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from pyswarm_cli import rpc_errors
from pyswarm_core import tls
from pyswarm_core.errors import PreconditionFailed, PyswarmError
from pyswarm_core.log import configure, get_logger
from pyswarm_core.membership import member
from pyswarm_core.membership.member import ETC

log = get_logger("etcd")

ANSWER_WITHIN = 15.0  # seconds
RETRY, SAY_AGAIN = 0.5, 30.0


def must_ask(environment: Mapping[str, str]) -> bool:
    """It has no data, and is not the first member of a new cluster. PreconditionFailed: a setting is missing."""
    try:
        data, state = environment["ETCD_DATA_DIR"], environment["ETCD_INITIAL_CLUSTER_STATE"]
    except KeyError as error:
        raise PreconditionFailed(f"{error.args[0]} is not set; start it with the variables of {ETC}/etcd.env") from None
    return state == "existing" and not (Path(data) / "member").is_dir()


def run() -> NoReturn:
    """Becomes etcd. PreconditionFailed: it cannot."""
    etcd = shutil.which("etcd")
    if etcd is None:
        raise PreconditionFailed("etcd is not installed; install the package etcd-server")
    environment = dict(os.environ)
    if must_ask(environment):
        configure()
        peer = environment["ETCD_INITIAL_ADVERTISE_PEER_URLS"]
        environment["ETCD_INITIAL_CLUSTER"] = _ask_until_told(peer)
    os.execve(etcd, ["etcd"], environment)


def _ask_until_told(peer_url: str) -> str:
    """etcd's initial-cluster. Others may have to come first, and managers may be away: it has time."""
    said, said_at = "", 0.0
    while True:
        try:
            return _ask(peer_url)
        except PyswarmError as error:
            if str(error) != said or time.monotonic() - said_at >= SAY_AGAIN:
                said, said_at = str(error), time.monotonic()
                log.warning("etcd has no data here, and waits to be a member", reason=said)
            time.sleep(RETRY)


def _ask(peer_url: str) -> str:
    import grpc

    from pyswarm_core.v1 import join_pb2 as pb
    from pyswarm_core.v1.join_pb2_grpc import MembershipStub

    host = member.load()
    if host is None:
        raise PreconditionFailed("this host is in no cluster; make it a member with 'pyswarm join'")
    credentials = tls.client_credentials(tls.Identity.load(ETC / "tls"))
    own = f"{host.address}:{member.API_PORT}"
    reasons = []
    for manager in (*(m for m in host.managers if m != own), own):
        with grpc.secure_channel(manager, credentials, options=tls.channel_options()) as channel:
            try:
                request = pb.PrepareEtcdRequest(peer_url=peer_url)
                return str(MembershipStub(channel).PrepareEtcd(request, timeout=ANSWER_WITHIN).initial_cluster)
            except grpc.RpcError as error:
                reasons.append(f"{manager}: {rpc_errors.details(error)}")
    raise PyswarmError("; ".join(reasons))
