"""Copies this machine's Python and a static busybox into a folder, as the root of an image: python3 collect.py DIR

It stands in for the base image that one would take from a public registry.
"""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess
import sys

LEAVE_OUT = shutil.ignore_patterns(
    "test", "tests", "idlelib", "ensurepip", "tkinter", "turtledemo", "lib2to3", "pydoc_data", "distutils",
    "__pycache__", "site-packages", "dist-packages", "config-*", "*.a",
)  # fmt: skip


def libraries(binary: pathlib.Path) -> set[pathlib.Path]:
    """The shared objects that a binary is linked against, by the names that its loader looks for."""
    listed = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
    return {pathlib.Path(p) for p in re.findall(r"(/\S+\.so\S*)", listed)}


def put(path: pathlib.Path, root: pathlib.Path) -> None:
    target = root / path.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path.resolve(), target)


def main() -> None:
    root = pathlib.Path(sys.argv[1])
    python = pathlib.Path("/usr/bin/python3").resolve()
    stdlib = pathlib.Path(
        subprocess.check_output([str(python), "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"], text=True)
        .strip()
    )  # fmt: skip
    shutil.copytree(stdlib, root / stdlib.relative_to("/"), ignore=LEAVE_OUT, symlinks=False, dirs_exist_ok=True)
    needed = libraries(python)
    for extension in (stdlib / "lib-dynload").glob("*.so"):
        needed |= libraries(extension)
    for library in sorted(needed):
        put(library, root)
    put(python, root)
    (root / "usr/bin/python3").symlink_to(python.name)
    (root / "bin").mkdir(exist_ok=True)
    shutil.copy2("/bin/busybox", root / "bin/busybox")
    (root / "bin/sh").symlink_to("busybox")
    for folder in ("etc", "tmp", "proc", "sys", "dev"):
        (root / folder).mkdir(exist_ok=True)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    (root / "tmp").chmod(0o1777)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main()
