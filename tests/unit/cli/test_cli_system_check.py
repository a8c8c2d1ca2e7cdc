"""`system check` on machines that lack something; network namespaces stand in for them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from pyswarm_cli.system.environment import default_link

needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("nft") is None, reason="makes network namespaces and rules: needs root and nft"
)
ROUTES = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"


def _check(preparation: str, role: str = "agent") -> tuple[int, dict[str, dict[str, object]]]:
    """In a network namespace that ends with it."""
    command = f'{preparation}; "{sys.executable}" -m pyswarm_cli system check --role {role} --format json'
    done = subprocess.run(["unshare", "--net", "sh", "-c", command], capture_output=True, text=True)
    return done.returncode, {found["check"]: found for found in json.loads(done.stdout)}


@needs_root
def test_foreign_forward_policy() -> None:
    rules = "add table ip docker; add chain ip docker f { type filter hook forward priority 0; policy drop; }"
    code, found = _check(f"nft '{rules}'")
    assert code == 1
    assert not found["forwarding"]["ok"] and not found["forwarding"]["warning"]
    assert "table ip docker drops forwarded packets" in str(found["forwarding"]["detail"])


@needs_root
def test_narrow_link() -> None:
    link = "ip link set lo up; ip link add v0 type veth peer name v1; ip link set v0 mtu 1300 up; ip link set v1 up"
    code, found = _check(f"{link}; ip addr add 192.0.2.1/24 dev v0; ip route add default dev v0")
    assert code == 1
    assert "v0 has 1300; raise it to 1330" in str(found["MTU"]["detail"])


@needs_root
def test_taken_ports_and_warnings() -> None:
    listener = (
        f'"{sys.executable}" -c "import socket,time; s=socket.create_server((\'127.0.0.1\',2379)); '
        "time.sleep(60)\" & pid=$!; trap 'kill $pid' EXIT; "
        "until ss -tln | grep -q :2379; do :; done"
    )
    code, found = _check(f"ip link set lo up; {listener}", "manager")
    assert code == 1
    assert not found["TCP port 2379"]["ok"]
    assert found["TCP port 2380"]["ok"]
    assert "has it; stop that" in str(found["TCP port 2379"]["detail"])
    code, found = _check("ip link add other type vxlan id 7 dstport 4789 local 127.0.0.1; ip link set other up")
    assert code == 1
    assert "other has it" in str(found["UDP port 4789"]["detail"])
    # no default route is a warning alone
    code, found = _check("true")
    assert found["MTU"]["warning"]


@pytest.mark.parametrize(
    ("lines", "link"),
    [
        ([], ""),
        (["eth1 00005A0A 00000000 0001 0 0 0 0000FFFF 0 0 0"], ""),
        (
            ["wlan0 00000000 01005A0A 3 0 0 600 00000000 0 0 0", "eth0 00000000 01005A0A 3 0 0 100 00000000 0 0 0"],
            "eth0",
        ),
    ],
)
def test_default_link(lines: list[str], link: str) -> None:
    assert default_link(ROUTES + "\n".join(line.replace(" ", "\t") for line in lines)) == link


@needs_root
def test_what_lingers_of_a_daemon_that_ended_is_in_nobodys_way() -> None:
    ended = (
        "import socket; s=socket.create_server(('127.0.0.1',2379)); c=socket.create_connection(('127.0.0.1',2379)); "
        "a,_=s.accept(); a.close(); c.close()"
    )
    _, found = _check(
        f'ip link set lo up; "{sys.executable}" -c "{ended}"; ss -tan | grep -q TIME-WAIT || exit 9', "manager"
    )
    assert found["TCP port 2379"]["ok"]


@needs_root
def test_own_daemons_may_have_the_ports() -> None:
    listener = (
        f'"{sys.executable}" -c "import socket,time; s=socket.create_server((\'127.0.0.1\',9378)); '
        "time.sleep(60)\" /usr/bin/pyswarm agent run & pid=$!; trap 'kill $pid' EXIT; "
        "until ss -tln | grep -q :9378; do :; done"
    )
    vxlan = "ip link add psx7 type vxlan id 7 dstport 4789 local 127.0.0.1; ip link set psx7 up"
    _, found = _check(f"ip link set lo up; {vxlan}; {listener}")
    for port in ("TCP port 9378", "UDP port 4789"):
        assert found[port]["ok"] and "own pyswarm" in str(found[port]["detail"])
