"""Lab hosts are members like any others: what `init` and `join` made of them can be changed, and undone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.lab import PYSWARM, LabUnderTest, eventually, running

from pyswarm_cli.lab import layout
from pyswarm_cli.lab.membership import CONFIG


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LabUnderTest]:
    if os.geteuid() != 0:
        pytest.skip("a lab needs root")
    with running(LabUnderTest(f"member{os.getpid()}", tmp_path), hosts=3) as lab:
        yield lab


def roles(lab: LabUnderTest, host: str) -> str:
    """Its daemons; in parentheses: does not run."""
    return next(line.split()[2] for line in lab.lab("ls").splitlines() if line.startswith(f"{host} "))


def test_a_lab_host_is_promoted_restarted_demoted_and_leaves(lab: LabUnderTest) -> None:
    assert roles(lab, "host-2") == "agent"
    lab.cli("node", "promote", "host-2", "host-3")
    assert [n["manager_status"] != "" for n in lab.json("node", "ls")] == [True, True, True]
    assert roles(lab, "host-2") == "etcd,manager,agent"

    lab.lab("stop", "host-2")
    assert roles(lab, "host-2") == "(etcd),(manager),(agent)"
    lab.lab("start", "host-2")
    assert roles(lab, "host-2") == "etcd,manager,agent"
    # Root on a manager's host can use the cluster at once.
    assert "host-3" in lab.on(
        "host-2", "env", f"PYSWARM_CONFIG_DIR={CONFIG}", "PYSWARM_CONTEXT=", *PYSWARM, "node", "ls"
    )

    lab.cli("node", "demote", "host-2", "host-3")
    eventually(lambda: roles(lab, "host-2") == "agent", "host-2 has no manager any more")

    left = lab.on("host-3", *PYSWARM, "leave")
    assert "has left its cluster" in left
    assert layout.load(lab.name).host("host-3").member is None
    # The caller's own context, which is what that ran with, is still there; so is the cluster.
    names = [n["hostname"] for n in lab.json("node", "ls") if n["status"] == "ready"]
    assert sorted(names) == ["host-1", "host-2"]

    token = lab.cli("swarm", "join-token", "worker", "--quiet").strip()
    lab.on("host-3", *PYSWARM, "join", "--token", token, f"{lab.addresses[0]}:2377")
    lab.lab("start", "host-3", "agent")
    eventually(
        lambda: sum(n["status"] == "ready" for n in lab.json("node", "ls")) == 3,
        "host-3 is a node of the cluster again",
    )
