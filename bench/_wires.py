"""For the network's benches: hosts as in tests/integration/network, hosts made by hand beside them, and measuring."""

from __future__ import annotations

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.integration.network.bed import Bed, Place, netns_path, run

HTTP, STREAM = 80, 5201
HAND_VNI = 77
HAND_MTU = 1450


def need(*programs: str) -> None:
    missing = [program for program in programs if shutil.which(program) is None]
    if os.geteuid() != 0 or missing:
        what = f"install {' '.join(missing)}" if missing else "root"
        print(f"skipped: needs {what}")
        raise SystemExit(0)
    os.setpriority(os.PRIO_PROCESS, 0, -15)  # before what else runs on this machine; children inherit it


class HandMade:
    """Two hosts with one container for a client and one for a server on each, plain routes and one VXLAN; `rules` is
    the whole firewall of each."""

    def __init__(self, bed: Bed, name: str, last: int, subnet: str, rules: str = "") -> None:
        self.bed, self.subnet = bed, subnet
        self.hosts: list[Place] = []
        self.servers: list[Place] = []
        self.clients: list[Place] = []
        for i in (1, 2):
            netns = bed._netns(f"{bed.prefix}{name}{i}")
            bed._plug(netns, f"{name}{i}", f"10.90.0.{last + i}")
            host = Place(netns, netns_path(netns))
            self.hosts.append(host)
            for setting in ("ip_forward=1", "conf.all.rp_filter=0", "conf.default.rp_filter=0"):
                key, value = setting.split("=")
                host.exec("sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{key.replace('.', '/')}")
            mac = f"02:00:00:00:77:0{i}"
            peer = 3 - i
            vx = ["type", "vxlan", "id", str(HAND_VNI), "dstport", "4789", "local", f"10.90.0.{last + i}", "nolearning"]
            host.exec("ip", "link", "add", "vx", *vx)
            host.exec("ip", "link", "set", "vx", "address", mac, "mtu", str(HAND_MTU), "up")
            host.exec("ip", "addr", "add", f"{subnet}.{i}.0/32", "dev", "vx")
            host.exec(
                "bridge", "fdb", "append", f"02:00:00:00:77:0{peer}", "dev", "vx", "dst", f"10.90.0.{last + peer}"
            )
            there = f"{subnet}.{peer}.0"
            host.exec("ip", "neigh", "add", there, "lladdr", f"02:00:00:00:77:0{peer}", "dev", "vx", "nud", "permanent")
            host.exec("ip", "route", "add", f"{there}/24", "via", there, "dev", "vx", "onlink")
            self.servers.append(self._container(host, f"{name}s{i}", f"{subnet}.{i}.5"))
            self.clients.append(self._container(host, f"{name}c{i}", f"{subnet}.{i}.6"))
            if rules:
                subprocess.run(["nsenter", f"--net={host.path}", "nft", "-f", "-"], input=rules.encode(), check=True)

    def _container(self, host: Place, name: str, address: str) -> Place:
        netns = self.bed._netns(f"{self.bed.prefix}{name}")
        host.exec("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", netns)
        host.exec("ip", "link", "set", name, "mtu", str(HAND_MTU), "address", "02:11:22:33:44:55", "up")
        host.exec("ip", "route", "add", f"{address}/32", "dev", name)
        place = Place(name, netns_path(netns))
        place.exec("ip", "link", "set", "eth0", "mtu", str(HAND_MTU), "up")
        place.exec("ip", "addr", "add", f"{address}/32", "dev", "eth0")
        place.exec(
            "ip", "neigh", "add", "169.254.1.1", "lladdr", "02:11:22:33:44:55", "dev", "eth0", "nud", "permanent"
        )
        place.exec("ip", "route", "add", "169.254.1.1", "dev", "eth0", "scope", "link")
        place.exec("ip", "route", "add", "default", "via", "169.254.1.1", "dev", "eth0")
        return place


