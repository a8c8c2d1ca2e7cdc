"""The daemons' settings as files of variables, which systemd and a shell read alike. Pure.

Each daemon takes every setting from the environment, etcd too; so there is one place to look at and to change.
"""

from __future__ import annotations

from collections.abc import Mapping

from pyswarm_core.membership.member import (
    AGENT_METRICS_PORT,
    API_PORT,
    ETC,
    ETCD_PEER_PORT,
    ETCD_PORT,
    JOIN_PORT,
    MANAGER_METRICS_PORT,
    Member,
)
from pyswarm_core.tls import STORE_NAME

_HEAD = "# Written by 'pyswarm init' or 'pyswarm join'. What you change here holds from the daemon's next start.\n"


def files(member: Member, *, cluster: str, initial: str, initial_state: str, address_pool: str = "") -> dict[str, str]:
    """File name → content. `cluster`: etcd's initial-cluster-token; `initial`: NAME=URL,… of its members, "" for a
    member that asks a manager before it starts; `address_pool`: "" = the manager's default."""
    found = {"agent.env": _agent(member)}
    if member.role == "manager":
        found["manager.env"] = _manager(member, address_pool)
        found["etcd.env"] = _etcd(member, cluster, initial, initial_state)
    return found


def of_one_more(member: Member, address_pool: str = "") -> dict[str, str]:
    """File name → content, of a host that becomes a part of a cluster that is there."""
    return files(member, cluster="pyswarm", initial="", initial_state="existing", address_pool=address_pool)


def _agent(member: Member) -> str:
    return _render(
        {
            "PYSWARM_AGENT_MANAGERS": ",".join(member.managers),
            "PYSWARM_AGENT_ADDRESS": member.address,
            "PYSWARM_AGENT_HOSTNAME": member.hostname,
            "PYSWARM_AGENT_ROLE": member.role,
            "PYSWARM_AGENT_TLS_DIR": f"{ETC}/tls",
            "PYSWARM_AGENT_DATA_DIR": member.data_dir,
            "PYSWARM_AGENT_METRICS_ADDR": f"{member.metrics_host}:{AGENT_METRICS_PORT}",
            "PYSWARM_AGENT_LOG_LEVEL": "info",
        }
    )


def _manager(member: Member, address_pool: str) -> str:
    return _render(
        {
            "PYSWARM_MANAGER_ID": member.node_id,
            "PYSWARM_MANAGER_ADVERTISE": f"{member.address}:{API_PORT}",
            "PYSWARM_MANAGER_LISTEN": f"0.0.0.0:{API_PORT}",
            "PYSWARM_MANAGER_JOIN_LISTEN": f"0.0.0.0:{JOIN_PORT}",
            "PYSWARM_MANAGER_ETCD": ",".join(f"https://{endpoint}" for endpoint in member.etcd),
            "PYSWARM_MANAGER_TLS_DIR": f"{ETC}/tls",
            "PYSWARM_MANAGER_MEMBER_TLS_DIR": f"{ETC}/etcd-tls",
            "PYSWARM_MANAGER_DATA_DIR": f"{member.data_dir}/manager",
            "PYSWARM_MANAGER_METRICS_ADDR": f"{member.metrics_host}:{MANAGER_METRICS_PORT}",
            **({"PYSWARM_MANAGER_ADDRESS_POOL": address_pool} if address_pool else {}),
            "PYSWARM_MANAGER_LOG_LEVEL": "info",
        }
    )


def _etcd(member: Member, cluster: str, initial: str, initial_state: str) -> str:
    client = f"https://{member.address}:{ETCD_PORT}"
    peer = peer_url(member.address)
    tls = f"{ETC}/etcd-tls"
    return _render(
        {
            "ETCD_NAME": member.node_id,
            "ETCD_DATA_DIR": f"{member.data_dir}/etcd",
            "ETCD_LOGGER": "zap",
            "ETCD_ENABLE_GRPC_GATEWAY": "false",
            "ETCD_LISTEN_CLIENT_URLS": client,
            "ETCD_ADVERTISE_CLIENT_URLS": client,
            "ETCD_LISTEN_PEER_URLS": peer,
            "ETCD_INITIAL_ADVERTISE_PEER_URLS": peer,
            "ETCD_INITIAL_CLUSTER": initial,
            "ETCD_INITIAL_CLUSTER_STATE": initial_state,
            "ETCD_INITIAL_CLUSTER_TOKEN": cluster,
            "ETCD_CLIENT_CERT_AUTH": "true",
            "ETCD_TRUSTED_CA_FILE": f"{tls}/ca.pem",
            "ETCD_CERT_FILE": f"{tls}/cert.pem",
            "ETCD_KEY_FILE": f"{tls}/key.pem",
            # Managers and etcd members alone have this name: workers and users are kept out.
            "ETCD_CLIENT_CERT_ALLOWED_HOSTNAME": STORE_NAME,
            "ETCD_PEER_CLIENT_CERT_AUTH": "true",
            "ETCD_PEER_TRUSTED_CA_FILE": f"{tls}/ca.pem",
            "ETCD_PEER_CERT_FILE": f"{tls}/cert.pem",
            "ETCD_PEER_KEY_FILE": f"{tls}/key.pem",
            "ETCD_PEER_CERT_ALLOWED_HOSTNAME": STORE_NAME,
        }
    )


def with_value(text: str, name: str, value: str) -> str:
    """A file of variables with this one changed; what else is in it stays."""
    lines = [line for line in text.splitlines() if not line.startswith(f"{name}=")]
    return "\n".join([*lines, f'{name}="{value}"']) + "\n" if f'{name}="{value}"' not in text.splitlines() else text


def peer_url(address: str) -> str:
    return f"https://{address}:{ETCD_PEER_PORT}"


def _render(values: Mapping[str, str]) -> str:
    """No value of ours has a quote, a dollar or a backslash: hostnames, addresses, paths and ids."""
    return _HEAD + "".join(f'{name}="{value}"\n' for name, value in values.items())
