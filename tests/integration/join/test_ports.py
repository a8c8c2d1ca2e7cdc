"""Every port that a manager's host opens to others, as the kernel lists them, and every kind of stranger: refused.

A port that a change opens is in this by itself, and fails until it is said here who may use it.
"""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.integration.join.hosts import MARKS, Bare, authority_of, bare_hosts, eventually

from pyswarm_cli.lab import host as hosts
from pyswarm_core.tls import STORE_NAME, Authority, Identity

pytestmark = [*MARKS, pytest.mark.timeout(300)]

H2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and empty settings
H1 = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Door:
    words: bytes  # that are answered
    roles: frozenset[str]  # whose certificates open it


DOORS = {
    2377: Door(H2, frozenset({"manager", "worker", "client"})),
    2379: Door(H2, frozenset({"manager", "etcd"})),
    2380: Door(H1, frozenset({"manager", "etcd"})),
}
JOIN = 2378  # who has no certificate yet asks here, with TLS: test_impostor, test_bare_hosts
STRANGERS = ("plaintext", "none", "foreign", "expired", "worker", "client", "manager")


@pytest.fixture(scope="module")
def manager() -> Iterator[Bare]:
    with bare_hosts(1) as made:
        made[0].start(made[0].run("init", "--advertise-addr", made[0].address))
        eventually(lambda: [n["status"] for n in made[0].nodes()] == ["ready"], "the node is ready", bare=made[0])
        yield made[0]


@pytest.fixture(scope="module")
def authority(manager: Bare) -> Authority:
    return authority_of(manager)


def talk(address: str, port: int, words: bytes, identity: Identity | None, *, plain: bool = False) -> bytes:
    """What the port answers; b"" when it refuses, by an alert or by hanging up."""
    try:
        with socket.create_connection((address, port), 5) as raw:
            if plain:
                raw.sendall(words)
                return raw.recv(100)
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # here the server judges
            context.set_alpn_protocols(["h2"] if words is H2 else ["http/1.1"])
            if identity is not None:
                with tempfile.TemporaryDirectory() as folder:
                    identity.save(Path(folder))
                    context.load_cert_chain(Path(folder) / "cert.pem", Path(folder) / "key.pem")
            with context.wrap_socket(raw) as connection:
                connection.sendall(words)
                return connection.recv(100)
    except (ssl.SSLError, ConnectionError):
        return b""


def identity_of(caller: str, authority: Authority, address: str) -> Identity | None:
    """`address`: where it calls from, which etcd compares for its peers."""
    if caller in ("plaintext", "none"):
        return None
    if caller in ("foreign", "expired"):
        signer = Authority.create("pyswarm CA") if caller == "foreign" else authority
        days = 0 if caller == "expired" else 1
        return signer.issue(common_name="stranger", role="manager", names=[STORE_NAME], addresses=[address], days=days)
    return authority.issue(common_name="somebody", role=caller, addresses=[address])  # type: ignore[arg-type]


def test_every_open_port_is_known(manager: Bare) -> None:
    said = subprocess.run(
        hosts.enter(manager.lab, manager.host, ["ss", "-Hltn"]), capture_output=True, text=True, check=True
    ).stdout
    listening = re.findall(r"^\S+\s+\d+\s+\d+\s+(\S+):(\d+)\s", said, re.MULTILINE)
    # Metrics are for this host alone until they are opened; DNS answers on the tasks' links.
    private = {int(port) for address, port in listening if address.startswith(("127.", "169.254.1.1"))}
    assert private == {53, 9377, 9378}
    assert {int(port) for _, port in listening} - private == {*DOORS, JOIN}


@pytest.mark.parametrize("caller", STRANGERS)
@pytest.mark.parametrize("port", DOORS)
def test_who_is_answered(manager: Bare, authority: Authority, port: int, caller: str) -> None:
    door = DOORS[port]
    identity = identity_of(caller, authority, manager.lab.gateway)
    answer = talk(manager.address, port, door.words, identity, plain=caller == "plaintext")
    if caller in door.roles:
        assert answer, f"a {caller} is to be answered"
    elif caller == "plaintext":
        assert not answer or b"HTTP request to an HTTPS server" in answer, answer
    else:
        assert answer == b""


def test_the_door_for_who_joins_speaks_tls_alone(manager: Bare) -> None:
    assert talk(manager.address, JOIN, H2, None, plain=True) == b""
    assert talk(manager.address, JOIN, H2, None) != b""
