"""What skopeo says when a pull fails → one sentence, and whether the same pull would fail again. Pure."""

from __future__ import annotations

import re

from pyswarm_agent.images.reference import Reference
from pyswarm_agent.interfaces import ImageFailure

# (pattern, sentence, final), tried in order. {ref} is the image, {host} its registry, {0} the pattern's group.
_UNTRUSTED = (
    "the registry {host} has a certificate that this host does not trust: "
    "put its CA into /etc/containers/certs.d/{host}/ca.crt"
)
_PLAIN = (
    "the registry {host} speaks plain HTTP: "
    "give it a certificate, or allow it as insecure in /etc/containers/registries.conf"
)
_DENIALS = (
    r"unauthorized|authentication required|invalid username/password|access to the resource is denied|denied:"
    r"|status code: 401|403 Forbidden|unable to retrieve auth token"
)
_DENIED = (
    "the registry {host} does not let this host pull {ref}: "
    "log in with `pyswarm registry login`, and deploy with --with-registry-auth"
)
_KNOWN: tuple[tuple[str, str, bool], ...] = (
    (r"x509: certificate signed by unknown authority", _UNTRUSTED, True),
    (r"x509: (.+)", "the certificate of the registry {host} is not accepted: {0}", True),
    (r"server gave HTTP response to HTTPS client", _PLAIN, True),
    (
        r"(?:digest|blob) (?:did not match|mismatch)|does not match .*?digest|digest verification|error verifying blob",
        "the image {ref} does not have the content that its digest promises",
        True,
    ),
    (r"name unknown|repository name not known", "the registry {host} has no repository for the image {ref}", True),
    (r"manifest unknown|manifest_unknown", "the image {ref} does not exist on {host}", True),
    (_DENIALS, _DENIED, True),
    (r"no image found in (?:manifest list|image index)", "the image {ref} is not built for this host's platform", True),
    (
        r"source image rejected|rejected by policy",
        "the image {ref} is refused by this host's signature policy (/etc/containers/policy.json)",
        True,
    ),
    (r"too ?many ?requests", "the registry {host} allows no more pulls for now", False),
    (r"no such host|server misbehaving", "the registry {host} has no address: its name is unknown", False),
    (r"connection refused", "the registry {host} refuses connections: it is not running", False),
    (r"no route to host|network is unreachable", "the registry {host} cannot be reached: there is no route", False),
    (r"timeout|deadline exceeded", "the registry {host} does not answer", False),
    (r"connection reset|unexpected EOF|broken pipe", "the connection to the registry {host} broke off", False),
    (r"no space left on device", "this host's disk is full: the image {ref} does not fit", False),
    (r"status code: 5\d\d|received unexpected HTTP status: 5", "the registry {host} has an error of its own", False),
)


def translate(output: str, reference: Reference) -> ImageFailure:
    """What is not known is passed on, shortened, and may be tried again."""
    message = _last_message(output)
    for pattern, sentence, final in _KNOWN:
        if found := re.search(pattern, message, re.IGNORECASE):
            group = found[1] if found.re.groups and found[1] else ""
            return ImageFailure(sentence.format(group, ref=reference, host=reference.host), final=final)
    return ImageFailure(f"the image {reference} could not be pulled: {message or 'skopeo gave no reason'}", final=False)


def _last_message(output: str) -> str:
    """Of skopeo's fatal log line, its text."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    fatal = [line for line in lines if "level=fatal" in line or "level=error" in line] or lines
    if not fatal:
        return ""
    found = re.search(r'msg="((?:[^"\\]|\\.)*)"|msg=(\S+)', fatal[-1])
    text = (found[1] or found[2]).replace('\\"', '"') if found else fatal[-1]
    return text[:400]
