"""What containers see of each other: names, isolation, UDP, large transfers."""

from __future__ import annotations

import pytest
from tests.support.lab import REGISTRY, LabUnderTest, eventually

pytestmark = pytest.mark.lab

BOX = f"{REGISTRY}/busybox:1"
PYTHON = f"{REGISTRY}/python:3"
NAMED = ("--hostname", "{{.Node.Hostname}}")


def said(lab: LabUnderTest, service: str) -> str:
    return lab.cli("service", "logs", "--raw", service)


def ask(lab: LabUnderTest, name: str, statement: str, *flags: str) -> None:
    """A container on every host that runs a Python statement again and again and prints what it gets.

    (Debian's static busybox cannot resolve names: its libc wants NSS libraries that a scratch image has not.)
    """
    loop = (
        "import socket, time, urllib.request\n"
        "host = socket.gethostname()\n"
        "def get(url): return urllib.request.urlopen(url, timeout=3).read().decode().strip()\n"
        "while True:\n"
        f"    try: {statement}\n"
        "    except OSError as error: print('failed', error, flush=True)\n"
        "    time.sleep(1)\n"
    )
    lab.cli("service", "deploy", name, PYTHON, "--mode", "global", *flags, "--", "/usr/bin/python3", "-c", loop)


def test_a_service_is_reached_by_name_from_every_host(lab: LabUnderTest) -> None:
    lab.cli("service", "deploy", "web", f"{REGISTRY}/web:v1", "--replicas", "3")
    ask(lab, "asker", "print(host, 'got', get('http://web/'), flush=True)", *NAMED)
    for n in (1, 2, 3):
        eventually(lambda n=n: f"host-{n} got hello (v1)" in said(lab, "asker"), f"an answer on host-{n}")
    own = {t["addresses"][0] for t in lab.running("asker")}
    eventually(
        lambda: (
            {line.rpartition("address is ")[2] for line in said(lab, "asker").splitlines() if " got " in line} == own
        ),
        "each asker's own address as the client's",
    )


def test_another_network_does_not_reach_it(lab: LabUnderTest) -> None:
    lab.cli("network", "create", "apart")
    try:
        lab.cli("service", "deploy", "web", f"{REGISTRY}/web:v1", "--replicas", "1", "--network", "apart")
        address = lab.running("web")[0]["addresses"][0]
        by_number = f"print('number', get('http://{address}/'), flush=True)"
        by_name = "print('name', get('http://web/'), flush=True)"
        ask(lab, "outsider", by_number)
        ask(lab, "stranger", by_name)
        ask(lab, "insider", f"{by_number}; {by_name}", "--network", "apart")
        eventually(lambda: "name hello (v1)" in said(lab, "insider"), "an answer inside")
        for service in ("outsider", "stranger"):
            eventually(lambda service=service: said(lab, service).count("failed") >= 3, "refusals outside")
            assert "hello" not in said(lab, service)
    finally:
        lab.remove_services()
        lab.cli("network", "rm", "apart")


def test_udp_by_name_and_published(lab: LabUnderTest) -> None:
    server = (
        "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 9000))\n"
        "while True:\n"
        "    data, peer = s.recvfrom(9000); s.sendto(f'{peer[0]} said {len(data)}'.encode(), peer)\n"
    )
    lab.cli(
        *("service", "deploy", "echo", PYTHON, "--replicas", "2", "--publish", "9000:9000/udp"),
        *("--", "/usr/bin/python3", "-c", server),
    )
    # 3,000 bytes do not fit one packet: fragments have to arrive too
    udp = "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(2); s.sendto(bytes(3000), ('echo', 9000))"
    ask(lab, "asker", f"{udp}; print(host, 'heard', s.recv(100).decode(), flush=True)", *NAMED)
    for n in (1, 2, 3):
        eventually(
            lambda n=n: any(
                f"host-{n} heard" in line and "said 3000" in line for line in said(lab, "asker").splitlines()
            ),
            f"an answer over UDP on host-{n}",
        )


def test_large_transfers_pass(lab: LabUnderTest) -> None:
    """Three megabytes over TCP between hosts: a wrong MTU would stall it."""
    lab.cli(
        *("service", "deploy", "big", BOX, "--replicas", "1", "--constraint", "node.hostname==host-1"),
        *("--", "sh", "-c", "yes | head -c 3000000 > /tmp/index.html; exec httpd -f -p 80 -h /tmp"),
    )
    ask(lab, "asker", "print(host, 'bytes', len(get('http://big/index.html')), flush=True)", *NAMED)
    for n in (1, 2, 3):
        eventually(lambda n=n: f"host-{n} bytes 2999999" in said(lab, "asker"), f"three megabytes on host-{n}")
