from __future__ import annotations

import pytest

from pyswarm_agent.interfaces import ContainerFailure
from pyswarm_agent.runtime.users import User, resolve

PASSWD = """root:x:0:0:root:/root:/bin/sh
# a comment
broken line
web:x:1000:1001:Web:/srv/web:/bin/sh
1500:x:1501:1502::/home/number:/bin/sh
bare:x:7:8
"""
GROUP = """root:x:0:
wheel:x:10:root,web
log:x:20:web
db:x:30:
"""


@pytest.mark.parametrize(
    ("user", "groups", "expected"),
    [
        ("", [], User(0, 0, (0, 10), "/root")),
        ("root", [], User(0, 0, (0, 10), "/root")),
        ("web", [], User(1000, 1001, (1001, 10, 20), "/srv/web")),
        ("1000", [], User(1000, 1001, (1001, 10, 20), "/srv/web")),
        # a group that is named is all there is
        ("web:db", [], User(1000, 30, (30,), "/srv/web")),
        ("web:55", [], User(1000, 55, (55,), "/srv/web")),
        ("web", ["db", "77"], User(1000, 1001, (1001, 10, 20, 30, 77), "/srv/web")),
        ("web:db", ["db"], User(1000, 30, (30,), "/srv/web")),
        # numbers need not be in the files
        ("4242", [], User(4242, 0, (0,), "/")),
        ("4242:4243", [], User(4242, 4243, (4243,), "/")),
        # a name comes before a number
        ("1500", [], User(1501, 1502, (1502,), "/home/number")),
        ("bare", [], User(7, 8, (8,), "/")),
        (":db", [], User(0, 30, (30,), "/root")),
    ],
)
def test_dockers_rules(user: str, groups: list[str], expected: User) -> None:
    assert resolve(user, groups, PASSWD, GROUP) == expected


def test_an_image_without_files() -> None:
    assert resolve("", [], "", "") == User(0, 0, (0,), "/")
    assert resolve("1000", [], "", "") == User(1000, 0, (0,), "/")


@pytest.mark.parametrize(
    ("user", "groups"), [("nobody", []), ("web:staff", []), ("web", ["staff"]), ("4294967295", [])]
)
def test_what_is_not_there_is_refused_for_good(user: str, groups: list[str]) -> None:
    with pytest.raises(ContainerFailure) as failure:
        resolve(user, groups, PASSWD, GROUP)
    assert failure.value.final
