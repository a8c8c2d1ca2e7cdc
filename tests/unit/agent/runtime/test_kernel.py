"""Our own system calls."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pyswarm_agent.runtime import kernel


def test_scatter_marks_a_folder_of_ext4_and_lets_others_be(tmp_path: Path) -> None:
    kernel.scatter(tmp_path)
    kernel.scatter(tmp_path)
    kind = subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True).stdout
    if "ext" in kind:
        listed = subprocess.run(["lsattr", "-d", tmp_path], capture_output=True, text=True, check=True).stdout
        assert "T" in listed.split()[0]
    shared = Path("/dev/shm")
    if shared.is_dir():
        kernel.scatter(shared)
    with pytest.raises(FileNotFoundError):
        kernel.scatter(tmp_path / "nowhere")
