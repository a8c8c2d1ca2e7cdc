"""The systemd units, as text. Pure. `systemd-analyze verify` reads them in a test.

The agent's is barely hardened, and why is in it: its children are containers, which inherit what is taken from it, and
its mounts must be the host's, or they would end with it. Stopping it ends the agent's own process alone (KillMode), and
the cgroups below it are its own to fill (Delegate): containers outlive it.
"""

from __future__ import annotations

from pyswarm_core.membership.member import ETC, Member

FOLDER = "/etc/systemd/system"
_RESTART = """Restart=always
RestartSec=1s
"""
# Ours may be killed at any moment, so nobody needs to wait for long.
_STOP = """TimeoutStopSec=20s
"""
# Daemons that touch nothing but their files and sockets.
_HARDENED = """UMask=0077
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
# Empty, not forbidden: skopeo looks there for settings, and takes a refusal for a fault.
ProtectHome=tmpfs
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectControlGroups=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
"""


def name(daemon: str) -> str:
    return f"pyswarm-{daemon}.service"


def units(member: Member, pyswarm: str) -> dict[str, str]:
    """Unit name → text. `pyswarm`: an absolute path, or a command line that begins with one."""
    data = member.data_dir
    made = {"etcd": _etcd(pyswarm, data), "manager": _manager(pyswarm, data), "agent": _agent(pyswarm, data)}
    return {name(daemon): made[daemon] for daemon in member.daemons}


def _etcd(pyswarm: str, data: str) -> str:
    return f"""[Unit]
Description=etcd, the store of pyswarm
Documentation=man:etcd(1)
RequiresMountsFor={data}
Wants=network-online.target
After=network-online.target
# Debian's own unit would take the same ports.
Conflicts=etcd.service
StartLimitIntervalSec=0

[Service]
Type=notify
EnvironmentFile={ETC}/etcd.env
ExecStart={pyswarm} etcd run
# A member that waits for the others is not ready, and not stuck.
TimeoutStartSec=infinity
{_RESTART}LimitNOFILE=65536
OOMScoreAdjust=-900
IOSchedulingClass=best-effort
IOSchedulingPriority=0
ReadWritePaths={data}/etcd
{_HARDENED}
[Install]
WantedBy=multi-user.target
"""


def _manager(pyswarm: str, data: str) -> str:
    return f"""[Unit]
Description=pyswarm manager
RequiresMountsFor={data}
Wants=network-online.target {name("etcd")}
# It waits for etcd by itself: the order only spares it the wait.
After=network-online.target {name("etcd")}
StartLimitIntervalSec=0

[Service]
Type=notify
EnvironmentFile={ETC}/manager.env
Environment=PYSWARM_ENV_FILE={ETC}/manager.env
ExecStart={pyswarm} manager run
ExecReload=/bin/kill -HUP $MAINPID
WatchdogSec=30s
{_STOP}{_RESTART}LimitNOFILE=65536
OOMScoreAdjust=-800
# Certificates are renewed in place.
ReadWritePaths={data}/manager -{ETC}/tls -{ETC}/etcd-tls
{_HARDENED}
[Install]
WantedBy=multi-user.target
"""


def _agent(pyswarm: str, data: str) -> str:
    return f"""[Unit]
Description=pyswarm agent
RequiresMountsFor={data}
Wants=network-online.target
After=network-online.target nftables.service {name("manager")}
StartLimitIntervalSec=0

[Service]
Type=notify
EnvironmentFile={ETC}/agent.env
Environment=PYSWARM_ENV_FILE={ETC}/agent.env
ExecStart={pyswarm} agent run
ExecReload=/bin/kill -HUP $MAINPID
WatchdogSec=30s
{_STOP}{_RESTART}# Containers and their monitors live on when the agent is stopped, restarted or killed.
KillMode=process
Delegate=yes
# Limits are inherited by containers, so they are not lowered here.
LimitNOFILE=1048576
LimitNPROC=infinity
LimitCORE=infinity
TasksMax=infinity
OOMScoreAdjust=-500
# When a container is killed for its memory, the agent is not to be stopped for that.
OOMPolicy=continue
UMask=0077
# No Protect*, Private* or ReadWritePaths: each makes a mount namespace of its own, and containers' mounts would end
# with the agent. No seccomp filter, NoNewPrivileges or capability bound: containers would inherit it.
RuntimeDirectory=pyswarm
# Namespaces and exit codes of the containers that outlive it are there.
RuntimeDirectoryPreserve=yes

[Install]
WantedBy=multi-user.target
"""
