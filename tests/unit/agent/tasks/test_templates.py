"""Templates, and the request that a runtime gets."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.agent.tasks.build import make_task, tcp_probe

from pyswarm_agent.interfaces import Image, ImageConfig
from pyswarm_agent.tasks.request import Here, container_request, effective_probe, effective_stop_signal, names_of
from pyswarm_agent.tasks.templates import TemplateError, expand
from pyswarm_core.v1 import spec_pb2 as spec

HERE = Here(node_id="n1", hostname="host-1", nameserver="169.254.1.1", search=("corp.example",), architecture="amd64")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain {text}", "plain {text}"),
        ("{{.Task.Slot}}-{{ .Service.Name }}", "1-web"),
        ("{{.Task.ID}} {{.Task.Name}} {{.Service.ID}}", "t1 web.1 s1"),
        ("{{.Node.Hostname}}/{{.Node.ID}}/{{.Node.Platform.Architecture}}", "host-1/n1/amd64"),
        ('{{index .Service.Labels "com.example.tier"}}', "front"),
        ("{{.Service.Labels.tier}}|{{.Service.Labels.none}}", "back|"),
        ("{{.Task.Slot", "{{.Task.Slot"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    task = make_task()
    task.service_labels["com.example.tier"] = "front"
    task.service_labels["tier"] = "back"
    assert expand(text, names_of(task, HERE), "env") == expected


def test_an_unknown_field_names_what_can_be_used() -> None:
    with pytest.raises(TemplateError, match=r"Foo\}\} in the environment variable A: use one of \.Task\.ID"):
        expand("A={{.Task.Foo}}", names_of(make_task(), HERE), "the environment variable A")


def test_the_request() -> None:
    task = make_task("abcdefghijklmnopqrstuvwxy")
    container = task.spec.container
    container.env.append("WHO={{.Service.Name}}.{{.Task.Slot}}")
    container.mounts.add(type=spec.MOUNT_TYPE_VOLUME, source="data-{{.Task.Slot}}", target="/data")
    container.hosts.add(hostname="db", address="10.1.2.3")
    container.labels["a"] = "b"
    request = container_request(task, Image("i", "d", ImageConfig()), Path("/r"), Path("/n"), HERE)
    assert list(request.container.env) == ["WHO=web.1"] and request.container.mounts[0].source == "data-1"
    assert request.hostname == "abcdefghijkl" == request.container.hostname
    assert request.hosts == (("10.128.64.2", "abcdefghijkl"), ("10.1.2.3", "db"))
    assert request.search == ("corp.example",) and request.labels["a"] == "b"
    assert request.labels["pyswarm.task.name"] == "web.1"
    assert container.env == ["WHO={{.Service.Name}}.{{.Task.Slot}}"], "the assignment is not touched"
    container.hostname = "{{.Node.Hostname}}-{{.Task.Slot}}"
    container.dns.search.append("own.example")
    request = container_request(task, Image("i", "d", ImageConfig()), Path("/r"), Path("/n"), HERE)
    assert request.hostname == "host-1-1" and request.search == ("own.example",)


def test_probe_and_stop_signal_of_spec_and_image() -> None:
    image = Image("i", "d", ImageConfig(probe=tcp_probe(), stop_signal="SIGQUIT"))
    plain = spec.ContainerSpec()
    assert effective_probe(plain, image) == tcp_probe() and effective_stop_signal(plain, image) == "SIGQUIT"
    off = spec.ContainerSpec(probe=spec.Probe(disabled=True), stop_signal="SIGINT")
    assert effective_probe(off, image) is None and effective_stop_signal(off, image) == "SIGINT"
    http = spec.Probe(http=spec.HttpCheck(port=80, path="/"))
    assert effective_probe(spec.ContainerSpec(probe=http), image) == http
    assert effective_probe(plain, Image("i", "d", ImageConfig())) is None
