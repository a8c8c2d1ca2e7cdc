"""The texts of a container's /etc/hosts, /etc/hostname and /etc/resolv.conf. Pure."""

from __future__ import annotations

from pyswarm_agent.interfaces import ContainerRequest

HOSTS, HOSTNAME, RESOLV_CONF = "/etc/hosts", "/etc/hostname", "/etc/resolv.conf"

_LOCAL = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::0", "ip6-localnet"),
    ("ff00::0", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)


def texts(request: ContainerRequest) -> dict[str, str]:
    """Path in the container → text. Without a nameserver there is no resolv.conf: the image's own stays."""
    found = {HOSTS: _hosts(request), HOSTNAME: f"{request.hostname}\n"}
    if request.nameserver:
        found[RESOLV_CONF] = _resolv_conf(request)
    return found


def _hosts(request: ContainerRequest) -> str:
    extra = ((entry.address, entry.hostname) for entry in request.container.hosts)
    return "".join(f"{address}\t{name}\n" for address, name in dict.fromkeys((*_LOCAL, *request.hosts, *extra)))


def _resolv_conf(request: ContainerRequest) -> str:
    lines = [f"nameserver {request.nameserver}"]
    if request.search:
        lines.append(f"search {' '.join(request.search)}")
    options = list(request.container.dns.options)
    if not any(option.startswith("ndots:") for option in options):
        options.append("ndots:0")
    lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n"
