from __future__ import annotations

import pytest

from pyswarm_agent.interfaces import ContainerFailure, ImageConfig
from pyswarm_agent.runtime import mounts
from pyswarm_agent.runtime.mounts import Volume
from pyswarm_core.v1 import spec_pb2 as spec

BIND, VOLUME, TMPFS = spec.MOUNT_TYPE_BIND, spec.MOUNT_TYPE_VOLUME, spec.MOUNT_TYPE_TMPFS


def container(*asked: spec.Mount, read_only: bool = False) -> spec.ContainerSpec:
    return spec.ContainerSpec(mounts=asked, read_only=read_only)


def test_volumes_of_spec_and_image() -> None:
    asked = container(
        spec.Mount(type=VOLUME, source="data", target="/data/"),
        spec.Mount(type=VOLUME, target="/cache"),
        spec.Mount(type=TMPFS, target="/covered"),
    )
    image = ImageConfig(volumes=("/data", "/covered", "/var/lib/db/", "relative"))
    assert mounts.wanted_volumes(asked, image) == [
        Volume("data", "/data", 0),
        Volume("", "/cache", 1),
        Volume("", "/var/lib/db", 2),
    ]


@pytest.mark.parametrize(
    "mount",
    [
        spec.Mount(type=BIND, source="/a", target="relative"),
        spec.Mount(type=BIND, source="a", target="/b"),
        spec.Mount(type=BIND, source="/a", target="/"),
        spec.Mount(type=BIND, source="/a", target="/x/.."),
        spec.Mount(type=BIND, source="/a", target="/proc"),
        spec.Mount(type=BIND, source="/a", target="/b", propagation="sideways"),
        spec.Mount(type=VOLUME, source="../../etc", target="/b"),
        spec.Mount(type=VOLUME, source="/etc", target="/b"),
        spec.Mount(type=VOLUME, source=".", target="/b"),
        spec.Mount(type=VOLUME, source="v", target="/b", propagation="rshared"),
    ],
)
def test_mounts_that_cannot_be_are_refused_for_good(mount: spec.Mount) -> None:
    with pytest.raises(ContainerFailure) as failure:
        mounts.wanted_volumes(container(mount), ImageConfig())
    assert failure.value.final


def test_two_mounts_on_one_target_are_refused() -> None:
    twice = container(spec.Mount(type=TMPFS, target="/a"), spec.Mount(type=TMPFS, target="/a/"))
    with pytest.raises(ContainerFailure, match="/a"):
        mounts.wanted_volumes(twice, ImageConfig())


def test_an_inner_mount_comes_after_the_outer_one() -> None:
    asked = container(
        spec.Mount(type=TMPFS, target="/a/b/c"),
        spec.Mount(type=BIND, source="/host", target="/a"),
        spec.Mount(type=VOLUME, source="v", target="/a/b"),
    )
    built, _ = mounts.build(asked, {"/a/b": "/volumes/v"}, {}, "")
    assert [entry["destination"] for entry in built[len(mounts.DEFAULT) :]] == ["/a", "/a/b", "/a/b/c"]


def test_options() -> None:
    asked = container(
        spec.Mount(type=BIND, source="/host", target="/b", read_only=True, propagation="rslave"),
        spec.Mount(type=TMPFS, target="/t", tmpfs_size=1 << 20, tmpfs_mode=0o700),
        spec.Mount(type=VOLUME, source="v", target="/v", read_only=True),
    )
    built, propagation = mounts.build(asked, {"/v": "/volumes/v"}, {}, "")
    options = {entry["destination"]: entry["options"] for entry in built}
    assert options["/b"] == ["rbind", "ro", "rslave"] and propagation == "rslave"
    assert options["/t"] == ["nosuid", "nodev", "noexec", "rw", "mode=700", "size=1048576"]
    assert options["/v"] == ["rbind", "ro", "rprivate"]


def test_a_users_mount_takes_the_place_of_a_default_and_of_our_files() -> None:
    asked = container(
        spec.Mount(type=TMPFS, target="/dev/shm", tmpfs_size=1 << 30),
        spec.Mount(type=BIND, source="/h", target="/etc/hosts"),
    )
    built, _ = mounts.build(asked, {}, {"/etc/hosts": "/ours", "/etc/hostname": "/ours"}, "")
    by_target = {entry["destination"]: entry for entry in built}
    assert len(by_target) == len(built)
    assert "size=1073741824" in by_target["/dev/shm"]["options"]
    assert by_target["/etc/hosts"]["source"] == "/h"
    assert by_target["/etc/hostname"]["source"] == "/ours"


def test_our_files_are_read_only_where_the_root_is() -> None:
    built, _ = mounts.build(container(read_only=True), {}, {"/etc/hosts": "/ours"}, "")
    assert built[-1]["options"] == ["rbind", "ro", "rprivate"]


def test_the_init_is_mounted() -> None:
    built, _ = mounts.build(container(), {}, {}, "/usr/bin/catatonit")
    assert built[-1]["destination"] == mounts.INIT and built[-1]["source"] == "/usr/bin/catatonit"
