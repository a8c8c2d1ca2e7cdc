"""The image store against a real registry, by the real skopeo, on the real storage layout."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
import trustme
from tests.integration.agent.images.conftest import check_tools, store_settings
from tests.support.etcd import free_port
from tests.support.images import ImageBuilder
from tests.support.registry import PASSWORD, USER, Registry

from pyswarm_agent.images.settings import ImageSettings
from pyswarm_agent.images.store import ImageStore
from pyswarm_agent.interfaces import ImageFailure
from pyswarm_core.v1 import objects_pb2 as pb


def quiet(_: str) -> None:
    pass


def no_skopeo(settings: ImageSettings) -> ImageSettings:
    """Whatever needs a subprocess fails with these."""
    return ImageSettings(settings.data_dir, settings.run_dir, skopeo="/nonexistent/skopeo")


async def test_pull_by_digest(store: ImageStore, images: ImageBuilder, registry: Registry, tmp_path: Path) -> None:
    lines = [
        "ENV A=1",
        "USER 1000",
        "WORKDIR /srv",
        "EXPOSE 80",
        "HEALTHCHECK --interval=5s CMD true",
        'ENTRYPOINT ["/e"]',
    ]
    digest = images.push("team/web:v1", lines)
    said: list[str] = []
    image = await store.pull(f"{registry.host}/team/web:v1", digest, None, said.append)
    assert image.digest == digest
    config = image.config
    assert "A=1" in config.env and (config.user, config.workdir, config.exposed) == ("1000", "/srv", ("80/tcp",))
    assert config.entrypoint == ("/e",)
    assert config.probe is not None and config.probe.interval == 5.0
    assert said[0] == f"pulling {registry.host}/team/web:v1" and "pulling layer 1" in said

    # An image that is here costs no subprocess, in this process or the next.
    again = ImageStore(no_skopeo(store_settings(tmp_path, registry)))
    assert await again.pull(f"{registry.host}/team/web:v1", digest, None, quiet) == image
    await again.close()


async def test_many_tasks_wait_for_one_pull(store: ImageStore, images: ImageBuilder, registry: Registry) -> None:
    digest = images.push("web:v1", files={"big": os.urandom(3_000_000)})
    said: list[list[str]] = [[] for _ in range(10)]
    found = await asyncio.gather(*(store.pull(f"{registry.host}/web:v1", digest, None, heard.append) for heard in said))
    assert len({image.id for image in found}) == 1
    assert len(registry.fetched_blobs()) == len(set(registry.fetched_blobs())) == 3  # two layers and the config
    assert all(heard for heard in said)


async def test_a_waiter_that_goes_away_does_not_end_the_pull(
    store: ImageStore, images: ImageBuilder, registry: Registry
) -> None:
    digest = images.push("web:v1")
    name = f"{registry.host}/web:v1"
    first = asyncio.create_task(store.pull(name, digest, None, quiet))
    second = asyncio.create_task(store.pull(name, digest, None, quiet))
    await asyncio.sleep(0.01)
    first.cancel()
    assert (await second).digest == digest


async def test_a_layer_that_is_here_is_never_fetched_again(
    store: ImageStore, images: ImageBuilder, registry: Registry
) -> None:
    first = images.push("web:v1", files={"app": "version 1"})
    second = images.push("web:v2", files={"app": "version 2"})
    one = await store.pull(f"{registry.host}/web:v1", first, None, quiet)
    before = list(registry.fetched_blobs())
    two = await store.pull(f"{registry.host}/web:v2", second, None, quiet)
    new = registry.fetched_blobs()[len(before) :]
    assert len(new) == 2  # the changed layer and the config
    assert not set(new) & set(before)
    for image, text in ((one, "version 1"), (two, "version 2")):
        root = await store.mount(image, text.replace(" ", ""))
        assert (root / "app").read_text() == text and (root / "bin" / "busybox").exists()


async def test_a_tag_that_moved_is_pulled_anew(store: ImageStore, images: ImageBuilder, registry: Registry) -> None:
    name = f"{registry.host}/web:latest"
    images.push("web:latest", files={"app": "old"})
    old = await store.pull(name, "", None, quiet)
    images.push("web:latest", files={"app": "new"})
    new = await store.pull(name, "", None, quiet)
    assert new.id != old.id
    # and when the registry is away, what is here will do
    registry.stop()
    assert await store.pull(name, "", None, quiet) == new


async def test_an_index_is_resolved_to_this_platform(
    store: ImageStore, images: ImageBuilder, registry: Registry, tmp_path: Path
) -> None:
    index = images.push("multi:v1", platforms=["linux/amd64", "linux/arm64"])
    image = await store.pull(f"{registry.host}/multi:v1", index, None, quiet)
    assert len(registry.fetched_blobs()) == 2  # one layer and one config: the other platform's were left there
    again = ImageStore(no_skopeo(store_settings(tmp_path, registry)))
    assert await again.pull(f"{registry.host}/multi:v1", index, None, quiet) == image
    await again.close()


# ---- failures ----


async def fails(store: ImageStore, image: str, digest: str = "", auth: pb.RegistryAuth | None = None) -> ImageFailure:
    with pytest.raises(ImageFailure) as failure:
        async with asyncio.timeout(60):
            await store.pull(image, digest, auth, quiet)
    assert "\n" not in str(failure.value)
    return failure.value


async def test_what_is_not_there(store: ImageStore, images: ImageBuilder, registry: Registry) -> None:
    images.push("web:v1")
    for image, digest in (
        (f"{registry.host}/web:nope", ""),
        (f"{registry.host}/nope:v1", ""),
        (f"{registry.host}/web:v1", "sha256:" + "0" * 64),
    ):
        failure = await fails(store, image, digest)
        assert failure.final and "does not exist" in str(failure)


async def test_a_registry_that_is_down(store: ImageStore) -> None:
    failure = await fails(store, f"127.0.0.1:{free_port()}/web:v1")
    assert not failure.final and "not running" in str(failure)


async def test_a_registry_without_a_name(store: ImageStore) -> None:
    failure = await fails(store, "registry.invalid/web:v1")
    assert not failure.final and "registry.invalid" in str(failure)


async def test_a_registry_that_does_not_answer_is_given_up(tmp_path: Path, registry: Registry) -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    store = ImageStore(store_settings(tmp_path, registry, pull_timeout=0.5))
    try:
        failure = await fails(store, f"127.0.0.1:{silent.getsockname()[1]}/web:v1")
        assert not failure.final and "not pulled within" in str(failure)
    finally:
        silent.close()
        await store.close()


async def test_a_plain_registry_that_nobody_allowed(tmp_path: Path, images: ImageBuilder, registry: Registry) -> None:
    images.push("web:v1")
    empty = tmp_path / "empty.conf"
    empty.write_text("")
    store = ImageStore(ImageSettings(tmp_path / "data", tmp_path / "run", registries_conf=str(empty)))
    failure = await fails(store, f"{registry.host}/web:v1")
    assert failure.final and "plain HTTP" in str(failure)
    await store.close()


async def test_content_that_is_not_what_its_digest_says(
    store: ImageStore, images: ImageBuilder, registry: Registry
) -> None:
    digest = images.push("web:v1", files={"app": "true"})
    blobs = sorted((registry.folder / "data").glob("**/blobs/sha256/*/*/data"), key=lambda path: path.stat().st_size)
    blob = blobs[-1]  # the layer
    content = bytearray(blob.read_bytes())
    content[len(content) // 2] ^= 0xFF
    blob.write_bytes(bytes(content))
    failure = await fails(store, f"{registry.host}/web:v1", digest)
    assert "127.0.0.1" in str(failure)
    assert store._layout.images() == []


async def test_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    check_tools()
    certificate = trustme.CA().issue_cert("127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    with Registry(tmp_path, certificate=(tmp_path / "cert.pem", tmp_path / "key.pem")) as registry:
        store = ImageStore(store_settings(tmp_path, registry))
        failure = await fails(store, f"{registry.host}/web:v1")
        assert failure.final and f"/etc/containers/certs.d/{registry.host}/ca.crt" in str(failure)
        await store.close()


async def test_credentials(tmp_path: Path) -> None:
    check_tools()
    with Registry(tmp_path, auth=True) as registry:
        images = ImageBuilder(tmp_path, registry)
        images.push("web:v1")
        store = ImageStore(store_settings(tmp_path, registry))
        name = f"{registry.host}/web:v1"
        for auth in (None, pb.RegistryAuth(host=registry.host, username=USER, password="wrong")):
            failure = await fails(store, name, auth=auth)
            assert failure.final and "registry login" in str(failure)
            assert "wrong" not in str(failure)

        looked: list[bool] = []

        def look(_: str) -> None:
            """While skopeo runs: the password is nobody's argument, and in no file."""
            secret = base64.b64encode(f"{USER}:{PASSWORD}".encode())
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    assert secret not in path.read_bytes()
            for folder in ("run", "data"):
                files = [path for path in (tmp_path / folder).glob("**/*") if path.is_file() and not path.is_symlink()]
                assert not any(secret in path.read_bytes() for path in files if path.stat().st_size < 10_000)
            looked.append(True)

        image = await store.pull(name, "", pb.RegistryAuth(host=registry.host, username=USER, password=PASSWORD), look)
        assert image.config.cmd == ("sleep", "1000")
        assert looked
        await store.close()


