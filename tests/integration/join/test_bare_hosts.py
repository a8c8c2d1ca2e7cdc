"""From bare hosts to a cluster by `init` and `join`, and out of it by `leave`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest
from tests.integration.join.hosts import MARKS, PYSWARM, Bare, authority_of, bare_hosts, eventually, start

from pyswarm_core import tls
from pyswarm_core.enrolment import public_key_of, request_of
from pyswarm_core.errors import StoreUnavailable
from pyswarm_core.etcd.store import EtcdStore
from pyswarm_manager.join.vault import Vault

pytestmark = [*MARKS, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def bare() -> Iterator[list[Bare]]:
    with bare_hosts(4) as made:
        yield made


@pytest.fixture(scope="module")
def token(bare: list[Bare]) -> str:
    """Of workers, as `init` on the first host printed it."""
    printed = bare[0].run("init", "--advertise-addr", bare[0].address)
    assert "systemd is not the first process here" in printed
    bare[0].start(printed)
    eventually(lambda: _ready(bare[0], 1), "the first node is ready", bare=bare[0])
    found = re.search(rf"pyswarm join --token (PYSWTKN-1-\S+) {re.escape(bare[0].address)}:2377", printed)
    assert found, printed
    return found[1]


@pytest.fixture(scope="module")
def worker(bare: list[Bare], token: str) -> Bare:
    bare[1].start(bare[1].run("join", "--token", token, f"{bare[0].address}:2377"))
    eventually(lambda: _ready(bare[0], 2), "the worker is ready", bare=bare[1])
    return bare[1]


def _ready(manager: Bare, count: int) -> bool:
    nodes = manager.nodes()
    return len(nodes) == count and all(node["status"] == "ready" for node in nodes)


def test_init_leaves_no_key_of_the_authority_on_disk(bare: list[Bare], token: str) -> None:
    seed = bare[0].host.data / "manager" / "seed.json"
    eventually(lambda: not seed.exists(), "the seed was moved into etcd")
    assert not any("ca-key" in name for name in bare[0].files())
    key = bare[0].host.etc / "pyswarm" / "tls" / "key.pem"
    assert key.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("words", [("init",), ("join", "--token", "TOKEN", "MANAGER")])
def test_a_member_stays_as_it_is(bare: list[Bare], token: str, worker: Bare, words: tuple[str, ...]) -> None:
    given = [token if w == "TOKEN" else bare[0].address if w == "MANAGER" else w for w in words]
    for host in (bare[0], worker):
        before = host.files()
        said = host.run(*given, code=1)
        assert "is in a cluster already" in said and "nothing was changed" in said
        assert host.files() == before


def test_the_workers_certificate(bare: list[Bare], worker: Bare) -> None:
    identity = tls.Identity.load(worker.host.etc / "pyswarm" / "tls")
    assert identity.subject.role == "worker"
    node = next(n for n in bare[0].nodes() if n["id"] == identity.subject.common_name)
    assert node["hostname"] == worker.host.name
    assert not (worker.host.etc / "pyswarm" / "etcd-tls").exists()


def test_a_rotated_token_is_refused(bare: list[Bare], token: str) -> None:
    new = bare[0].run("swarm", "join-token", "worker", "--rotate", "-q").strip()
    assert new != token
    assert new[:60] == token[:60], "the cluster's authority is the same"
    assert bare[0].run("swarm", "join-token", "worker", "-q").strip() == new
    said = bare[3].run("join", "--token", token, bare[0].address, code=1)
    assert "not valid" in said and "join-token worker" in said
    assert not bare[3].files()


def test_another_clusters_token_is_not_sent(bare: list[Bare], token: str) -> None:
    other = token[:10] + ("a" if token[10] != "a" else "b") + token[11:]
    before = bare[0].log("manager").count("join secret")
    said = bare[3].run("join", "--token", other, bare[0].address, code=1)
    assert "is not a manager of this token's cluster" in said and "was not sent" in said
    assert bare[0].log("manager").count("join secret") == before
    assert not bare[3].files()


def test_a_second_manager(bare: list[Bare], token: str, worker: Bare) -> None:
    before = len(bare[0].nodes())
    manager_token = bare[0].run("swarm", "join-token", "manager", "-q").strip()
    third = bare[2]
    third.start(third.run("join", "--token", manager_token, bare[0].address))
    eventually(lambda: _ready(bare[0], before + 1), "the manager's node is ready", bare=third)
    eventually(lambda: "etcd member has a vote" in bare[0].log("manager"), "its etcd votes", bare=third)

    def both_manage() -> bool:
        said = sorted(n["manager_status"] for n in third.nodes() if n["manager_status"])
        return said == ["leader", "reachable"]

    eventually(both_manage, "asked by the new manager, both manage", bare=third)


def test_a_workers_agent_renews_its_certificate(bare: list[Bare], token: str, worker: Bare) -> None:
    """Given one that is nearly over, it starts, and fetches another: the certificate changes, the process does not."""
    eventually(lambda: _ready(bare[0], len(bare[0].nodes())), "all are ready", bare=worker)
    folder = worker.host.etc / "pyswarm" / "tls"
    old = tls.Identity.load(folder)
    short = authority_of(bare[0]).certify(
        public_key_of(request_of(old.key_pem)), common_name=old.subject.common_name, role="worker", days=30 / 86400
    )
    worker.stop("agent")
    worker.put("/etc/pyswarm/tls/cert.pem", short)
    worker.start("    sh -c 'set -a; . /etc/pyswarm/agent.env; exec " + " ".join([*PYSWARM, "agent", "run"]) + "'")
    pid = worker.pid("agent")
    eventually(lambda: tls.Identity.load(folder).expires_at > old.expires_at - 86400, "it is renewed", bare=worker)
    assert tls.Identity.load(folder).subject == old.subject
    assert worker.pid("agent") == pid


def test_a_workers_certificate_does_not_open_etcd(bare: list[Bare], worker: Bare) -> None:
    async def read() -> None:
        identity = tls.Identity.load(worker.host.etc / "pyswarm" / "tls")
        store = EtcdStore.connect([f"{bare[0].address}:2379"], identity)
        try:
            await Vault(store).authority()
        finally:
            await store.close()

    with pytest.raises(StoreUnavailable):
        asyncio.run(read())


def test_roots_context_renews_itself(bare: list[Bare], token: str) -> None:
    first, context = bare[0], bare[0].context
    old = tls.Identity.load(context)
    short = authority_of(first).certify(
        public_key_of(request_of(old.key_pem)), common_name=old.subject.common_name, role="client", days=60 / 86400
    )
    first.stop("agent")
    (context / "cert.pem").write_bytes(short)
    start(first, "agent")
    eventually(lambda: tls.Identity.load(context).expires_at > old.expires_at - 86400, "it is renewed", bare=first)
    assert tls.Identity.load(context).subject == old.subject
    assert first.nodes(), "and is good for something"


def test_leave_and_join_again(bare: list[Bare], token: str, worker: Bare) -> None:
    former = tls.Identity.load(worker.host.etc / "pyswarm" / "tls").subject.common_name
    said = worker.run("leave")
    assert "has left its cluster" in said
    assert former not in {node["id"] for node in bare[0].nodes()}, "it said goodbye by itself"
    assert worker.pid("agent") is None
    assert not worker.files()
    assert not {"agent", "images", "rootfs", "tasks"} & {path.name for path in worker.host.data.iterdir()}
    assert "in no cluster" in worker.run("leave", code=1)
    now = bare[0].run("swarm", "join-token", "worker", "-q").strip()
    worker.start(worker.run("join", "--token", now, bare[0].address))
    again = tls.Identity.load(worker.host.etc / "pyswarm" / "tls").subject.common_name
    assert again != former
    eventually(
        lambda: any(n["id"] == again and n["status"] == "ready" for n in bare[0].nodes()), "it is back", bare=worker
    )


def test_a_removed_node_stays_away(bare: list[Bare], token: str, worker: Bare) -> None:
    """Its agent lives, and is refused until the host joins anew."""
    former = tls.Identity.load(worker.host.etc / "pyswarm" / "tls").subject.common_name
    bare[0].run("node", "rm", "--force", former)
    eventually(lambda: "was removed from this cluster" in worker.log("agent"), "its agent is told", bare=worker)
    assert worker.pid("agent")
    worker.stop("agent")
    start(worker, "agent")
    before = worker.log("agent").count("was removed from this cluster")
    eventually(lambda: worker.log("agent").count("was removed from this cluster") > before, "told again", bare=worker)
    assert former not in {node["id"] for node in bare[0].nodes()}
    worker.run("leave")
    now = bare[0].run("swarm", "join-token", "worker", "-q").strip()
    worker.start(worker.run("join", "--token", now, bare[0].address))
    eventually(lambda: _ready(bare[0], len(bare[0].nodes())), "it is another node now", bare=worker)


def test_managers_leave_but_for_the_last(bare: list[Bare], token: str) -> None:
    first, third = bare[0], bare[2]
    leader = next(h for h in (first, third) if _status(first, h) == "leader")
    stays = third if leader is first else first
    leader.run("leave")
    assert _status(stays, stays) == "leader"
    assert not leader.files() and not (leader.host.data / "etcd").exists()
    assert leader.host.name not in {node["hostname"] for node in stays.nodes()}
    said = stays.run("leave", code=1)
    assert "only manager" in said and "--force" in said
    assert stays.pid("manager")


def _status(asked: Bare, of: Bare) -> str:
    return next(n["manager_status"] for n in asked.nodes() if n["hostname"] == of.host.name)
