"""What is in a host's kernel and on its disk, seen from outside of the product; and whether it is what is stored."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

from pyswarm_cli.lab import host as lab_hosts
from pyswarm_cli.lab.layout import Host, Lab
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from tests.integration.ha.witness import Witness

_LOOK = r"""
cd /run/pyswarm
for d in containers/*/; do
  [ -d "$d" ] || continue
  id=$(basename "$d"); pid=$(cat "$d/pid" 2>/dev/null || echo 0); alive=0
  grep -q "$id" "/proc/$pid/cgroup" 2>/dev/null && alive=1
  echo "container $id $alive"
done
for n in netns/*; do [ -e "$n" ] && echo "netns $(basename "$n")"; done
ip -o link | sed -n 's/^[0-9]*: \(psc[^@:]*\).*/link \1/p'
sed -n 's|.* /var/lib/pyswarm/rootfs/\([^/ ]*\)[/ ].*|mount \1|p' /proc/self/mountinfo
for r in /sys/fs/cgroup/pids/pyswarm /sys/fs/cgroup/pyswarm; do
  for c in "$r"/*/; do [ -d "$c" ] && echo "cgroup $(basename "$c")"; done
done
for t in /var/lib/pyswarm/tasks/*/; do
  [ -d "$t" ] || continue
  echo "starts $(basename "$t") $(cat "$t"/*.log* 2>/dev/null | grep -c 'listens on port')"
done
for m in backends portbackends leaving; do
  echo "map $m $(nft -j list map ip pyswarm "$m" 2>/dev/null | tr -d '\n')"