async def test_a_disk_that_is_full(tmp_path: Path, images: ImageBuilder, registry: Registry) -> None:
    digest = images.push("web:v1", files={"big": os.urandom(8_000_000)})
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(small)], check=True)
    try:
        store = ImageStore(ImageSettings(small, tmp_path / "run", registries_conf=str(registry.registries_conf)))
        failure = await fails(store, f"{registry.host}/web:v1", digest)
        assert not failure.final and "full" in str(failure)
        await store.close()
    finally:
        subprocess.run(["umount", str(small)], check=True)


async def test_no_skopeo(tmp_path: Path, registry: Registry) -> None:
    store = ImageStore(no_skopeo(store_settings(tmp_path, registry)))
    failure = await fails(store, f"{registry.host}/web:v1")
    assert "skopeo" in str(failure)
    await store.close()


# ---- root file systems ----


async def test_mount_and_unmount(store: ImageStore, images: ImageBuilder, registry: Registry, tmp_path: Path) -> None:
    digest = images.push("web:v1", files={"app": "the image's"})
    image = await store.pull(f"{registry.host}/web:v1", digest, None, quiet)
    working = Path.cwd()
    one, two = await asyncio.gather(store.mount(image, "t1"), store.mount(image, "t2"))
    assert Path.cwd() == working
    assert await store.mount(image, "t1") == one  # the same when it is there
    (one / "app").write_text("changed")
    assert (two / "app").read_text() == "the image's"

    # the next agent finds it
    again = ImageStore(store_settings(tmp_path, registry))
    assert await again.mount(image, "t1") == one and (one / "app").read_text() == "changed"
    await again.close()

    held = (one / "app").open()  # a process that still has it open
    await store.unmount("t1")
    assert held.read() == "changed"
    held.close()
    assert not (tmp_path / "data" / "rootfs" / "t1").exists()
    await store.unmount("t1")
    fresh = await store.mount(image, "t1")
    assert (fresh / "app").read_text() == "the image's"


