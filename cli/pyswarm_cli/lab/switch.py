"""The lab's cables: one bridge on the machine, one veth a host, and a bridge table that can cut them."""

from __future__ import annotations

import subprocess

from pyswarm_cli.lab.layout import Host, Lab
from pyswarm_core.errors import PyswarmError


def _run(command: list[str], text: str = "") -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode != 0:
        raise PyswarmError(f"'{' '.join(command)}' failed: {done.stderr.strip() or done.stdout.strip()}")


def make(lab: Lab) -> None:
    _run(
        ["ip", "-batch", "-"],
        f"link add {lab.bridge} type bridge\naddr add {lab.gateway}/16 dev {lab.bridge}\nlink set {lab.bridge} up\n",
    )
    # Cut hosts are members of a set each way. All hooks that a frame can pass, so that a host is cut off from the
    # machine (input, output) as well as from other hosts (forward).
    _run(
        ["nft", "-f", "-"],
        f"""table bridge {lab.table} {{
  set from_host {{ type ifname; }}
  set to_host {{ type ifname; }}
  chain forward {{ type filter hook forward priority 0;
    iifname @from_host drop
    oifname @to_host drop
  }}
  chain input {{ type filter hook input priority 0;
    iifname @from_host drop
  }}
  chain output {{ type filter hook output priority 0;
    oifname @to_host drop
  }}
}}
""",
    )


def plug(lab: Lab, host: Host, pid: int) -> None:
    """Connects the network namespace of `pid`. An older cable of the same host goes first."""
    subprocess.run(["ip", "link", "del", host.link], capture_output=True)
    _run(
        ["ip", "-batch", "-"],
        f"link add {host.link} type veth peer name eth0 netns {pid}\n"
        f"link set {host.link} master {lab.bridge}\n"
        f"link set {host.link} up\n",
    )
    _run(
        ["nsenter", "-t", str(pid), "-n", "ip", "-batch", "-"],
        f"link set lo up\naddr add {host.address}/16 dev eth0\nlink set eth0 up\nroute add default via {lab.gateway}\n",
    )


def cut(lab: Lab, hosts: list[Host], *, inbound: bool, outbound: bool) -> None:
    links = ", ".join(f'"{h.link}"' for h in hosts)
    lines = []
    if outbound:
        lines.append(f"add element bridge {lab.table} from_host {{ {links} }}")
    if inbound:
        lines.append(f"add element bridge {lab.table} to_host {{ {links} }}")
    _run(["nft", "-f", "-"], "\n".join(lines) + "\n")


def heal(lab: Lab) -> None:
    _run(["nft", "-f", "-"], f"flush set bridge {lab.table} from_host\nflush set bridge {lab.table} to_host\n")


def remove(lab: Lab) -> None:
    for host in lab.hosts:
        subprocess.run(["ip", "link", "del", host.link], capture_output=True)
    subprocess.run(["ip", "link", "del", lab.bridge], capture_output=True)
    subprocess.run(["nft", "delete", "table", "bridge", lab.table], capture_output=True)
