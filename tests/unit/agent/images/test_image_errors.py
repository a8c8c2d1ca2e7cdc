"""Most messages are what skopeo 1.9 said to a real registry; those of other registries are from their code."""

from __future__ import annotations

import pytest

from pyswarm_agent.images.errors import translate
from pyswarm_agent.images.reference import parse

REFERENCE = parse("reg.example:5000/team/web:v1", "")


def fatal(message: str) -> str:
    escaped = message.replace('"', '\\"')
    return f'Getting image source signatures\ntime="2026-11-24T14:23:44Z" level=fatal msg="{escaped}"\n'


@pytest.mark.parametrize(
    ("message", "sentence", "final"),
    [
        ("initializing source docker://r/web:nope: reading manifest nope in r/web: manifest unknown: manifest unknown",
         "does not exist on reg.example:5000", True),
        ("reading manifest v1 in r/web: name unknown: repository name not known to registry", "no repository", True),
        ("reading manifest v1 in r/web: unauthorized: authentication required", "registry login", True),
        ("reading manifest v1 in docker.io/x/web: requested access to the resource is denied", "registry login", True),
        ('pinging container registry r: Get "https://r/v2/": dial tcp 127.0.0.1:5998: connect: connection refused',
         "refuses connections", False),
        ('Get "https://r/v2/": dial tcp: lookup registry.invalid on 10.0.0.1:53: no such host', "no address", False),
        ('Get "https://r/v2/": dial tcp: lookup r: i/o timeout', "does not answer", False),
        ('Get "https://r/v2/": net/http: TLS handshake timeout', "does not answer", False),
        ('Get "https://r/v2/": x509: certificate signed by unknown authority',
         "/etc/containers/certs.d/reg.example:5000/ca.crt", True),
        ('Get "https://r/v2/": x509: certificate has expired or is not yet valid: current time',
         "is not accepted: certificate has expired", True),
        ('Get "https://r/v2/": http: server gave HTTP response to HTTPS client', "plain HTTP", True),
        ("writing blob: storing blob to file: write /var/x: no space left on device", "disk is full", False),
        ("reading blob sha256:1: Digest did not match, expected sha256:1, got sha256:2", "digest promises", True),
        ("toomanyrequests: You have reached your pull rate limit", "no more pulls", False),
        ("choosing image: no image found in manifest list for architecture arm64", "platform", True),
        ("Source image rejected: Running image docker://r/web is rejected by policy.", "signature policy", True),
        ("received unexpected HTTP status: 503 Service Unavailable", "an error of its own", False),
        ("a thing that nobody foresaw", "could not be pulled: a thing that nobody foresaw", False),
    ],
)  # fmt: skip
def test_sentences(message: str, sentence: str, final: bool) -> None:
    failure = translate(fatal(message), REFERENCE)
    assert sentence in str(failure)
    assert failure.final is final


def test_no_output_at_all() -> None:
    assert "gave no reason" in str(translate("", REFERENCE))
