"""What an agent writes down of its host's place in the cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from pyswarm_agent.journal import Journal
from pyswarm_agent.journal_records import Records
from pyswarm_agent.membership import context
from pyswarm_agent.membership.host import HostMembership
from pyswarm_core import contexts, tls
from pyswarm_core.errors import PreconditionFailed
from pyswarm_core.membership import configs, member
from pyswarm_core.membership.member import Member
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import spec_pb2 as spec

MANAGER = spec.NODE_ROLE_MANAGER
TWO = ("10.0.0.1:2377", "10.0.0.2:2377")


@pytest.fixture
def host(tmp_path: Path) -> Member:
    folder = str(tmp_path / "c/contexts/default")
    found = Member("n1", "manager", "10.0.0.1", "host-1", TWO[:1], ("10.0.0.1:2379",), folder)
    member.save(found, tmp_path / "node.json")
    return found


async def told(tmp_path: Path, standing: wire.Standing) -> None:
    """Returns when it is carried out."""

    def nobody(address: str) -> object:
        raise AssertionError(f"{address} was dialled")

    await HostMembership(tmp_path / "node.json", tmp_path / "tls", nobody)._carry_out(standing)  # type: ignore[arg-type]


async def test_record_and_etcd_follow(tmp_path: Path, host: Member) -> None:
    initial = configs.files(host, cluster="c", initial="n1=https://10.0.0.1:2380", initial_state="new")["etcd.env"]
    (tmp_path / "etcd.env").write_text(initial + "ETCD_SNAPSHOT_COUNT=5\n")
    await told(tmp_path, wire.Standing(role=MANAGER, managers=TWO))
    found = member.load(tmp_path / "node.json")
    assert found is not None and found.managers == TWO and found.role == "manager"
    after = (tmp_path / "etcd.env").read_text()
    assert 'ETCD_INITIAL_CLUSTER_STATE="existing"' in after, "without data it must not make a cluster of its own"
    assert '"new"' not in after and "ETCD_SNAPSHOT_COUNT=5" in after, "what the user added stays"


def test_a_record_of_another_version_is_read(tmp_path: Path, host: Member) -> None:
    path = tmp_path / "node.json"
    path.write_text(path.read_text().replace('"role"', '"later": 1, "role"'))
    assert member.load(path) == host
    path.write_text("{}")
    with pytest.raises(PreconditionFailed):
        member.load(path)


def test_its_context_is_the_command_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSWARM_CONFIG_DIR", str(tmp_path / "config"))
    identity = tls.Authority.create("test").issue(common_name="root@host-1", role="client")
    folder = tmp_path / "config" / "contexts" / "default"
    context.create(folder, TWO[:1], identity)
    assert contexts.current() == "default"
    made = contexts.load("default")
    assert (made.managers, made.cert) == (TWO[:1], identity.cert_pem.decode())
    assert context.follow(folder, TWO) and not context.follow(folder, TWO)
    assert contexts.load("default").managers == TWO
    contexts.save("other", made)
    contexts.select("other")
    context.create(folder, TWO, identity)
    assert contexts.current() == "other", "what the user has selected stays so"
    context.remove(folder)
    assert contexts.names() == ["other"] and contexts.current() == "other"
    assert not context.follow(folder, TWO), "what is not there is not made again"


def test_what_was_said_outlives_the_agent(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.open()
    assert Records(journal).standing is None
    Records(journal).set_standing(wire.Standing(role=MANAGER, managers=TWO))
    journal.close()
    again = Journal(tmp_path / "journal")
    again.open()
    standing = Records(again).standing
    again.close()
    assert standing is not None and tuple(standing.managers) == TWO
