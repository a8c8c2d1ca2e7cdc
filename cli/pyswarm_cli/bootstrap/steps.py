"""`init`, `join` and `leave`, step by step. The record of membership is written last: what was interrupted before can
simply be repeated."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pyswarm_cli import contexts
from pyswarm_cli.bootstrap import configs, enroll, host, member
from pyswarm_cli.bootstrap.member import API_PORT, DATA, ETC, ETCD_PORT, Member
from pyswarm_core.enrolment import JoinToken
from pyswarm_core.errors import PreconditionFailed
from pyswarm_core.ids import new_id
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
    )
    _refuse_leftovers(data_dir)
    host.make_folders(made)
    authority = Authority.create("pyswarm CA")
    names, addresses = [hostname], [address, "127.0.0.1"]
    authority.issue(common_name=made.node_id, role="manager", names=names, addresses=addresses).save(ETC / "tls")
    authority.issue(common_name=made.node_id, role="etcd", names=names, addresses=addresses).save(ETC / "etcd-tls")
    seed = Seed.create(authority)
    host.write({SEED: seed.dump()}, Path(data_dir) / "manager", 0o600)
    initial = f"{made.node_id}={configs.peer_url(address)}"
    host.write(
        configs.files(made, cluster=new_id(rng), initial=initial, initial_state="new", address_pool=address_pool)
    )
    _save_context(context, made.managers, authority.issue(common_name=f"root@{hostname}"[:64], role="client"))
    host.install_units(made)
    member.save(made)
    return Made(made, host.start(made), seed.token("worker"))


def join(
    token: JoinToken, manager: str, address: str, hostname: str, context: str, *, data_dir: str = str(DATA)
) -> Made:
    """As what the token is for."""
    _refuse_leftovers(data_dir)
    found = enroll.enroll(token, manager, hostname, address)
    if "manager" in found.identities:
        return _join_as_manager(found, address, hostname, context, data_dir)
    made = Member(found.node_id, "worker", address, hostname, found.managers, data_dir=data_dir)
    found.identities["worker"].save(ETC / "tls")
    return _settle(made, configs.files(made, cluster="", initial="", initial_state=""))


def _join_as_manager(found: enroll.Enrolled, address: str, hostname: str, context: str, data_dir: str) -> Made:
    managers = (*found.managers, f"{address}:{API_PORT}")
    found.identities["manager"].save(ETC / "tls")
    found.identities["etcd"].save(ETC / "etcd-tls")
    initial, others = asyncio.run(_add_etcd(found, address))
    # Its own last: it does not answer before it has caught up.
    etcd = (*others, f"{address}:{ETCD_PORT}")
    made = Member(found.node_id, "manager", address, hostname, managers, etcd, data_dir)
    _save_context(context, managers, found.identities["client"])
    files = configs.files(
        made, cluster="pyswarm", initial=initial, initial_state="existing", address_pool=found.address_pool
    )
    return _settle(made, files)


async def _add_etcd(found: enroll.Enrolled, address: str) -> tuple[str, tuple[str, ...]]:
    """As a learner, which has no vote: one that never starts does not cost the majority. The new manager promotes it
    when it has caught up. One that is there from an interrupted join is taken again. Returns etcd's initial-cluster,
    and where the other members serve clients."""
    from pyswarm_core.etcd.client import Client
    from pyswarm_core.etcd.cluster import Cluster as Etcd

    client = Client(found.etcd, found.identities["manager"])
    try:
        etcd, url = Etcd(client), configs.peer_url(address)
        members = await etcd.members()
        same = [m for m in members if url in m.peer_urls]
        if any(m.name for m in same):
            raise PreconditionFailed(
                f"etcd has a member at {address} already, from before this host was set up anew; remove that one from "
                "etcd first ('etcdctl member remove' on a manager)"
            )
        if not same:
            await etcd.add([url], learner=True)
            members = await etcd.members()
        initial = ",".join(f"{m.name or found.node_id}={u}" for m in members for u in m.peer_urls)
        others = [u.removeprefix("https://") for m in members for u in m.client_urls]
        return initial, tuple(others) or found.etcd
    finally:
        await client.close()


def _settle(made: Member, files: dict[str, str]) -> Made:
    host.make_folders(made)
    host.write(files)
    host.install_units(made)
    member.save(made)
    return Made(made, host.start(made))


def leave(context: str, *, force: bool) -> list[str]:
    """Returns what there is to say."""
    try:
        found = member.load()
    except PreconditionFailed:
        if not force:
            raise
        found = None
    if found is None and not force:
        raise PreconditionFailed("this host is in no cluster, so there is nothing to leave")
    if found is not None and found.role == "manager" and not force:
        raise PreconditionFailed(
            "this host is a manager and has a part of the cluster's state: when it is the last one, the cluster ends "
            "with it; repeat with --force if that is meant"
        )
    if found is not None:
        host.stop(found)
    host.erase(found)
    if found is None or found.role == "manager":
        contexts.remove(context)
    said = ["This host has left its cluster."]
    if found is not None:
        said.append(f"On a manager, 'pyswarm node rm --force {found.node_id}' removes it from the list of nodes.")
    return said


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


def _save_context(name: str, managers: tuple[str, ...], identity: Identity) -> None:
    pems = (identity.ca_pem.decode(), identity.cert_pem.decode(), identity.key_pem.decode())
    contexts.save(name, contexts.Context(managers, *pems))
    contexts.select(name)