class Servers:
    """An HTTP server (HAProxy, answering by itself) and iperf3 in a place; and HAProxy as a TCP proxy."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []

    def serve(self, place: Place) -> None:
        self._haproxy(
            place,
            f"frontend f\n mode http\n bind 0.0.0.0:{HTTP}\n"
            ' http-request return status 200 content-type text/plain string "ok"\n',
        )
        self._start(place, "iperf3", "-s", "-p", str(STREAM))

    def proxy(self, place: Place, ways: dict[int, tuple[str, int]]) -> None:
        self._haproxy(
            place,
            "\n".join(
                f"listen l{port}\n mode tcp\n bind 0.0.0.0:{port}\n server s {address}:{target}\n"
                for port, (address, target) in ways.items()
            ),
        )

    def _haproxy(self, place: Place, text: str) -> None:
        times = " timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
        path = self._folder / f"haproxy{len(self._processes)}.cfg"
        path.write_text(f"global\n nbthread 1\n maxconn 4096\ndefaults\n{times}\n{text}")
        self._start(place, "haproxy", "-db", "-f", str(path))

    def _start(self, place: Place, *argv: str) -> None:
        command = ["nsenter", f"--net={place.path}", *argv]
        self._processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(5)


def same_ground(places: Sequence[Place]) -> None:
    """The same congestion control everywhere, and ports that do not run out within a round."""
    for place in places:
        for key, value in (
            ("tcp_congestion_control", "reno"),
            ("ip_local_port_range", "1024 65000"),
            ("tcp_timestamps", "2"),
        ):
            place.exec("sh", "-c", f"echo {value} > /proc/sys/net/ipv4/{key}")


def wait_until_served(place: Place, address: str, port: int, timeout: float = 10.0) -> None:
    until = time.monotonic() + timeout
    while True:
        probe = subprocess.run(
            ["nsenter", f"--net={place.path}", "curl", "-s", "-m", "1", f"http://{address}:{port}/"],
            capture_output=True,
        )
        if probe.returncode == 0:
            return
        if time.monotonic() > until:
            raise SystemExit(f"{place.name} does not reach http://{address}:{port}/")


def _wrk(place: Place, address: str, port: int, seconds: float, *extra: str) -> float:
    said = place.exec("wrk", "-t1", "-c32", f"-d{seconds}s", *extra, f"http://{address}:{port}/")
    match = re.search(r"Requests/sec:\s+([\d.]+)", said)
    if match is None or re.search(r"Socket errors: connect [1-9]", said):
        raise SystemExit(f"wrk: {said}")
    return float(match[1])


def requests(place: Place, address: str, port: int, seconds: int = 1) -> float:
    """Keep-alive requests/s over 32 connections."""
    return _wrk(place, address, port, seconds)


def connections(place: Place, address: str, port: int, seconds: int = 1) -> float:
    """New connections/s, one request each."""
    return _wrk(place, address, port, seconds, "-H", "Connection: close")


def throughput(place: Place, address: str, port: int, seconds: int = 1) -> float:
    """Gbit/s of one stream."""
    said = json.loads(place.exec("iperf3", "-c", address, "-p", str(port), "-t", str(seconds), "-J"))
    return float(said["end"]["sum_received"]["bits_per_second"]) / 1e9


@dataclass
class Way:
    """`reach`: from where, to which address, its HTTP and its stream port."""

    name: str
    place: Place
    address: str
    http: int = HTTP
    stream: int = STREAM
    figures: dict[str, list[float]] = field(default_factory=dict)

    def median(self, figure: str) -> float:
        return statistics.median(self.figures[figure])


MEASURES: dict[str, Callable[[Way], float]] = {
    "requests/s": lambda w: requests(w.place, w.address, w.http),
    "connections/s": lambda w: connections(w.place, w.address, w.http),
    "Gbit/s": lambda w: throughput(w.place, w.address, w.stream),
}


def measure(
    ways: Sequence[Way],
    base: dict[str, str],
    rounds: int,
    hosts: Sequence[Place],
    figures: Sequence[str] = tuple(MEASURES),
) -> None:
    """Interleaved: what is compared runs within seconds of each other, in turns of changing order, and the conntrack
    tables begin each measurement empty."""
    groups: dict[str, list[Way]] = {}
    for way in ways:
        groups.setdefault(base.get(way.name, way.name), []).append(way)
    for number in range(rounds):
        for figure in figures:
            for group in groups.values():
                for way in group if number % 2 == 0 else reversed(group):
                    way.figures.setdefault(figure, []).append(MEASURES[figure](way))
                    for host in hosts:
                        host.exec("conntrack", "-F", check=False)


def table(ways: Sequence[Way], base: dict[str, str], figures: Sequence[str] = tuple(MEASURES)) -> None:
    """`base`: way → the way that it is compared with."""
    by_name = {way.name: way for way in ways}
    print(f"{'':44}" + "".join(f"{figure:>16}" for figure in figures) + "   compared with")
    for way in ways:
        against = by_name.get(base.get(way.name, ""))
        cells = []
        for figure in figures:
            cell = f"{way.median(figure):,.1f}" if figure == "Gbit/s" else f"{way.median(figure):,.0f}"
            if against is not None:
                # of each round, what ran next to each other: the machine's own ups and downs cancel out
                pairs = zip(way.figures[figure], against.figures[figure], strict=True)
                cell += f" {statistics.median(a / b for a, b in pairs):.2f}"
            cells.append(f"{cell:>16}")
        print(f"{way.name:44}" + "".join(cells) + (f"   {against.name}" if against is not None else ""))


__all__ = [
    "Bed",
    "HandMade",
    "Servers",
    "Way",
    "measure",
    "need",
    "run",
    "same_ground",
    "table",
    "wait_until_served",
]
