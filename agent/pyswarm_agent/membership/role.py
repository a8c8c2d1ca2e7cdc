"""This host becomes what its node is to be: a manager with etcd beside it, or a worker again. See docs/adr/0013.

Each step may be repeated, and the record of membership is written last: an agent that ends in between begins anew.
Blocking: to be run in a thread.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from pyswarm_agent.membership import context
from pyswarm_core import tls
from pyswarm_core.log import get_logger
from pyswarm_core.membership import configs, daemons, member
from pyswarm_core.membership.member import ETC, Member

log = get_logger("agent.membership")


@dataclass(frozen=True, slots=True)
class Granted:
    """What a manager has signed and said for a role."""

    role: str
    identities: dict[str, tls.Identity] = field(repr=False)  # by role
    managers: tuple[str, ...]
    etcd: tuple[str, ...]  # HOST:PORT
    address_pool: str  # managers only


def become_manager(host: Member, granted: Granted) -> Member:
    made = host.as_manager(granted.managers, granted.etcd)
    granted.identities["etcd"].save(ETC / "etcd-tls")
    granted.identities["manager"].save(ETC / "tls")
    files = configs.of_one_more(made, granted.address_pool)
    daemons.write({name: files[name] for name in ("etcd.env", "manager.env")})
    _set_role(made)
    context.create(Path(made.context), made.managers, granted.identities["client"])
    daemons.make_folders(made)
    daemons.install_units(made)
    daemons.start(made, ("etcd", "manager"), detached=True)
    member.save(made)
    log.info("this host manages the cluster from now on", node=made.node_id)
    return made


def become_worker(host: Member, granted: Granted) -> Member:
    made = replace(host, role="worker", etcd=(), managers=granted.managers)
    daemons.stop(("manager", "etcd"))
    granted.identities["worker"].save(ETC / "tls")
    daemons.forget(("manager", "etcd"))
    for name in ("manager", "etcd"):
        shutil.rmtree(Path(host.data_dir) / name, ignore_errors=True)
    _set_role(made)
    context.remove(Path(host.context))
    member.save(made)
    log.info("this host is a worker from now on", node=made.node_id)
    return made


def _set_role(made: Member) -> None:
    path = ETC / "agent.env"
    daemons.write({path.name: configs.with_value(path.read_text(), "PYSWARM_AGENT_ROLE", made.role)})
