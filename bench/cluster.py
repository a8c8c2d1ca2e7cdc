"""Figures of a whole cluster, on a lab of three hosts: what is idle, what a deploy and a rolling update cost.

    python bench/cluster.py [idle] [deploy] [update]

idle      resident memory and CPU of manager and agent, over 20 s, with 3 tasks running
deploy    30 replicas of a present image, command → all in every balancer, against the floor of 30 bare starts
update    10 replicas, parallelism 2, start-first, under as many requests as the clients get through
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.lab import REGISTRY, LabUnderTest, eventually

ROUNDS = 5
BOX = f"{REGISTRY}/busybox:1"
REQUESTS = 200_000


def daemons(lab: LabUnderTest) -> dict[str, int]:
    """name → pid, of the manager and one agent."""
    folder = Path(f"/var/lib/pyswarm/lab/{lab.name}/hosts")
    return {
        "manager": int((folder / "host-1/manager.pid").read_text().split()[0]),
        "agent": int((folder / "host-2/agent.pid").read_text().split()[0]),
    }


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def resident(pid: int) -> float:
    """MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1000
    return 0.0


def idle(lab: LabUnderTest) -> None:
    lab.cli("service", "deploy", "box", BOX, "--replicas", "3")
    time.sleep(5)  # what follows a deploy ends
    pids = daemons(lab)
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    time.sleep(20)  # the span over which CPU is measured
    for name, pid in pids.items():
        share = (cpu_seconds(pid) - before[name]) / 20
        print(f"idle {name:<8} {resident(pid):6.1f} MB resident   {share:7.2%} of a core   (aim: 80 MB, 1 %)")
    lab.remove_services()


def bare_starts(lab: LabUnderTest, count: int) -> float:
    """Seconds for conmon and the bare runtime to start so many on one of the lab's hosts (all share the processors)."""
    task = next(t["id"] for t in lab.running("pattern") if t["node"] == "host-2")
    script = str(Path(__file__).with_name("_bare.py"))
    done = lab.run(
        *("lab", "exec", "--name", lab.name, "host-2", "--", sys.executable, script, task), stdin=f"{count}\n"
    )
    assert done.returncode == 0, done.stderr
    return float(json.loads(done.stdout)["seconds"])


def deploy(lab: LabUnderTest) -> None:
    lab.cli("service", "deploy", "pattern", BOX, "--mode", "global", "--stop-signal", "KILL")
    flags = ("--replicas", "30", "--publish", "8080:80", "--update-monitor", "100ms", "--stop-signal", "KILL")
    took, floor = [], []
    for _ in range(ROUNDS):
        floor.append(bare_starts(lab, 30))
        began = time.time()
        lab.cli("service", "deploy", "box", BOX, *flags, "--", "httpd", "-f", "-p", "80")
        tasks = lab.service("box")["rollout"]["receipt"]["tasks"]
        took.append(max(unix(task["in_balancers_at"]) for task in tasks) - began)
        lab.cli("service", "rm", "box")
        eventually(lambda: [s["name"] for s in lab.json("service", "ls")] == ["pattern"], "the removal of the service")
    ratio = statistics.median(t / f for t, f in zip(took, floor, strict=True))
    print(
        f"deploy of 30: {statistics.median(took):.2f} s until every balancer has them; "
        f"30 bare starts: {statistics.median(floor):.2f} s; ratio {ratio:.2f}"
    )
    lab.remove_services()


def unix(at: float | str) -> float:
    return datetime.fromisoformat(at).timestamp() if isinstance(at, str) else at


def update(lab: LabUnderTest, scratch: Path) -> None:
    flags = ("--update-parallelism", "2", "--update-monitor", "1s", "--drain-timeout", "30s", "--publish", "8080:80")
    lab.cli("service", "deploy", "web", f"{REGISTRY}/web:v1", "--replicas", "10", *flags)
    sent = failed = 0
    times = []
    while sent < REQUESTS:
        version = ("v2", "v1")[len(times) % 2]
        with lab.load(8080, scratch / "load.json", "--rate", "0", "--new", "4", "--keep-alive", "12") as seen:
            started = time.monotonic()
            lab.cli("service", "update", "web", "--image", f"{REGISTRY}/web:{version}")
            times.append(time.monotonic() - started)
        sent, failed = sent + seen["sent"], failed + seen["failed"]
    print(
        f"rolling update of 10, parallelism 2, start-first: {statistics.median(times):.1f} s "
        f"({len(times)} updates); {failed} of {sent} requests failed"
    )
    lab.remove_services()


def main() -> None:
    wanted = sys.argv[1:] or ["idle", "deploy", "update"]
    with tempfile.TemporaryDirectory(prefix="pyswarm-bench-") as scratch:
        lab = LabUnderTest("bench", Path(scratch) / "config")
        lab.up(hosts=3)
        try:
            (Path(scratch) / "images").mkdir()
            lab.build_images(Path(scratch) / "images")
            if "idle" in wanted:
                idle(lab)
            if "deploy" in wanted:
                deploy(lab)
            if "update" in wanted:
                update(lab, Path(scratch))
        finally:
            lab.down()


if __name__ == "__main__":
    main()
