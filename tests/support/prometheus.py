"""A real Prometheus on a host of a lab, with the configuration that is shipped, only quicker."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from tests.support.lab import PYSWARM, REPOSITORY, LabUnderTest, eventually

SHIPPED = REPOSITORY / "deploy/prometheus"
PORT = 9090
SCRAPE, REFRESH = "1s", "2s"


def missing() -> str:
    """Why there can be no Prometheus here; "" when there can."""
    absent = [tool for tool in ("prometheus", "promtool") if shutil.which(tool) is None]
    return f"needs {' and '.join(absent)}: run 'make setup', or apt-get install prometheus" if absent else ""


def configuration(folder: Path) -> Path:
    """The shipped files, with short intervals and waits."""
    shutil.copytree(SHIPPED / "rules", folder / "rules")
    config = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE, "evaluation_interval": SCRAPE}
    for job in config["scrape_configs"]:
        for discovery in job["http_sd_configs"]:
            discovery["refresh_interval"] = REFRESH
    rules = yaml.safe_load((folder / "rules/pyswarm.yml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = SCRAPE
    (folder / "rules/pyswarm.yml").write_text(yaml.safe_dump(rules))
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def promtool(*arguments: str, stdin: str | None = None) -> str:
    """Its output; fails when it finds anything wrong. Paths are from the repository's root."""
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, input=stdin, cwd=REPOSITORY)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


class Prometheus:
    """On the lab's first host."""

    def __init__(self, lab: LabUnderTest, folder: Path) -> None:
        self._lab = lab
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://{lab.addresses[0]}:{PORT}"

    def start(self) -> None:
        config = configuration(self._folder)
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(*PYSWARM, "lab", "exec", "--name", self._lab.name, "host-1", "--"),
                    *("prometheus", f"--config.file={config}", "--storage.tsdb.path=/run/prometheus"),
                    *(f"--web.listen-address=0.0.0.0:{PORT}", "--log.level=warn"),
                ],
                env=self._lab.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            eventually(self._is_ready, "Prometheus ready", 30)
        except AssertionError:
            raise AssertionError((self._folder / "log").read_text()) from None

    def wait(self) -> None:
        """Its host is gone, and it with it."""
        if self._process is not None:
            self._process.wait(20)

    def _is_ready(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
        return False

    def ask(self, path: str, **parameters: str) -> Any:
        query = f"?{urllib.parse.urlencode(parameters)}" if parameters else ""
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}{query}", timeout=10) as answer:
                return json.loads(answer.read())["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def query(self, expression: str) -> list[dict[str, Any]]:
        """[{"metric": {…}, "value": [time, "3"]}]."""
        found: list[dict[str, Any]] = self.ask("query", query=expression)["result"]
        return found

    def targets(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("targets", state="active")["activeTargets"]
        return found

    def up(self, job: str) -> set[str]:
        """HOST:PORT of the targets that were scraped."""
        return {t["labels"]["instance"] for t in self.targets() if t["health"] == "up" and t["scrapePool"] == job}

    def firing(self) -> set[tuple[str, str]]:
        """(alert, node or service)."""
        return {
            (a["labels"]["alertname"], a["labels"].get("node") or a["labels"].get("service", ""))
            for a in self.ask("alerts")["alerts"]
            if a["state"] == "firing"
        }
