"""Settings, and what the host says of itself."""

from __future__ import annotations

import os
from typing import Any

import pytest

from pyswarm_agent import app_host
from pyswarm_agent.settings import Settings
from pyswarm_core.errors import InvalidInput, PreconditionFailed


def test_managers_get_the_usual_port() -> None:
    assert Settings(managers=("10.0.0.1", "m2:99")).manager_endpoints == ("10.0.0.1:2377", "m2:99")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"managers": ()}, "no manager is named"),
        ({"managers": ("m:port",)}, "'m:port' is not HOST:PORT"),
        ({"managers": ("m:70000",)}, "is not HOST:PORT"),
        ({"address": "fe80::1"}, "is not an IPv4 address"),
        ({"role": "boss"}, "unknown role 'boss'"),
        ({"metrics_addr": "9378"}, "metrics address '9378'"),
    ],
)
def test_what_cannot_be(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        Settings(**{"managers": ("m",), **changes})


def test_this_host() -> None:
    said = app_host.description("h", "127.0.0.1", "crun")
    assert said.hostname == "h" and said.runtime == "crun" and said.kernel == os.uname().release
    assert said.platform.os == "linux" and said.nano_cpus >= 10**9 and said.memory > 2**20
    assert said.mtu >= 1280, "the loopback device's"
    assert app_host.underlay_mtu("192.0.2.77") == app_host.DEFAULT_MTU
    assert said.metrics_address == ""
    assert app_host.description("h", "10.1.2.3", "crun", "0.0.0.0:9378").metrics_address == "10.1.2.3:9378"
    assert app_host.memory_total("MemFree: 1 kB\nMemTotal:  2048 kB\n") == 2 * 2**20


def test_the_address_is_the_way_to_the_managers() -> None:
    assert app_host.address_of(Settings(managers=("m",), address="10.1.2.3")) == "10.1.2.3"
    with pytest.raises(PreconditionFailed, match="--address"):
        app_host.address_of(Settings(managers=("127.0.0.1",)))
