"""The lab's registry has an authority of its own, which is no business of the cluster's."""

from __future__ import annotations

from pyswarm_cli.lab.layout import REGISTRY_NAME, Lab
from pyswarm_core.tls import Authority


def certify_registry(lab: Lab) -> bytes:
    """Writes the registry's certificate, and makes each host trust it. Returns the authority's, as PEM."""
    authority = Authority.create(f"pyswarm lab {lab.name}")
    identity = authority.issue(
        common_name=REGISTRY_NAME, role="registry", names=[REGISTRY_NAME], addresses=[lab.gateway]
    )
    identity.save(lab.folder / "registry" / "tls")
    for host in lab.hosts:
        trusted = host.etc / "containers" / "certs.d" / lab.registry
        trusted.mkdir(parents=True, exist_ok=True)
        (trusted / "ca.crt").write_bytes(identity.ca_pem)
    return identity.ca_pem
