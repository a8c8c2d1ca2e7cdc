from __future__ import annotations

import signal

import pytest

from pyswarm_agent.interfaces import ContainerFailure, ImageConfig
from pyswarm_agent.runtime import command
from pyswarm_core.v1 import spec_pb2 as spec

IMAGE = ImageConfig(entrypoint=("/entry",), cmd=("serve", "--all"))


def entrypoint(*values: str) -> spec.StringList:
    return spec.StringList(values=values)


@pytest.mark.parametrize(
    ("container", "image", "expected"),
    [
        (spec.ContainerSpec(), IMAGE, ["/entry", "serve", "--all"]),
        (spec.ContainerSpec(args=["check"]), IMAGE, ["/entry", "check"]),
        (spec.ContainerSpec(entrypoint=entrypoint("/mine")), IMAGE, ["/mine"]),
        (spec.ContainerSpec(entrypoint=entrypoint("/mine"), args=["a"]), IMAGE, ["/mine", "a"]),
        (spec.ContainerSpec(entrypoint=entrypoint(), args=["a"]), IMAGE, ["a"]),
        (spec.ContainerSpec(entrypoint=entrypoint(""), args=["a"]), IMAGE, ["a"]),
        (spec.ContainerSpec(), ImageConfig(cmd=("sh",)), ["sh"]),
    ],
)
def test_dockers_rules(container: spec.ContainerSpec, image: ImageConfig, expected: list[str]) -> None:
    assert command.argv(container, image) == expected


def test_nothing_to_run_is_refused() -> None:
    for container, image in (
        (spec.ContainerSpec(), ImageConfig()),
        (spec.ContainerSpec(entrypoint=entrypoint()), IMAGE),
    ):
        with pytest.raises(ContainerFailure, match="no command") as failure:
            command.argv(container, image)
        assert failure.value.final


def test_the_spec_overrides_the_image_which_overrides_the_defaults() -> None:
    container = spec.ContainerSpec(env=["A=spec", "EMPTY=", "GONE", "B=x=y"], tty=True)
    image = ImageConfig(env=("PATH=/opt/bin", "A=image", "GONE=1", "C=image"))
    assert command.environment(container, image, "host", "/root") == [
        "PATH=/opt/bin",
        "HOSTNAME=host",
        "TERM=xterm",
        "HOME=/root",
        "A=spec",
        "C=image",
        "EMPTY=",
        "B=x=y",
    ]


def test_without_a_terminal_there_is_no_term() -> None:
    found = command.environment(spec.ContainerSpec(), ImageConfig(), "host", "/")
    assert found == [command.DEFAULT_PATH, "HOSTNAME=host", "HOME=/"]


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigint", 2),
        ("9", 9),
        ("RTMIN+3", signal.SIGRTMIN + 3),
        ("SIGRTMAX-1", signal.SIGRTMAX - 1),
        ("RTMIN", signal.SIGRTMIN),
    ],
)
def test_signals(name: str, number: int) -> None:
    assert command.signal_number(name) == number


@pytest.mark.parametrize("name", ["", "NOPE", "0", "65", "SIG_IGN", "_DFL", "RTMIN+99"])
def test_unknown_signals_are_refused(name: str) -> None:
    with pytest.raises(ContainerFailure):
        command.signal_number(name)
