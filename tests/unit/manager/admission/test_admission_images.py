from __future__ import annotations

import pytest

from pyswarm_core.errors import InvalidInput
from pyswarm_manager.api.images import Reference, parse_reference

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("web", "docker.io/library/web:latest"),
        ("web:v1", "docker.io/library/web:v1"),
        ("team/web", "docker.io/team/web:latest"),
        ("docker.io/web", "docker.io/library/web:latest"),
        ("index.docker.io/team/web", "docker.io/team/web:latest"),
        ("localhost/web", "localhost/web:latest"),
        ("registry.lab:5000/web:v1", "registry.lab:5000/web:v1"),
        ("registry:5000/a/b/c", "registry:5000/a/b/c:latest"),
        ("10.90.0.1:5000/web", "10.90.0.1:5000/web:latest"),
        ("[::1]:5000/web", "[::1]:5000/web:latest"),
        ("Host/web", "Host/web:latest"),
        (f"web@{DIGEST}", f"docker.io/library/web@{DIGEST}"),
        (f"web:v1@{DIGEST}", f"docker.io/library/web:v1@{DIGEST}"),
        ("a__b/c-d.e:T_1", "docker.io/a__b/c-d.e:T_1"),
    ],
)
def test_completes(text: str, complete: str) -> None:
    assert str(parse_reference(text)) == complete
    assert parse_reference(complete) == parse_reference(text), "a complete reference is its own completion"


def test_parts() -> None:
    found = parse_reference(f"registry.lab:5000/team/web:v1@{DIGEST}")
    assert found == Reference("registry.lab:5000", "team/web", "v1", DIGEST)
    assert found.image == "registry.lab:5000/team/web:v1"
    assert found.name == "registry.lab:5000/team/web"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "No image is named"),
        ("we b", "blanks"),
        ("https://registry/web", "without https://"),
        ("docker://web", "without docker://"),
        ("Web", "lower case"),
        ("registry.lab/Web", "lower case"),
        ("web:", "no valid tag"),
        ("web:-x", "no valid tag"),
        ("web:" + "x" * 129, "no valid tag"),
        ("web@", "no valid digest"),
        ("web@sha256:abcd", "no valid digest"),
        ("web@md5", "no valid digest"),
        ("a//b", "'' must have"),
        ("/web", "'' must have"),
        ("-web", "'-web'"),
        ("a..b/web", "no valid registry"),
        ("registry:99999/web", "no valid registry"),
        ("registry:0/web", "no valid registry"),
        ("registry.lab:5000/", "no repository"),
        ("ab" * 32, "is an id"),
        ("x/" * 140 + "web", "too long"),
        ("wéb", "'wéb'"),
    ],
)
def test_refuses(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as raised:
        parse_reference(text)
    assert str(raised.value).endswith((".", "?"))
