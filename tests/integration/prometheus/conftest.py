"""A lab with a service that has figures of its own, and a Prometheus on its first host."""

from __future__ import annotations

import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support import prometheus
from tests.support.lab import REGISTRY, LabUnderTest, running
from tests.support.prometheus import Prometheus

APP = f"{REGISTRY}/app:1"
CRASH = f"{REGISTRY}/crash:1"
HOSTS = 3
FIGURES = "# HELP app_visitors Visitors.\n# TYPE app_visitors gauge\napp_visitors 42\n"


def build(lab: LabUnderTest, scratch: Path) -> None:
    """A web server with figures at /stats/figures, and a container that ends at once."""
    app = scratch / "app"
    (app / "www/stats").mkdir(parents=True)
    shutil.copy2("/bin/busybox", app / "busybox")
    (app / "www/stats/figures").write_text(FIGURES)
    (app / "www/index.html").write_text("hello\n" * 1000)
    (app / "Dockerfile").write_text(
        "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nCOPY www /www\nENV PATH=/bin\n"
        'CMD ["busybox", "httpd", "-f", "-p", "80", "-h", "/www"]\n'
    )
    lab.build(APP, app)
    crash = scratch / "crash"
    crash.mkdir()
    (crash / "Dockerfile").write_text(f'FROM {APP}\nCMD ["sh", "-c", "exit 3"]\n')
    lab.build(CRASH, crash)


@pytest.fixture(scope="package")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabUnderTest]:
    if os.geteuid() != 0:
        pytest.skip("a lab needs root")
    if why := prometheus.missing():
        pytest.skip(why)
    with running(LabUnderTest(f"prom{os.getpid()}", tmp_path_factory.mktemp("config")), hosts=HOSTS) as lab:
        build(lab, tmp_path_factory.mktemp("images"))
        yield lab


@pytest.fixture(scope="package")
def prom(lab: LabUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    server = Prometheus(lab, tmp_path_factory.mktemp("prometheus"))
    server.start()
    yield server
    lab.on("host-1", "pkill", "-x", "prometheus")  # on that host alone
    server.wait()


@pytest.fixture(scope="package")
def app(lab: LabUnderTest) -> str:
    """The service's name; it has had visitors, an update and a drain."""
    lab.cli(
        *("service", "deploy", "app", APP, "--replicas", "3", "--publish", "8080:80", "--limit-memory", "64M"),
        *("--limit-cpu", "0.5", "--update-monitor", "1s", "--update-parallelism", "3"),
        # As the first process of its container busybox ignores SIGTERM.
        *("--drain-timeout", "2s", "--stop-grace-period", "200ms"),
        *("--label", "prometheus.port=80", "--label", "prometheus.path=/stats/figures"),
    )
    for address in lab.addresses * 5:
        with urllib.request.urlopen(f"http://{address}:8080/", timeout=10) as answer:
            assert answer.read() == b"hello\n" * 1000
    return "app"


def scraped(address: str, port: int) -> str:
    """A daemon's metrics."""
    with urllib.request.urlopen(f"http://{address}:{port}/metrics", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return str(answer.read().decode())
