"""Registry logins: kept private, checked against a registry that speaks Basic, tokens, or nothing of the kind."""

from __future__ import annotations

import base64
import json
import ssl
import stat
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.support.cli import Run
from tests.support.fake_control import AUTHORITY, CLIENT

from pyswarm_cli.registry import auths
from pyswarm_cli.registry.check import accepts
from pyswarm_core import contexts
from pyswarm_core.contexts import Context
from pyswarm_core.errors import InvalidInput, NotFound, PreconditionFailed, PyswarmError

GOOD = "Basic " + base64.b64encode(b"me:se:cret").decode()


class Registry(BaseHTTPRequestHandler):
    """`kind` of the server: basic, token, open, or broken."""

    def do_GET(self) -> None:
        kind = self.server.kind  # type: ignore[attr-defined]
        allowed = self.headers.get("Authorization") == GOOD
        if kind == "broken":
            return self._answer(500)
        if kind == "basic":
            return self._answer(200 if allowed else 401, {"WWW-Authenticate": 'Basic realm="x"'})
        if self.path.startswith("/token"):
            assert "service=reg" in self.path
            return self._answer(200 if allowed else 401, body=json.dumps({"token": "t"} if allowed else {}))
        host = self.headers["Host"]
        realm = f'Bearer realm="https://{host}/token",service="reg",scope="x"'
        return self._answer(401, {"WWW-Authenticate": realm})

    def _answer(self, status: int, headers: dict[str, str] | None = None, body: str = "{}") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    AUTHORITY.issue(common_name="registry", role="etcd", names=["registry.lab"]).save(tmp_path / "tls")
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Registry)
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trust.load_cert_chain(tmp_path / "tls/cert.pem", tmp_path / "tls/key.pem")
    listening.socket = trust.wrap_socket(listening.socket, server_side=True)
    listening.kind = "basic"  # type: ignore[attr-defined]
    thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
    thread.start()
    yield listening
    listening.shutdown()
    listening.server_close()
    thread.join()


@pytest.fixture
def host(server: ThreadingHTTPServer) -> str:
    name = f"registry.lab:{server.server_address[1]}"
    ca = AUTHORITY.ca_pem.decode()
    pems = (CLIENT.ca_pem.decode(), CLIENT.cert_pem.decode(), CLIENT.key_pem.decode())
    contexts.save("here", Context(("127.0.0.1:1",), *pems, {"registry.lab": "127.0.0.1"}, {name: ca}))
    contexts.select("here")
    return name


@pytest.mark.parametrize("kind", ["basic", "token"])
def test_login_and_logout(run: Run, server: ThreadingHTTPServer, host: str, kind: str, config_dir: Path) -> None:
    server.kind = kind  # type: ignore[attr-defined]
    wrong = run("registry", "login", host, "-u", "me", "--password-stdin", stdin="no\n")
    assert wrong.exit_code == 1 and "does not accept" in wrong.stderr
    assert auths.find(host) is None
    result = run("registry", "login", host, "-u", "me", "--password-stdin", stdin="se:cret\n")
    assert result.exit_code == 0, result.output
    assert result.stdout == "Login Succeeded\n"
    assert auths.find(host) == ("me", "se:cret")
    assert stat.S_IMODE((config_dir / "auth.json").stat().st_mode) == 0o600
    assert "se:cret" not in result.output
    assert run("registry", "logout", host).exit_code == 0
    assert auths.find(host) is None
    assert run("registry", "logout", host).exit_code == 1


def check(host: str, **given: object) -> None:
    ca = AUTHORITY.ca_pem.decode()
    accepts(host, "me", "se:cret", hosts={"registry.lab": "127.0.0.1"}, ca=str(given.get("ca", ca)))


def test_a_registry_that_is_not_trusted(host: str) -> None:
    with pytest.raises(PyswarmError, match="is not trusted"):
        check(host, ca="")


def test_a_registry_that_is_none(server: ThreadingHTTPServer, host: str) -> None:
    server.kind = "broken"  # type: ignore[attr-defined]
    with pytest.raises(PyswarmError, match="HTTP status 500"):
        check(host)


def test_a_registry_that_is_down() -> None:
    with pytest.raises(PyswarmError, match="cannot be reached: connection refused"):
        check("registry.lab:1")
    with pytest.raises(PyswarmError, match="cannot be reached"):
        check("nowhere.invalid")


def test_credentials_refused(server: ThreadingHTTPServer, host: str) -> None:
    with pytest.raises(PreconditionFailed):
        accepts(host, "you", "x", hosts={"registry.lab": "127.0.0.1"}, ca=AUTHORITY.ca_pem.decode())


def test_the_file_is_what_other_tools_read(config_dir: Path) -> None:
    auths.save("registry.lab:5000", "me", "secret")
    auths.save("docker.io", "you", "secret")
    assert json.loads((config_dir / "auth.json").read_text()) == {
        "auths": {
            "registry.lab:5000": {"auth": base64.b64encode(b"me:secret").decode()},
            "docker.io": {"auth": base64.b64encode(b"you:secret").decode()},
        }
    }
    assert auths.hosts() == ["docker.io", "registry.lab:5000"]
    assert auths.for_image("web").host == "docker.io"
    with pytest.raises(NotFound, match=r"registry login other\.lab"):
        auths.for_image("other.lab/web")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"auths": []}', '{"auths": {"a": {}}}', '{"auths": {"a": {"auth": "!"}}}']
)
def test_a_damaged_file_says_so(config_dir: Path, text: str) -> None:
    auths.save("a", "me", "secret")
    (config_dir / "auth.json").write_text(text)
    with pytest.raises(InvalidInput):
        auths.find("a")
