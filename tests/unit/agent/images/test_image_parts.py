from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from pyswarm_agent.images import config, reference
from pyswarm_agent.images.layout import Layout
from pyswarm_agent.images.skopeo import ProgressLines
from pyswarm_agent.interfaces import ImageFailure
from pyswarm_core.v1 import spec_pb2 as spec

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


@pytest.mark.parametrize(
    ("image", "digest", "source", "host"),
    [
        ("docker.io/library/web:latest", "", "docker.io/library/web:latest", "docker.io"),
        ("registry.lab:5000/web:v1", "", "registry.lab:5000/web:v1", "registry.lab:5000"),
        ("registry.lab:5000/a/web", "", "registry.lab:5000/a/web:latest", "registry.lab:5000"),
        ("registry.lab:5000/web:v1", DIGEST, f"registry.lab:5000/web@{DIGEST}", "registry.lab:5000"),
        (f"registry.lab:5000/web:v1@{OTHER}", "", f"registry.lab:5000/web@{OTHER}", "registry.lab:5000"),
        (f"registry.lab:5000/web@{OTHER}", DIGEST, f"registry.lab:5000/web@{DIGEST}", "registry.lab:5000"),
    ],
)
def test_references(image: str, digest: str, source: str, host: str) -> None:
    parsed = reference.parse(image, digest)
    assert (parsed.source, parsed.host) == (source, host)


@pytest.mark.parametrize(
    ("image", "digest"),
    [("web", ""), ("a/b:c d", ""), ("--help/x:y", ""), ("a/b:" + "x" * 200, ""), ("a/b:c", "sha256:short"), ("", "")],
)
def test_what_is_no_reference(image: str, digest: str) -> None:
    with pytest.raises(ImageFailure) as failure:
        reference.parse(image, digest)
    assert failure.value.final


def test_dockers_config() -> None:
    parsed = config.parse(
        {
            "config": {
                "User": "1000",
                "ExposedPorts": {"80/tcp": {}, "53/udp": {}},
                "Env": ["A=1"],
                "Cmd": ["serve"],
                "Entrypoint": ["/entry"],
                "WorkingDir": "/srv",
                "Volumes": {"/data": {}},
                "StopSignal": "SIGQUIT",
                "Labels": {"x": "y"},
                "Healthcheck": {
                    "Test": ["CMD-SHELL", "wget -q localhost"],
                    "Interval": 5_000_000_000,
                    "Timeout": 1_500_000_000,
                    "StartPeriod": 2_000_000_000,
                    "Retries": 4,
                },
            }
        }
    )
    assert parsed.entrypoint == ("/entry",) and parsed.cmd == ("serve",) and parsed.user == "1000"
    assert parsed.exposed == ("53/udp", "80/tcp") and parsed.volumes == ("/data",) and parsed.stop_signal == "SIGQUIT"
    assert parsed.labels == {"x": "y"}
    probe = parsed.probe
    assert probe is not None and list(probe.command.values) == ["/bin/sh", "-c", "wget -q localhost"]
    assert (probe.interval, probe.timeout, probe.start_period, probe.retries) == (5.0, 1.5, 2.0, 4)


def test_an_empty_config_and_nulls() -> None:
    assert config.parse({}) == config.parse({"config": None})
    assert config.parse({"config": {"Cmd": None, "Env": None, "Labels": None, "Healthcheck": None}}).cmd == ()


@pytest.mark.parametrize(
    ("test", "expected"),
    [
        (["NONE"], spec.Probe(disabled=True)),
        (["CMD", "/check", "-x"], spec.Probe(command=spec.StringList(values=["/check", "-x"]))),
        ([], None),
        (["CMD"], None),
    ],
)
def test_healthchecks(test: list[str], expected: spec.Probe | None) -> None:
    assert config.parse({"config": {"Healthcheck": {"Test": test}}}).probe == expected


def test_a_shell_of_the_images_own() -> None:
    blob = {"config": {"Shell": ["/bin/ash", "-ec"], "Healthcheck": {"Test": ["CMD-SHELL", "true"]}}}
    probe = config.parse(blob).probe
    assert probe is not None and list(probe.command.values) == ["/bin/ash", "-ec", "true"]


def make_store(root: Path, images: list[dict[str, object]]) -> None:
    (root / "overlay-images").mkdir(parents=True, exist_ok=True)
    fresh = root / "overlay-images" / "new"
    fresh.write_text(json.dumps(images))
    fresh.replace(root / "overlay-images" / "images.json")


def test_the_stores_layout(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert layout.images() == [] and layout.by_digest(DIGEST) is None
    image_id = "c" * 64
    make_store(
        tmp_path,
        [
            {
                "id": image_id,
                "digest": DIGEST,
                "names": ["r/web:v1"],
                "layer": "top",
                "big-data-names": ["manifest", f"manifest-{OTHER}"],
                "something": {"new": 1},
            }
        ],
    )
    for folder, link, lower in (("top", "TOP", "l/MID:l/LOW"), ("single", "ONE", None)):
        (tmp_path / "overlay" / folder).mkdir(parents=True)
        (tmp_path / "overlay" / folder / "link").write_text(link)
        if lower:
            (tmp_path / "overlay" / folder / "lower").write_text(lower)
    name = base64.b64encode(f"sha256:{image_id}".encode()).decode()
    (tmp_path / "overlay-images" / image_id).mkdir()
    (tmp_path / "overlay-images" / image_id / f"={name}").write_text('{"config": {"Cmd": ["x"]}}')

    stored = layout.by_digest(DIGEST)
    assert stored is not None
    assert layout.by_digest(OTHER) == stored == layout.by_name("r/web:v1") == layout.by_id(image_id)
    assert layout.by_name("r/web:v2") is None
    assert layout.lower(stored) == "l/TOP:l/MID:l/LOW"
    assert layout.load(stored).config.cmd == ("x",)

    make_store(tmp_path, [{"id": "d", "layer": "single"}])
    assert layout.by_digest(DIGEST) is None
    found = layout.by_id("d")
    assert found is not None and layout.lower(found) == "l/ONE"


def test_progress_lines_in_any_pieces() -> None:
    said: list[str] = []
    lines = ProgressLines(said.append)
    text = b"Getting image source signatures\nCopying blob sha256:a\nCopying blob sha256:b\nCopying blob sha256:a\n"
    text += b"Copying config sha256:c\nWriting manifest to image destination\n"
    for at in range(0, len(text), 7):
        lines.feed(text[at : at + 7])
    assert said == ["pulling layer 1", "pulling layer 2", "pulling layer 2", "pulled 2 layers", "storing the image"]