async def test_what_was_mounted_inside_goes_too(store: ImageStore, images: ImageBuilder, registry: Registry) -> None:
    image = await store.pull(f"{registry.host}/web:v1", images.push("web:v1"), None, quiet)
    root = await store.mount(image, "t1")
    subprocess.run(["mount", "-t", "tmpfs", "none", str(root / "tmp")], check=True)
    await store.unmount("t1")
    assert str(root) not in Path("/proc/self/mountinfo").read_text()


async def test_many_layers(store: ImageStore, images: ImageBuilder, registry: Registry) -> None:
    digest = images.push(
        "web:v1", [f"COPY files/{n} /layers/{n}" for n in range(12)], {str(n): str(n) for n in range(12)}
    )
    image = await store.pull(f"{registry.host}/web:v1", digest, None, quiet)
    root = await store.mount(image, "t1")
    assert len(list((root / "layers").iterdir())) == 12


async def test_more_layers_than_a_page_of_options_holds(store: ImageStore, tmp_path: Path) -> None:
    names = []
    for number in range(200):
        (tmp_path / "layers" / f"{number:026}").mkdir(parents=True)
        names.append(f"{number:026}")
    with pytest.raises(ImageFailure, match="more layers") as failure:
        await store._mounter.mount("t1", "x", tmp_path / "layers", ":".join(names))
    assert failure.value.final