done
true
"""


@dataclass(slots=True)
class Seen:
    """Of one host."""

    containers: dict[str, bool] = field(default_factory=dict)  # task id → does its process live
    netns: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)  # by the first twelve letters of the task's id
    mounts: set[str] = field(default_factory=set)
    cgroups: set[str] = field(default_factory=set)
    starts: dict[str, int] = field(default_factory=dict)  # task id → how often its server said that it listens
    backends: dict[str, set[str]] = field(default_factory=dict)  # VIP → task addresses
    published: dict[str, set[str]] = field(default_factory=dict)  # proto/port → task addresses
    redirects: set[str] = field(default_factory=set)


def inside(lab: Lab, host: Host, script: str, timeout: float = 60) -> str:
    """Output of a shell script that runs inside the host."""
    done = subprocess.run(
        lab_hosts.enter(lab, host, ["sh", "-c", script]), capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, f"{host.name}: {script!r} exited {done.returncode}: {done.stderr}"
    return done.stdout


def look(lab: Lab, host: Host) -> Seen:
    seen = Seen()
    for line in inside(lab, host, _LOOK).splitlines():
        what, _, rest = line.partition(" ")
        match what:
            case "container":
                task_id, alive = rest.split()
                seen.containers[task_id] = alive == "1"
            case "netns":
                seen.netns.add(rest)
            case "link":
                seen.links.add(rest.removeprefix("psc"))
            case "mount":
                seen.mounts.add(rest)
            case "cgroup":
                seen.cgroups.add(rest)
            case "starts":
                task_id, count = rest.split()
                seen.starts[task_id] = int(count)
            case "map":
                name, _, text = rest.partition(" ")
                _take_map(seen, name, text)
    return seen


def _take_map(seen: Seen, name: str, text: str) -> None:
    if not text:
        return
    for item in json.loads(text)["nftables"]:
        for element in item.get("map", {}).get("elem", ()):
            key, value = element
            parts = key["concat"] if isinstance(key, dict) and "concat" in key else [key]
            to = value["concat"][0] if isinstance(value, dict) and "concat" in value else value
            if name == "leaving":
                seen.redirects.add(str(parts[0]))
            elif name == "backends":
                seen.backends.setdefault(str(parts[0]), set()).add(str(to))
            else:
                seen.published.setdefault(f"{parts[0]}/{parts[1]}", set()).add(str(to))


def is_over(task: pb.Task) -> bool:
    return task.status.state >= pb.TASK_STATE_COMPLETE


def serves(task: pb.Task) -> bool:
    fit = task.status.health in (pb.HEALTH_NONE, pb.HEALTH_HEALTHY)
    return task.status.state == pb.TASK_STATE_RUNNING and fit and not task.leaving


def unsettled(lab: Lab, witness: Witness) -> list[str]:
    """What is not as it was asked for, or is left over; one line each. Empty: all is well."""
    return list(_stored(witness)) or [line for host in lab.hosts for line in _host(lab, host, witness)]


def _stored(witness: Witness) -> Iterator[str]:
    if not witness.leader:
        yield "nobody leads"
    for node in witness.nodes.values():
        if node.state != pb.NODE_STATE_READY or not node.serving:
            yield f"{node.description.hostname} is {pb.NodeState.Name(node.state)}, serving {node.serving}"
    for service in witness.services.values():
        rollout = witness.rollouts.get(service.rollout_id)
        if rollout is None or rollout.state in (pb.ROLLOUT_STATE_RUNNING, pb.ROLLOUT_STATE_ROLLING_BACK):
            yield f"{service.spec.name}: its rollout is not over"
        serving = [t for t in witness.tasks_of(service.spec.name) if serves(t) and t.balanced_at]
        if service.spec.mode == spec.SERVICE_MODE_REPLICATED and len(serving) != service.spec.replicas:
            yield f"{service.spec.name}: {len(serving)} of {service.spec.replicas} serve"
        if len({t.slot for t in serving}) != len(serving):
            yield f"{service.spec.name}: two tasks serve in one slot"
        if any(t.spec != service.spec.task for t in serving):
            yield f"{service.spec.name}: a task serves that is of another spec"
    for task in list(witness.tasks.values()):
        if is_over(task) and not task.addresses_free:
            yield f"{task.id} is over and holds its addresses"
        elif not is_over(task) and task.desired_state > pb.TASK_STATE_RUNNING:
            yield f"{task.id} is still stopping"


def _host(lab: Lab, host: Host, witness: Witness) -> Iterator[str]:
    seen = look(lab, host)
    own = {t.id: t for t in list(witness.tasks.values()) if t.node_id == host.node_id}
    alive = {i for i, t in own.items() if not is_over(t)}
    for what, there in (
        ("container", seen.containers.keys()),
        ("netns", seen.netns),
        ("mount", seen.mounts),
        ("cgroup", seen.cgroups),
    ):
        for task_id in set(there) - alive:
            yield f"{host.name} has a {what} of {task_id}, which is over or not its own"
        for task_id in alive - set(there):
            yield f"{host.name} has no {what} of {task_id}, which lives"
    for short in seen.links - {i[:12] for i in alive}:
        yield f"{host.name} has a link of {short}, which is over"
    for task_id, is_alive in seen.containers.items():
        if not is_alive:
            yield f"{host.name}: the container of {task_id} does not run"
    for address in seen.redirects:
        yield f"{host.name} still redirects {address}"
    for service in list(witness.services.values()):
        wanted = {a.address for t in witness.tasks_of(service.spec.name) if serves(t) for a in t.addresses}
        for vip in service.vips:
            if seen.backends.get(vip.address, set()) != wanted:
                yield f"{host.name} sends {service.spec.name}'s VIP to {seen.backends.get(vip.address)}, not {wanted}"
        for port in service.spec.ports:
            key = f"{'udp' if port.protocol == spec.PROTOCOL_UDP else 'tcp'}/{port.published}"
            if port.mode == spec.PUBLISH_MODE_INGRESS and seen.published.get(key, set()) != wanted:
                yield f"{host.name} sends port {key} to {seen.published.get(key)}, not {wanted}"


def started_twice(lab: Lab) -> list[str]:
    """Tasks whose server printed that it listens more than once: that no store tells, but their own logs do."""
    return [
        f"{host.name}: {task_id} was started {count} times"
        for host in lab.hosts
        if lab_hosts.first_process(host) is not None
        for task_id, count in look(lab, host).starts.items()
        if count > 1
    ]
