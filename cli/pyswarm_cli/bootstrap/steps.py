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
from pyswarm_core.membership.member import API_PORT, DATA, ETC, RUN, Member
from pyswarm_core.tls import Authority, Identity

if TYPE_CHECKING:
    from pyswarm_cli.client import Cluster
    from pyswarm_core.v1 import join_pb2 as pb


@dataclass(frozen=True, slots=True)
class Made:
    member: Member
    commands: list[str]  # that start its daemons; empty: they run
    worker_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Place:
    """What is this host's own to say, whatever the cluster. `context`: a name, of root's for the command line."""

    address: str
    hostname: str
    context: str
    data_dir: str
    metrics_host: str

    def member(self, node_id: str, managers: tuple[str, ...]) -> Member:
        """As a worker."""
        return Member(
            node_id=node_id,
            role="worker",
            address=self.address,
            hostname=self.hostname,
            managers=managers,
            data_dir=self.data_dir,
            context=str(contexts.config_dir().absolute() / "contexts" / self.context),
            metrics_host=self.metrics_host,
        )


def init(place: Place, *, address_pool: str = "") -> Made:
    from pyswarm_manager.join.vault import SEED, Seed

    rng = random.SystemRandom()
    address, hostname, data_dir = place.address, place.hostname, place.data_dir
    made = place.member(new_id(rng), ()).as_manager((), ())
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
    _save_context(place.context, made.managers, authority.issue(common_name=f"root@{hostname}"[:64], role="client"))
    daemons.install_units(made)
    member.save(made)
    return Made(made, daemons.start(made, made.daemons, detached=False), seed.token("worker"))


def join(token: JoinToken, manager: str, place: Place) -> Made:
    """As what the token is for."""
    _refuse_leftovers(place.data_dir)
    found = enroll.enroll(token, manager, place.hostname, place.address)
    made = place.member(found.node_id, found.managers)
    if "manager" in found.identities:
        made = made.as_manager(found.managers, found.etcd)
        found.identities["etcd"].save(ETC / "etcd-tls")
        _save_context(place.context, made.managers, found.identities["client"])
    found.identities[made.role].save(ETC / "tls")
    daemons.make_folders(made)
    daemons.write(configs.of_one_more(made, found.address_pool))
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
    # Where it was made, which may be another place than that of who runs this.
    place = Path(found.context) if found is not None else contexts.config_dir() / "contexts" / context
    contexts.remove(place.name, root=str(place.parent.parent))
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


def _save_context(name: str, managers: tuple[str, ...], identity: Identity) -> None:
    pems = (identity.ca_pem.decode(), identity.cert_pem.decode(), identity.key_pem.decode())
    contexts.save(name, contexts.Context(managers, *pems))
    contexts.select(name)
