"""Settings, and what the host says of itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

import pytest
from tests.unit.agent.tasks.build import make_task

from pyswarm_agent import app_host, metrics
from pyswarm_agent.settings import Settings
from pyswarm_agent.tasks import events as ev
from pyswarm_agent.tasks.life import Life
from pyswarm_agent.tasks.machine import begin, handle
from pyswarm_core.errors import InvalidInput, PreconditionFailed
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_proxy.counters import Traffic


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
    assert app_host.memory_total("MemFree: 1 kB\nMemTotal:  2048 kB\n") == 2 * 2**20
    assert app_host.booted_at("cpu 1\nbtime 1700000000\n") == 1700000000.0 and app_host.booted_at("") == 0.0


def test_the_address_is_the_way_to_the_managers() -> None:
    assert app_host.address_of(Settings(managers=("m",), address="10.1.2.3")) == "10.1.2.3"
    with pytest.raises(PreconditionFailed, match="--address"):
        app_host.address_of(Settings(managers=("127.0.0.1",)))


def figures(lives: Mapping[str, Life], fails: bool = False) -> metrics.Figures:
    async def traffic() -> tuple[metrics.ByName, metrics.ByName]:
        if fails:
            raise OSError("no counters")
        return {"t1": Traffic(3, 10, 20, 0)}, {"s1": Traffic(4, 11, 21, 1)}

    return metrics.Figures(
        lives=lambda: lives,
        is_connected=lambda: True,
        unstored=lambda: 2,
        ack_lag=lambda: 0.5,
        service_names=lambda: {"s1": "web"},
        traffic=traffic,
        dns_queries=lambda: 7,
    )


async def test_metrics_over_http() -> None:
    lives: dict[str, Life] = {}
    made = metrics.Metrics(figures(lives))
    life, _ = begin(make_task(), 1.0)
    for event in (None, ev.Pulled(), ev.Prepared(1), ev.Started(3.0), ev.Settled()):
        if event is not None:
            life, _ = handle(life, event, 2.0)
        lives["t1"] = life
        made.changed(life)
    made.applied(0.004)
    server = await metrics.serve("127.0.0.1:0", made.text)
    port = server.sockets[0].getsockname()[1]

    async def get(path: str) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        return answer

    text = await get("/metrics")
    for line in (
        'pyswarm_agent_tasks{state="running"} 1.0',
        "pyswarm_agent_session_up 1.0",
        "pyswarm_agent_tasks_started_total 1.0",
        'pyswarm_service_connections_total{id="s1",name="web"} 4.0',
        'pyswarm_task_bytes_out_total{id="t1",name="web.1"} 20.0',
        "pyswarm_agent_apply_seconds_count 1.0",
        "pyswarm_agent_dns_queries_total 7.0",
    ):
        assert line in text.splitlines(), line
    assert (await get("/")).startswith("HTTP/1.1 404")
    with pytest.raises(PreconditionFailed, match="--metrics-addr"):
        await metrics.serve(f"127.0.0.1:{port}", made.text)
    server.close()


async def test_counters_that_cannot_be_read_do_not_hide_the_rest() -> None:
    text = (await metrics.Metrics(figures({}, fails=True)).text()).decode()
    assert "pyswarm_agent_session_up 1.0" in text and "pyswarm_service_connections_total{" not in text


def test_metrics_forget_tasks() -> None:
    made = metrics.Metrics(figures({}))
    life, _ = begin(make_task(desired_state=pb.TASK_STATE_SHUTDOWN), 1.0)
    made.changed(life)
    for event in (ev.Cleaned(), ev.Ordered(None, gone=True)):
        life, _ = handle(life, event, 2.0)
        made.changed(life)
    assert not made._seen
