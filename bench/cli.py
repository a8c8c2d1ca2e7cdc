"""Start-up of the command line, against the bare imports that it cannot do without.

    help      pyswarm --help                   aim: at most 1.5 times python -c "import click"
    ls        pyswarm service ls, 3 services   aim: at most 1.5 times python -c "import click, grpc"

Each round runs every command once, in turn, so that the machine's moods fall on all alike; medians are compared.
`ls` talks to a manager over mutual TLS, in another process: the fake one of the tests, which answers at once.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

ROUNDS = int(os.environ.get("ROUNDS", "25"))
AIM = 1.5
PYSWARM = str(Path(sys.executable).parent / "pyswarm")
SERVER = """
import sys
from tests.support.fake_control import FakeControl
from pyswarm_core import contexts
from pyswarm_core.v1 import objects_pb2 as pb, spec_pb2 as spec
control = FakeControl()
for n in range(3):
    wanted = spec.ServiceSpec(name=f"web{n}", replicas=3)
    wanted.task.container.image = "registry.lab:5000/web:v1"
    control.services[str(n)] = pb.Service(id=f"{n}" * 25, spec=wanted)
control.start()
contexts.save("bench", control.context())
contexts.select("bench")
print("ready", flush=True)
sys.stdin.read()
control.stop()
"""


@contextmanager
def manager(config: str) -> Iterator[dict[str, str]]:
    """The environment in which commands reach it."""
    environment = {**os.environ, "PYSWARM_CONFIG_DIR": config}
    environment.pop("PYSWARM_CONTEXT", None)
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        cwd=ROOT,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise SystemExit("the manager did not start")
        yield environment
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()


def measure(commands: dict[str, list[str]], environment: dict[str, str], rounds: int = ROUNDS) -> dict[str, float]:
    """Median seconds of each."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for round_number in range(rounds + 1):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            if round_number:  # the first one compiles, and warms the page cache
                times[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> int:
    commands = {
        "import click": [sys.executable, "-c", "import click"],
        "pyswarm --help": [PYSWARM, "--help"],
        "import click, grpc": [sys.executable, "-c", "import click, grpc"],
        "pyswarm service ls": [PYSWARM, "service", "ls"],
    }
    with tempfile.TemporaryDirectory(prefix="pyswarm-bench-") as config, manager(config) as environment:
        seconds = measure(commands, environment)
    for name, value in seconds.items():
        print(f"{name:<20} {value * 1000:6.1f} ms")
    missed = 0
    for what, floor in (("pyswarm --help", "import click"), ("pyswarm service ls", "import click, grpc")):
        ratio = seconds[what] / seconds[floor]
        missed += ratio > AIM
        print(f"{what}: {ratio:.2f} times {floor} (aim ≤ {AIM}){' MISSED' if ratio > AIM else ''}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
