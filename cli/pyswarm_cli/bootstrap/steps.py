"""`init`, `join` and `leave`, step by step. The record of membership is written last: what was interrupted before can
simply be repeated."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pyswarm_cli.bootstrap import enroll, goodbye
from pyswarm_core import contexts
from pyswarm_core.enrolment import JoinToken
from pyswarm_core.errors import PreconditionFailed
from pyswarm_core.ids import new_id
from pyswarm_core.membership import configs, daemons, member
from pyswarm_core.membership.member import API_PORT, DATA, ETC, ETCD_PORT, RUN, Member
from pyswarm_core.tls import Authority, Identity

if TYPE_CHECKING:
    from pyswarm_cli.client import Cluster
    from pyswarm_core.v1 import join_pb2 as pb


@dataclass(frozen=True, slots=True)
class Made:
    member: Member
    commands: list[str]  # that start its daemons; empty: they run
    worker_token: str = field(default="", repr=False)


def init(address: str, hostname: str, context: str, *, data_dir: str = str(DATA), address_pool: str = "") -> Made:
    from pyswarm_manager.join.vault import SEED, Seed

    rng = random.SystemRandom()
    made = Member(
        node_id=new_id(rng),
        role="manager",
        address=address,
        hostname=hostname,
        managers=(f"{address}:{API_PORT}",),
        etcd=(f"{address}:{ETCD_PORT}",),
        data_dir=data_dir,
        context=_folder_of(context),
    )
    _refuse_leftovers(data_dir)
    daemons.make_folders(made)
    authority = Authority.create("pyswarm CA")
    names, addresses = [hostname], [address, "127.0.0.1"]
    authority.issue(common_name=made.node_id, role="manager", names=names, addresses=addresses).save(ETC / "tls")
    authority.issue(common_name=made.node_id, role="etcd", names=names, addresses=addresses).save(ETC / "etcd-tls")
    seed = Seed.create(authority)
    daemons.write({SEED: seed.dump()}, Path(data_dir) / "manager", 0o600)
    initial = f"{made.node_id}={configs.peer_url(address)}"
    daemons.write(
        configs.files(made, cluster=new_id(rng), initial=initial, initial_state="new", address_pool=address_pool)
    )
    _save_context(context, made.managers, authority.issue(common_name=f"root@{hostname}"[:64], role="client"))
    daemons.install_units(made)
    member.save(made)
    return Made(made, daemons.start(made, made.daemons, detached=False), seed.token("worker"))


def join(
    token: JoinToken, manager: str, address: str, hostname: str, context: str, *, data_dir: str = str(DATA)
) -> Made:
    """As what the token is for."""
    _refuse_leftovers(data_dir)
    found = enroll.enroll(token, manager, hostname, address)
    if "manager" in found.identities:
        return _join_as_manager(found, address, hostname, context, data_dir)
    made = Member(
        found.node_id, "worker", address, hostname, found.managers, data_dir=data_dir, context=_folder_of(context)
    )
    found.identities["worker"].save(ETC / "tls")
    return _settle(made, configs.files(made, cluster="", initial="", initial_state=""))


def _join_as_manager(found: enroll.Enrolled, address: str, hostname: str, context: str, data_dir: str) -> Made:
    managers = (*found.managers, f"{address}:{API_PORT}")
    found.identities["manager"].save(ETC / "tls")
    found.identities["etcd"].save(ETC / "etcd-tls")
    # Its own last: it does not answer before it has caught up.
    made = Member(
        node_id=found.node_id,
        role="manager",
        address=address,
        hostname=hostname,
        managers=managers,
        etcd=(*found.etcd, f"{address}:{ETCD_PORT}"),
        data_dir=data_dir,
        context=_folder_of(context),
    )
    _save_context(context, managers, found.identities["client"])
    files = configs.files(
        made, cluster="pyswarm", initial="", initial_state="existing", address_pool=found.address_pool
    )
    return _settle(made, files)


def _settle(made: Member, files: dict[str, str]) -> Made:
    daemons.make_folders(made)
    daemons.write(files)
    daemons.install_units(made)
    member.save(made)
    return Made(made, daemons.start(made, made.daemons, detached=False))


def leave(context: str, *, force: bool, say: Callable[[str], None]) -> None:
    """PreconditionFailed: it must not without `force`; nothing was changed then. `say`: what happens, line by line."""
    try:
        found = member.load()
    except PreconditionFailed:
        if not force:
            raise
        found = None
    if found is None and not force:
        raise PreconditionFailed("this host is in no cluster, so there is nothing to leave")
    if found is not None:
        goodbye.depart(found, force=force, say=say)
    daemons.stop(reversed(daemons.ALL))
    data_dir = Path(found.data_dir) if found is not None else DATA
    left = _wipe(data_dir)
    if left:
        raise PreconditionFailed(
            f"not everything could be removed: {'; '.join(left)}; mend that, then repeat 'pyswarm leave --force'"
        )
    contexts.remove(context)
    daemons.erase(data_dir)
    say("This host has left its cluster: its containers, images, network, certificates and settings are gone.")
    if (data_dir / "volumes").is_dir():
        say(f"Volumes stay in {data_dir}/volumes.")


def _wipe(data_dir: Path) -> Sequence[str]:
    import asyncio

    from pyswarm_agent.wipe import wipe

    return asyncio.run(wipe(data_dir, RUN))


def tokens(cluster: Cluster, rotate: str) -> pb.JoinTokens:
    """`rotate`: the role whose token is replaced first; "" = none."""
    from pyswarm_core.v1 import join_pb2 as messages
    from pyswarm_core.v1.join_pb2_grpc import MembershipStub

    if rotate:
        request = messages.RotateJoinTokenRequest(role=rotate)
        return cluster.change(lambda _: MembershipStub(cluster.channel).RotateJoinToken, request)
    return cluster.read(lambda _: MembershipStub(cluster.channel).GetJoinTokens, messages.GetJoinTokensRequest())


def join_line(token: str, address: str) -> str:
    return f"pyswarm join --token {token} {address}:{API_PORT}"


def _refuse_leftovers(data_dir: str) -> None:
    if (Path(data_dir) / "etcd" / "member").is_dir():
        raise PreconditionFailed(
            f"{data_dir}/etcd has the state of a former cluster, which would be lost; 'pyswarm leave --force' removes "
            "it"
        )


def _folder_of(context: str) -> str:
    return str(contexts.config_dir().absolute() / "contexts" / context)


def _save_context(name: str, managers: tuple[str, ...], identity: Identity) -> None:
    pems = (identity.ca_pem.decode(), identity.cert_pem.decode(), identity.key_pem.decode())
    contexts.save(name, contexts.Context(managers, *pems))
    contexts.select(name)
