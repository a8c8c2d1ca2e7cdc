"""make demo: three hosts, one command, a rolling update that loses nothing."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PYSWARM = str(REPOSITORY / ".venv/bin/pyswarm")
WEB = REPOSITORY / "examples/web"
LAB = "demo"
REGISTRY = "registry.lab:5000"
PORT = 8080
STREAM_SECONDS = 20
BOLD, PLAIN = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")


class Demo:
    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch
        self.load: subprocess.Popen[bytes] | None = None
        self.environment = {**os.environ, "PYSWARM_CONTEXT": LAB, "PYSWARM_BUILD_ROOT": str(scratch / "build")}
        self.addresses: list[str] = []

    def say(self, text: str) -> None:
        print(f"\n{BOLD}{text}{PLAIN}", flush=True)

    def run(self, *arguments: str, cwd: Path | None = None) -> None:
        print(f"  $ pyswarm {' '.join(arguments)}", flush=True)
        subprocess.run([PYSWARM, *arguments], cwd=cwd, check=True, env=self.environment)

    def ask(self, *arguments: str) -> str:
        return subprocess.run(
            [PYSWARM, *arguments],
            check=True,
            capture_output=True,
            text=True,
            env=self.environment,
        ).stdout

    def images(self) -> None:
        self.say("An image in two versions, pushed to the lab's registry")
        base = self.scratch / "python"
        shutil.copytree(REPOSITORY / "examples/python", base)
        subprocess.run(["/usr/bin/python3", str(base / "collect.py"), str(base / "root")], check=True)
        self.run("image", "build", "-t", f"{REGISTRY}/python:3", str(base))
        self.run("image", "push", f"{REGISTRY}/python:3")
        for version in ("v1", "v2"):
            tag = f"{REGISTRY}/web:{version}"
            self.run("image", "build", "--build-arg", f"VERSION={version}", "-t", tag, ".", cwd=WEB)
            self.run("image", "push", tag, cwd=WEB)

    def deploy(self) -> None:
        self.say("The service, from examples/web/compose.yaml")
        self.run("service", "deploy", "web", "--replicas", "3", cwd=WEB)
        self.run("service", "ps", "web")
        self.addresses = [line.split()[1] for line in self.ask("lab", "ls", "--name", LAB).splitlines()[1:]]
        self.say(f"Every host answers on port {PORT}, and the container sees the client's true address")
        for address in self.addresses:
            for _ in range(3):
                with urllib.request.urlopen(f"http://{address}:{PORT}/", timeout=10) as answer:
                    print(f"  http://{address}:{PORT}  {answer.read().decode().strip()}")

    def start_load(self) -> None:
        urls = [f"http://{address}:{PORT}/" for address in self.addresses]
        self.load = subprocess.Popen(
            [
                *(
                    "/usr/bin/python3",
                    str(REPOSITORY / "examples/load.py"),
                    "--report",
                    str(self.scratch / "load.json"),
                ),
                *("--stream", f"/stream?seconds={STREAM_SECONDS}", "--new", "6", "--keep-alive", "6", *urls),
            ],
            stderr=subprocess.PIPE,
        )
        assert self.load.stderr is not None
        self.load.stderr.readline()  # the download is open and requests are being sent

    def stop_load(self) -> dict[str, object]:
        assert self.load is not None
        self.load.send_signal(signal.SIGTERM)
        self.load.wait()
        report: dict[str, object] = json.loads((self.scratch / "load.json").read_text())
        return report

    def end(self) -> None:
        if self.load is not None and self.load.poll() is None:
            self.load.kill()
            self.load.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the lab up")
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="pyswarm-demo-") as scratch:
        demo = Demo(Path(scratch))
        demo.say("A lab of three hosts")
        demo.run("lab", "up", "--name", LAB, "--hosts", "3")
        finished = False
        try:
            demo.run("node", "ls")
            demo.images()
            demo.deploy()
            demo.say(
                f"A rolling update to v2 under load; a download of {STREAM_SECONDS} s has just begun on an old task"
            )
            demo.start_load()
            demo.run("service", "update", "web", "--image", f"{REGISTRY}/web:v2")
            report = demo.stop_load()
            demo.run("service", "ps", "web")
            demo.say("What the clients saw")
            print(json.dumps(report, indent=2))
            print(f"\nrequests sent: {report['sent']}\nrequests failed: {report['failed']}")
            finished = report["failed"] == 0
        finally:
            demo.end()
            if options.keep and finished:
                print(
                    f"\nThe lab is up: pyswarm context use {LAB}; pyswarm service ls; pyswarm service logs web;"
                    f"\npyswarm lab exec --name {LAB} host-1 -- ip addr; and when done: pyswarm lab down --name {LAB}"
                )
            else:
                demo.run("lab", "down", "--name", LAB)
    print(f"\ndone in {time.monotonic() - started:.0f} s")
    return 0 if finished else 1


if __name__ == "__main__":
    sys.exit(main())
