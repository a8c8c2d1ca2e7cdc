"""Asks a registry whether credentials are right, by the registry API: `/v2/`, with Basic or a token, over TLS."""

from __future__ import annotations

import base64
import http.client
import json
import re
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

from pyswarm_core.errors import PreconditionFailed, PyswarmError

TIMEOUT = 15.0  # seconds for each request
DOCKER_HUB = "docker.io"
_HUB_API = "registry-1.docker.io"
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


class _Connection(http.client.HTTPSConnection):
    """Dials an address of the context's, while the certificate must be that of the name."""

    def __init__(self, host: str, port: int, address: str, trust: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=TIMEOUT, context=trust)
        self._address = address
        self._trust = trust

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), self.timeout)
        try:
            self.sock = self._trust.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


def accepts(host: str, username: str, password: str, *, hosts: Mapping[str, str], ca: str) -> None:
    """Returns when the registry accepts the credentials. `hosts`: name → address, `ca`: PEM, both of the context.

    Raises PreconditionFailed when it refuses them, PyswarmError when it cannot be asked."""
    registry = _HUB_API if host == DOCKER_HUB else host
    basic = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
    status, challenge, _ = _get(registry, "/v2/", basic, hosts, ca)
    if status == 200:
        return
    if status == 401 and challenge.lower().startswith("bearer"):
        parameters = dict(_PARAMETER.findall(challenge))
        realm = urlsplit(parameters.get("realm", ""))
        if realm.scheme != "https" or not realm.netloc:
            raise PyswarmError(f"the registry {host} names no https realm to ask for a token; it cannot be used")
        query = urlencode({"service": parameters.get("service", ""), "account": username})
        status, _, body = _get(realm.netloc, f"{realm.path or '/'}?{query}", basic, hosts, ca)
        if status == 200 and _token(body):
            return
    if status in (401, 403):
        raise PreconditionFailed(f"the registry {host} does not accept this user name and password")
    raise PyswarmError(f"the registry {host} answered with HTTP status {status}; is it a registry at all?")


def _get(netloc: str, path: str, authorization: str, hosts: Mapping[str, str], ca: str) -> tuple[int, str, bytes]:
    parts = urlsplit(f"//{netloc}")
    name = parts.hostname or netloc
    trust = ssl.create_default_context(cadata=ca or None)
    connection = _Connection(name, parts.port or 443, hosts.get(name, name), trust)
    try:
        connection.request("GET", path, headers={"Authorization": authorization, "User-Agent": "pyswarm"})
        answer = connection.getresponse()
        return answer.status, answer.getheader("WWW-Authenticate") or "", answer.read(1 << 20)
    except ssl.SSLCertVerificationError as error:
        raise PyswarmError(
            f"the certificate of the registry {netloc} is not trusted: {error.verify_message}; "
            "add its authority to this machine, or to the context's registry_ca"
        ) from None
    except ssl.SSLError as error:
        raise PyswarmError(f"the registry {netloc} does not speak TLS: {error.reason or error}") from None
    except TimeoutError:
        raise PyswarmError(f"the registry {netloc} does not answer; check the name and that it runs") from None
    except (OSError, http.client.HTTPException) as error:
        why = (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()
        raise PyswarmError(f"the registry {netloc} cannot be reached: {why}; check the name and that it runs") from None
    finally:
        connection.close()


def _token(body: bytes) -> bool:
    try:
        document = json.loads(body)
    except ValueError:
        return False
    return isinstance(document, dict) and bool(document.get("token") or document.get("access_token"))
