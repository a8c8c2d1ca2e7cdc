"""What containers see of each other: names, isolation, UDP, large packets."""

from __future__ import annotations

import pytest
from tests.support.lab import REGISTRY, LabUnderTest, eventually

pytestmark = pytest.mark.lab

BOX = f"{REGISTRY}/busybox:1"


def say(lab: LabUnderTest, service: str) -> str:
    return lab.cli("service", "logs", "--raw", service)


def ask(lab: LabUnderTest, name: str, script: str, *flags: str) -> None:
    """A container on every host that runs `script` again and again and prints what it gets."""
    loop = f"while true; do {script}; sleep 1; done"
    lab.cli("service", "deploy", name, BOX, "--mode", "global", *flags, "--", "sh", "-c", loop)


def test_a_service_is_reached_by_name_from_every_host(lab: LabUnderTest) -> None:
    lab.cli("service", "deploy", "web", f"{REGISTRY}/web:v1", "--replicas", "3")
    ask(lab, "asker", "echo $(hostname) got $(wget -T 3 -q -O - http://web/)", "--hostname", "{{.Node.Hostname}}")
    for n in (1, 2, 3):
        eventually(lambda n=n: f"host-{n} got hello (v1)" in say(lab, "asker"), f"an answer on host-{n}")


def test_another_network_does_not_reach_it(lab: LabUnderTest) -> None:
    lab.cli("network", "create", "apart")
    try:
        lab.cli("service", "deploy", "web", f"{REGISTRY}/web:v1", "--replicas", "1", "--network", "apart")
        address = lab.running("web")[0]["addresses"][0]
        address = address["address"] if isinstance(address, dict) else address.split("/")[0]
        script = (
            f"echo name $(wget -T 2 -q -O - http://web/ 2>&1); echo number $(wget -T 2 -q -O - http://{address}/ 2>&1)"
        )
        ask(lab, "outsider", script)
        ask(lab, "insider", script, "--network", "apart")
        eventually(lambda: "number hello (v1)" in say(lab, "insider"), "an answer inside")
        eventually(lambda: say(lab, "outsider").count("number wget") >= 3, "refusals outside")
        assert "hello" not in say(lab, "outsider")
    finally:
        lab.remove_services()
        lab.cli("network", "rm", "apart")


def test_udp_by_name_and_published(lab: LabUnderTest) -> None:
    lab.cli(
        *("service", "deploy", "echo", BOX, "--replicas", "2", "--publish", "9000:9000/udp"),
        *("--", "udpsvd", "-E", "0", "9000", "sh", "-c", 'read line; echo "you said $line"'),
    )
    ask(lab, "asker", "echo hello | nc -u -w 1 echo 9000")
    eventually(lambda: "you said hello" in say(lab, "asker"), "an answer over UDP by name")


def test_large_transfers_pass(lab: LabUnderTest) -> None:
    """Three megabytes over TCP between hosts: a wrong MTU would stall it."""
    lab.cli(
        *("service", "deploy", "big", BOX, "--replicas", "1", "--constraint", "node.hostname==host-1"),
        *("--", "sh", "-c", "dd if=/dev/zero of=/tmp/index.html bs=1M count=3 2>/dev/null; httpd -f -p 80 -h /tmp"),
    )
    ask(
        lab,
        "asker",
        "echo $(hostname) bytes $(wget -T 5 -q -O - http://big/index.html | wc -c)",
        "--hostname",
        "{{.Node.Hostname}}",
    )
    for n in (1, 2, 3):
        eventually(lambda n=n: f"host-{n} bytes 3145728" in say(lab, "asker"), f"three megabytes on host-{n}")
