"""Alerts fire when they should and resolve by themselves; the rules' own tests pass."""

from __future__ import annotations

import datetime

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tests.integration.prometheus.conftest import CRASH
from tests.support import prometheus
from tests.support.lab import LabUnderTest, eventually
from tests.support.prometheus import SHIPPED, Prometheus, promtool

RULES = SHIPPED / "rules"
CHECKS = (
    "promtool check config deploy/prometheus/prometheus.yml",
    "promtool check rules --lint=all --lint-fatal deploy/prometheus/rules/pyswarm.yml",
    "promtool test rules deploy/prometheus/rules/pyswarm.test.yml",
)
CERTIFICATE = "/etc/pyswarm/tls/cert.pem"


@pytest.mark.skipif(bool(prometheus.missing()), reason=prometheus.missing())
def test_promtool_finds_nothing_wrong() -> None:
    for command in CHECKS:
        assert "SUCCESS" in promtool(*command.split()[1:])


def test_every_alert_is_tested_to_fire_and_to_be_silent() -> None:
    rules = yaml.safe_load((RULES / "pyswarm.yml").read_text())
    alerts = {rule["alert"]: rule for group in rules["groups"] for rule in group["rules"]}
    tests = yaml.safe_load((RULES / "pyswarm.test.yml").read_text())["tests"]
    checks = [check for test in tests for check in test["alert_rule_test"]]
    assert {c["alertname"] for c in checks if c["exp_alerts"]} == alerts.keys()
    assert {c["alertname"] for c in checks if not c["exp_alerts"]} == alerts.keys()
    for name, rule in alerts.items():
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}, name
        assert rule["annotations"].keys() == {"summary", "description"}, name


def nearly_expired() -> str:
    """PEM; 95 % of its life is over. Nobody would take it for anything else."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "old")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(hours=95))
    made = builder.not_valid_after(now + datetime.timedelta(hours=5)).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.lab
def test_alerts_fire_and_resolve(lab: LabUnderTest, prom: Prometheus, app: str) -> None:
    wanted = {
        ("PyswarmNodeDown", "host-3"),
        ("PyswarmRolloutFailed", app),
        ("PyswarmCertificateExpiring", "host-2"),
    }
    eventually(lambda: not wanted & prom.firing() and len(prom.up("pyswarm")) == 4, "all is well", 15)
    # All three at once, to save time: a host that dies, a certificate that nobody renews, an update that fails.
    lab.lab("kill", "host-3")
    try:
        lab.on("host-2", "sh", "-c", f"cp -p {CERTIFICATE} /run/cert.pem; echo '{nearly_expired()}' > {CERTIFICATE}")
        lab.cli("service", "update", app, "--image", CRASH, code=2)
        eventually(lambda: wanted <= prom.firing(), "all three alerts", 40)
        assert ("PyswarmAgentDown", "host-3") not in prom.firing(), "the dead node's agent is no news"
    finally:
        lab.on("host-2", "sh", "-c", f"cp -p /run/cert.pem {CERTIFICATE}")
        lab.lab("start", "host-3")
    lab.cli("service", "update", app, "--env-add", "MENDED=1")
    eventually(lambda: not wanted & prom.firing(), "the end of all three alerts", 30)
