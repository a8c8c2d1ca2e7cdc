"""What a real container sees: itself, its rights, its devices and its mounts."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from tests.integration.agent.runtime.containers import Containers

from pyswarm_agent.interfaces import ContainerFailure, ImageConfig
from pyswarm_core.v1 import spec_pb2 as spec


async def test_namespaces_and_names(containers: Containers) -> None:
    output = await containers.sh(
        "echo $$; hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf; env; for n in net pid ipc uts mnt; "
        'do stat -Lc "$n=%i" /proc/self/ns/$n; done; pwd',
        env=["A=b"],
        workdir="/srv/made",
    )
    lines = output.splitlines()
    assert lines[:3] == ["1", "testhost", "testhost"]
    assert "10.128.0.5\ttesthost" in lines and "nameserver 169.254.1.1" in lines and "search corp.example" in lines
    assert "A=b" in lines and "HOSTNAME=testhost" in lines and "HOME=/root" in lines and lines[-1] == "/srv/made"
    inside = dict(line.split("=") for line in lines[-6:-1])
    for name, inode in inside.items():
        assert int(inode) != Path(f"/proc/self/ns/{name}").stat().st_ino, name
    assert int(inside["net"]) == containers.netns.stat().st_ino


async def test_user_and_groups(containers: Containers) -> None:
    assert (await containers.sh("id; echo $HOME", user="web")).splitlines() == [
        "uid=1000(web) gid=1001(web) groups=1001(web),2000(extra)",
        "/srv",
    ]
    assert "uid=4321 gid=99" in await containers.sh("id", user="4321:99")


async def test_capabilities(containers: Containers) -> None:
    async def effective(**options: object) -> int:
        return int((await containers.sh("grep CapEff /proc/self/status", **options)).split()[1], 16)

    assert await effective() == 0xA80425FB  # Docker's
    assert await effective(cap_drop=["ALL"]) == 0
    assert await effective(cap_drop=["ALL"], cap_add=["NET_BIND_SERVICE"]) == 1 << 10
    assert await effective(user="web") == 0
    own = int(
        next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "CapBnd" in line), 16
    )
    assert await effective(cap_add=["ALL"]) == own


async def test_no_new_privileges_and_seccomp(containers: Containers) -> None:
    status = await containers.sh("grep -E 'NoNewPrivs|Seccomp:' /proc/self/status")
    assert [line.split()[1] for line in status.splitlines()] == ["1", "2"]
    for command in ("unshare -U true", "unshare -m true", "mount -t tmpfs none /tmp"):
        said = await containers.sh(f"{command} 2>&1 && echo it worked || true")
        assert "Operation not permitted" in said or "permission denied (are you root?)" in said


async def test_with_the_capability_the_system_call_is_allowed(crun: Containers) -> None:
    assert await crun.sh("mount -t tmpfs none /tmp && unshare -m true && echo fine", cap_add=["SYS_ADMIN"]) == "fine"


async def test_masked_and_read_only_paths(containers: Containers) -> None:
    output = await containers.sh(
        "wc -c < /proc/timer_list; wc -c < /proc/keys; ls /sys/firmware | wc -l; "
        "exec 2>&1; echo 1 > /proc/sys/kernel/panic; cd /sys/fs/cgroup; [ -e memory ] && cd memory; mkdir x; "
        "echo 1 > cgroup.procs; mount | grep ' /proc/'"
    )
    lines = output.splitlines()
    assert lines[:3] == ["0", "0", "0"]
    assert len([line for line in lines[3:] if "Read-only file system" in line]) == 3
    mounted = {line.split()[2]: line.split()[5] for line in lines if line.split()[1:2] == ["on"]}
    for path in ("/proc/bus", "/proc/irq", "/proc/sys"):
        assert mounted[path].startswith("(ro"), path


async def test_devices(containers: Containers) -> None:
    output = await containers.sh(
        "ls /dev; echo x > /dev/null; head -c 4 /dev/urandom | wc -c; mknod /tmp/disk b 254 0; "
        "cat /tmp/disk 2>&1 | head -c 60; stat -c %F /dev/pts /dev/shm"
    )
    names = output.split()
    assert {"null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm", "mqueue"} <= set(names)
    assert "4" in names and "Operation not permitted" in output


async def test_a_read_only_root(containers: Containers) -> None:
    output = await containers.sh(
        "exec 2>&1; touch /x; (echo y >> /etc/hosts); touch /scratch/x && echo written",
        read_only=True,
        mounts=[spec.Mount(type=spec.MOUNT_TYPE_TMPFS, target="/scratch")],
    )
    assert output.count("Read-only file system") == 2 and output.endswith("written")


async def test_an_init_reaps_and_passes_signals_on(containers: Containers) -> None:
    script = "trap 'echo told; exit 5' TERM; (sleep 0 &); echo ready; while :; do sleep 0.1; done"
    await containers.start("t1", "sh", "-c", script, init=True)
    await containers.output_has("t1", "ready")
    code, output = await containers.runtime.execute("t1", ["sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline; ps"], 10)
    assert code == 0 and output.startswith("/dev/init -- sh -c") and "sleep 0\n" not in output
    await containers.runtime.kill("t1", "TERM")
    async with asyncio.timeout(20):
        assert (await containers.runtime.wait("t1")).code == 5
    assert "told" in await containers.output("t1")


async def test_a_terminal(containers: Containers) -> None:
    assert "/dev/pts/0" in await containers.sh("tty; echo $TERM", tty=True)
    end, output = await containers.run("plain", "tty")
    assert end.code == 1 and "not a tty" in output


async def test_ulimits_and_sysctls(containers: Containers) -> None:
    output = await containers.sh(
        "ulimit -n; ulimit -Hn; cat /proc/sys/kernel/shmmni",
        ulimits=[spec.Ulimit(name="nofile", soft=100, hard=200)],
        sysctls={"kernel.shmmni": "123", "net.core.somaxconn": "9"},
    )
    assert output.split() == ["100", "200", "123"]


async def test_a_ulimit_above_the_agents_own_is_clamped(crun: Containers) -> None:
    output = await crun.sh("ulimit -Hn", ulimits=[spec.Ulimit(name="nofile", soft=-1, hard=-1)])
    assert output not in ("", "0")


# ---- mounts ----


async def test_mounts(containers: Containers, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "here").write_text("from the host")
    output = await containers.sh(
        "cat /bind/here; touch /bind/new 2>&1; df=$(grep ' /tmpfs ' /proc/mounts); echo $df; touch /data/kept",
        mounts=[
            spec.Mount(type=spec.MOUNT_TYPE_BIND, source=str(tmp_path / "shared"), target="/bind", read_only=True),
            spec.Mount(type=spec.MOUNT_TYPE_TMPFS, target="/tmpfs", tmpfs_size=1 << 20, tmpfs_mode=0o700),
            spec.Mount(type=spec.MOUNT_TYPE_VOLUME, source="kept", target="/data"),
        ],
    )
    assert "from the host" in output and "Read-only file system" in output
    assert "size=1024k" in output and "mode=700" in output
    assert (containers.folder / "data" / "volumes" / "kept" / "kept").exists()


async def test_an_empty_volume_gets_what_the_image_has_and_a_used_one_does_not(crun: Containers) -> None:
    data = crun.base / "srv" / "data"
    (data / "inner").mkdir(parents=True)
    (data / "inner" / "file").write_text("of the image")
    (data / "link").symlink_to("inner/file")
    data.chmod(0o750)
    os.chown(data, 1000, 1001)
    os.chown(data / "inner" / "file", 1000, 1001)
    volume = [spec.Mount(type=spec.MOUNT_TYPE_VOLUME, source="named", target="/srv/data")]
    shown = "cat /srv/data/link; echo; stat -c '%u:%g %a' /srv/data /srv/data/inner/file"
    assert (await crun.sh(shown, mounts=volume)).split("\n") == ["of the image", "1000:1001 750", "1000:1001 644"]
    await crun.sh("echo changed > /srv/data/inner/file; rm /srv/data/link", mounts=volume)
    assert await crun.sh("cat /srv/data/inner/file; ls /srv/data", mounts=volume) == "changed\ninner"


async def test_a_volume_is_not_filled_from_outside_the_image(crun: Containers) -> None:
    (crun.folder / "secret").mkdir()
    (crun.folder / "secret" / "key").write_text("secret")
    (crun.base / "leak").symlink_to("../../../../../../../../../../.." + str(crun.folder / "secret"))
    volume = [spec.Mount(type=spec.MOUNT_TYPE_VOLUME, source="v", target="/leak")]
    try:
        await crun.sh("true", mounts=volume)
    except ContainerFailure:
        pass
    assert list((crun.folder / "data" / "volumes" / "v").iterdir()) == []


async def test_anonymous_volumes_end_with_the_task(crun: Containers) -> None:
    (crun.base / "cache").mkdir()
    (crun.base / "cache" / "seed").write_text("seed")
    image = ImageConfig(volumes=("/cache",))
    await crun.start("t1", "sh", "-c", "touch /cache/mine; echo ready; exec sleep 1003", image=image)
    await crun.output_has("t1", "ready")
    folder = crun.folder / "data" / "tasks" / "t1" / "volumes" / "0"
    assert sorted(path.name for path in folder.iterdir()) == ["mine", "seed"]
    await crun.runtime.delete("t1")
    assert not folder.exists()
