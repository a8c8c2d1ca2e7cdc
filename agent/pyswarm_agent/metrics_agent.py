"""What metrics ask, of an agent that is made after them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyswarm_agent import metrics
from pyswarm_agent.dns.server import DnsServer
from pyswarm_agent.metrics_readings import Kernel
from pyswarm_agent.network.node import NodeNetwork
from pyswarm_agent.runtime.cgroups import Cgroups
from pyswarm_agent.runtime.settings import RuntimeSettings
from pyswarm_agent.settings import Settings
from pyswarm_core import tls

if TYPE_CHECKING:
    from pyswarm_agent.app_agent import Agent


class AgentFigures:
    def __init__(self, settings: Settings, hostname: str, network: NodeNetwork, dns: DnsServer) -> None:
        self._agent: Agent | None = None
        parent = RuntimeSettings().cgroup_parent
        self.metrics = metrics.Metrics(
            metrics.Figures(
                lives=lambda: self._agent.tasks.lives() if self._agent else {},
                is_connected=lambda: self._agent is not None and self._agent.session.lost_at is None,
                unstored=lambda: self._agent.box.unstored if self._agent else 0,
                ack_lag=lambda: self._agent.applier.lag() if self._agent else 0.0,
                apply_failures=lambda: self._agent.applier.failures if self._agent else 0,
                service_name=self._service_name,
                traffic=network.counters,
                dns_queries=lambda: dns.queries,
                firewall_warnings=lambda: len(network.warnings()),
            ),
            Kernel(Cgroups.detect(parent)),
            node=hostname,
            parent=parent,
            certificates={"node": settings.tls_dir / tls.CERT_FILE, "ca": settings.tls_dir / tls.CA_FILE},
        )

    def attach(self, agent: Agent) -> None:
        self._agent = agent
        agent.tasks.listen(self.metrics.changed)

    def _service_name(self, service_id: str) -> str:
        service = self._agent.view.endpoints.get(service_id) if self._agent else None
        return service.name if service is not None else ""