async def test_an_image_without_layers(store: ImageStore, tmp_path: Path) -> None:
    root = await store._mounter.mount("t1", "x", tmp_path, "")
    (root / "file").write_text("")
    await store.unmount("t1")


async def test_an_image_that_is_gone(store: ImageStore, images: ImageBuilder, registry: Registry) -> None:
    image = await store.pull(f"{registry.host}/web:v1", images.push("web:v1"), None, quiet)
    await store._skopeo.delete(image.id)
    with pytest.raises(ImageFailure) as failure:
        await store.mount(image, "t1")
    assert not failure.value.final


# ---- making room ----


async def test_collecting(tmp_path: Path, images: ImageBuilder, registry: Registry) -> None:
    settings = store_settings(tmp_path, registry, full_at=0.0, keep_recent=0.0)  # the disk is always full
    store = ImageStore(settings)
    found = {}
    for name in ("kept", "mounted", "old", "older"):
        digest = images.push(f"{name}:v1", files={"app": name})
        found[name] = await store.pull(f"{registry.host}/{name}:v1", digest, None, quiet)
    await store.mount(found["mounted"], "t1")
    await store.collect(frozenset({found["kept"].id}))
    assert {image.id for image in store._layout.images()} == {found["kept"].id, found["mounted"].id}
    # their shared layers are whole
    root = await store.mount(found["kept"], "t2")
    assert (root / "app").read_text() == "kept" and (root / "bin" / "busybox").exists()
    await store.unmount("t1")
    await store.unmount("t2")
    await store.collect(frozenset())
    assert store._layout.images() == []
    assert list((tmp_path / "data" / "image-uses").iterdir()) == []
    await store.close()


async def test_nothing_is_collected_while_there_is_room_or_it_was_just_pulled(
    tmp_path: Path, images: ImageBuilder, registry: Registry
) -> None:
    digest = images.push("web:v1")
    for settings in (
        store_settings(tmp_path, registry, full_at=1.01, keep_recent=0.0),
        store_settings(tmp_path, registry, full_at=0.0, keep_recent=600.0),
    ):
        store = ImageStore(settings)
        image = await store.pull(f"{registry.host}/web:v1", digest, None, quiet)
        await store.collect(frozenset())
        assert store._layout.by_id(image.id) is not None
        await store.close()


async def test_the_oldest_use_goes_first_and_only_until_there_is_room(
    tmp_path: Path, images: ImageBuilder, registry: Registry
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", str(small)], check=True)
    try:
        store = ImageStore(
            ImageSettings(
                small, tmp_path / "run", registries_conf=str(registry.registries_conf), full_at=0.5, keep_recent=0.0
            )
        )
        found = []
        for number in range(3):
            digest = images.push(f"i{number}:v1", files={"big": os.urandom(8_000_000)}, base=False)
            found.append(await store.pull(f"{registry.host}/i{number}:v1", digest, None, quiet))
        for age, number in ((300, 1), (200, 0), (100, 2)):
            stamp = time.time() - age
            os.utime(small / "image-uses" / found[number].id, (stamp, stamp))
        await store.collect(frozenset())
        assert [store._layout.by_id(image.id) is not None for image in found] == [True, False, True]
        await store.close()
    finally:
        shutil.rmtree(small, ignore_errors=True)
        subprocess.run(["umount", str(small)], check=True)
