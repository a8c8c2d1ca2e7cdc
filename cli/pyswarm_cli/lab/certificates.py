"""The lab's certificate authority, and what it signs: each host's, its etcd's, the registry's, the command line's."""

from __future__ import annotations

from pyswarm_cli.lab.layout import REGISTRY_NAME, Lab
from pyswarm_core.tls import Authority, Identity, Role


def issue(lab: Lab) -> Identity:
    """Writes all of them to their places; returns the command line's own."""
    authority = Authority.create(f"pyswarm lab {lab.name}")
    for host in lab.hosts:
        role: Role = "manager" if host.is_manager else "worker"
        names, addresses = [host.name], [host.address, "127.0.0.1"]
        authority.issue(common_name=host.node_id, role=role, names=names, addresses=addresses).save(
            host.etc / "pyswarm" / "tls"
        )
        if host.is_manager:
            authority.issue(common_name=host.node_id, role="etcd", names=names, addresses=addresses).save(
                host.etc / "pyswarm" / "etcd-tls"
            )
    registry = authority.issue(
        common_name=REGISTRY_NAME, role="registry", names=[REGISTRY_NAME], addresses=[lab.gateway]
    )
    registry.save(lab.folder / "registry" / "tls")
    for host in lab.hosts:
        trusted = host.etc / "containers" / "certs.d" / lab.registry
        trusted.mkdir(parents=True, exist_ok=True)
        (trusted / "ca.crt").write_bytes(registry.ca_pem)
    return authority.issue(common_name="lab-admin", role="client", names=[], addresses=[])
