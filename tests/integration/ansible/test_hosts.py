"""From bare hosts to a cluster, through its upkeep, and back to bare hosts, by the collection's playbooks alone.

The tests follow each other: each begins with what the one before left. `make ansible-test` runs them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.integration.ansible.cluster import SLOW, Cluster, check_load
from tests.integration.ansible.playbooks import DATA, shape
from tests.support.lab import REPOSITORY, eventually
from tests.support.machines.machine import Machine

pytestmark = [pytest.mark.ansible, pytest.mark.timeout(1200)]
LATER = "0.1.1"
_LOGFMT = re.compile(r'ts=\S+Z level=(debug|info|warning|error) logger=\S+ event=(\S+|"(?:[^"\\]|\\.)*")( \w+=.*)?')


def test_check_mode_tells_what_would_change_and_changes_nothing(cluster: Cluster) -> None:
    ran = cluster.operator.play("site", "--check", "--diff")
    assert set(ran.changed) == {m.name for m in cluster.members}
    assert all(ran.changed.values())
    for machine in cluster.members:
        there = "ls -d /etc/pyswarm /opt/pyswarm /usr/local/bin/pyswarm /etc/systemd/system/pyswarm-*"
        assert machine.ssh(there, code=None) == ""


def test_bare_hosts_become_a_cluster(cluster: Cluster) -> None:
    ran = cluster.operator.play("site")
    assert all(ran.changed.values())
    cluster.wait_ready()
    nodes = cluster.nodes()
    assert {name for name, node in nodes.items() if node["manager_status"]} == {m.name for m in cluster.managers}
    assert all(nodes[m.name]["labels"] == {"number": str(m.host.number)} for m in cluster.members)
    assert cluster.managers[0].json("network ls")[0]["subnet"] == "10.192.0.0/16", "of the inventory's pool"
    for machine in cluster.members:
        assert machine.ssh(f"ls -d {DATA}/agent /var/lib/pyswarm", code=None).split() == [f"{DATA}/agent"]


def test_a_service_is_deployed_from_a_manager(cluster: Cluster) -> None:
    cluster.deploy(3)
    assert len(cluster.running()) == 3
    cluster.check_traffic()


def test_a_second_run_changes_nothing(cluster: Cluster) -> None:
    assert cluster.operator.play("site").total == 0
    assert cluster.operator.play("site", "--check", "--diff").total == 0


def test_stopping_and_restarting_units_leaves_containers_and_traffic_alone(cluster: Cluster, report: Path) -> None:
    before = cluster.containers()
    with cluster.load(report) as figures:
        for machine in cluster.members:
            daemons = ("etcd", "manager", "agent") if machine in cluster.managers else ("agent",)
            for daemon in daemons:
                pid = machine.main_pid(daemon)
                machine.ssh(f"systemctl restart pyswarm-{daemon}")
                assert machine.main_pid(daemon) not in (0, pid)
                machine.ssh(f"systemctl stop pyswarm-{daemon}")
                assert machine.main_pid(daemon) == 0
                machine.ssh(f"systemctl start pyswarm-{daemon}")
            cluster.wait_ready()
    check_load(figures, 100)
    assert cluster.containers() == before


def test_a_daemon_that_hangs_is_restarted(cluster: Cluster) -> None:
    """By the watchdog, whose times are shortened here. A stopped process gets no signal but SIGKILL."""
    machine = cluster.workers[0]
    before = cluster.containers()
    folder = "/run/systemd/system/pyswarm-agent.service.d"
    machine.ssh(
        f"mkdir -p {folder} && printf '[Service]\\nWatchdogSec=2s\\nTimeoutAbortSec=1s\\n' > {folder}/test.conf"
    )
    machine.ssh("systemctl daemon-reload && systemctl restart pyswarm-agent")
    pid = machine.main_pid("agent")
    machine.ssh(f"kill -STOP {pid}")
    eventually(lambda: machine.main_pid("agent") not in (0, pid), "systemd restarts the agent", SLOW)
    assert "watchdog" in machine.ssh("journalctl -u pyswarm-agent --no-pager -n 50").lower()
    machine.ssh(f"rm -r {folder} && systemctl daemon-reload && systemctl restart pyswarm-agent")
    cluster.wait_ready()
    assert cluster.containers() == before


def test_the_journal_has_structured_lines(cluster: Cluster) -> None:
    for machine, daemon in ((cluster.managers[0], "manager"), (cluster.workers[0], "agent")):
        said = machine.ssh(f"journalctl -u pyswarm-{daemon} _COMM=pyswarm -o cat --no-pager").splitlines()
        assert said and all(_LOGFMT.fullmatch(line) for line in said), said[-20:]


def test_the_log_level_changes_while_an_agent_runs(cluster: Cluster) -> None:
    name = cluster.running()[0]["node"]
    machine = next(m for m in cluster.members if m.name == name)
    pid = machine.main_pid("agent")

    def set_level(level: str) -> None:
        edit = f"sed -i 's/LOG_LEVEL=.*/LOG_LEVEL=\"{level}\"/' /etc/pyswarm/agent.env"
        machine.ssh(f"{edit} && systemctl reload pyswarm-agent")
        eventually(lambda: f"level_set={level}" in said(), f"the agent's level is {level}", SLOW)

    def said() -> str:
        return machine.ssh(f"journalctl _PID={pid} -o cat --no-pager")

    assert "level=debug" not in said()
    set_level("debug")
    cluster.managers[0].pyswarm("service update web --force --quiet")  # so that there is something to say
    set_level("info")
    assert 'level=debug logger=agent.task event="task moved on"' in said()
    assert machine.main_pid("agent") == pid


def test_an_upgrade_loses_no_request_and_keeps_every_container(cluster: Cluster, report: Path) -> None:
    before = cluster.containers()
    wheel = cluster.fleet.wheel(LATER)
    with cluster.load(report) as figures:
        ran = cluster.operator.play("upgrade", "-e", f"pyswarm_package={wheel}")
    assert all(ran.changed.values())
    check_load(figures, 100)
    assert cluster.containers() == before
    assert {node["version"] for node in cluster.nodes().values()} == {LATER}
    cluster.operator.wheel = wheel
    cluster.arrange(cluster.managers, cluster.workers)
    assert cluster.operator.play("upgrade").total == 0


def test_one_more_host(cluster: Cluster) -> None:
    """It has nothing but Debian, SSH and Python: its packages come from a repository."""
    cluster.arrange(cluster.managers, [*cluster.workers, cluster.newcomer])
    ran = cluster.operator.play("scale_out")
    assert ran.changed.pop(cluster.newcomer.name) > 0
    assert not any(ran.changed.values())
    cluster.wait_ready()
    cluster.deploy(5)
    assert {task["node"] for task in cluster.running()} == {m.name for m in cluster.members}
    cluster.check_traffic()


def test_a_workers_reboot(cluster: Cluster) -> None:
    cluster.newcomer.reboot()
    cluster.wait_ready()
    eventually(lambda: len(cluster.running()) == 5, "all tasks run", SLOW)
    cluster.check_traffic()


def test_a_managers_power_cut(cluster: Cluster) -> None:
    leader = next(m for m in cluster.managers if cluster.nodes()[m.name]["manager_status"] == "leader")
    leader.cut_power()
    leader.boot()
    leader.wait()
    cluster.wait_ready()
    eventually(lambda: len(cluster.running()) == 5, "all tasks run", SLOW)
    cluster.check_traffic()


def test_drain(cluster: Cluster, report: Path) -> None:
    name = cluster.newcomer.name
    with cluster.load(report) as figures:
        assert cluster.operator.play("drain", "--limit", name).changed == {name: 1}
    check_load(figures, 20)
    assert cluster.newcomer.containers() == {}
    assert len(cluster.running()) == 5
    assert cluster.operator.play("drain", "--limit", name).total == 0
    assert cluster.operator.play("drain", "--limit", name, "-e", "pyswarm_availability=active").changed == {name: 1}
    assert cluster.nodes()[name]["availability"] == "active"


def test_a_worker_and_a_manager_are_reset_and_the_others_go_on(cluster: Cluster, report: Path) -> None:
    worker, manager = cluster.newcomer, cluster.managers[-1]
    staying = [m for m in cluster.members if m not in (worker, manager)]
    with cluster.load(report, staying) as figures:
        for machine in (worker, manager):
            cluster.operator.play("reset", "-e", "pyswarm_reset=true", "--limit", machine.name)
    check_load(figures, 20)
    check_bare(worker)
    check_bare(manager)
    cluster.arrange(cluster.managers[:-1], [m for m in cluster.workers if m is not worker])
    cluster.wait_ready()
    eventually(lambda: len(cluster.running()) == 5, "all tasks run", SLOW)
    cluster.check_traffic()


def test_reset_leaves_nothing(cluster: Cluster) -> None:
    said = cluster.operator.play("reset", code=2).output
    assert "-e pyswarm_reset=true" in said
    reset(cluster)


@pytest.mark.parametrize(("managers", "workers"), [(5, 0), (1, 1)])
def test_as_many_managers_as_there_are_in_the_inventory(cluster: Cluster, managers: int, workers: int) -> None:
    machines = cluster.fleet.machines
    cluster.arrange(machines[:managers], machines[managers : managers + workers])
    cluster.operator.play("site")
    cluster.wait_ready()
    cluster.deploy(2)
    cluster.check_traffic()
    reset(cluster)


def reset(cluster: Cluster) -> None:
    """All of them."""
    cluster.operator.play("reset", "-e", "pyswarm_reset=true")
    for machine in cluster.members:
        check_bare(machine)


def check_bare(machine: Machine) -> None:
    """Nothing of pyswarm is on it."""
    places = f"/etc/pyswarm /opt/pyswarm /usr/local/bin/pyswarm /var/lib/pyswarm /run/pyswarm {DATA}"
    assert machine.ssh(f"ls -d {places} /etc/systemd/system/*pyswarm-*", code=None) == ""
    units = machine.ssh("systemctl list-units --all --no-legend 'pyswarm-*'")
    assert units == "", machine.ssh("journalctl -u 'pyswarm-*' --no-pager -n 60")
    assert machine.ssh("pgrep -a 'conmon|crun|pyswarm'", code=None) == ""
    assert machine.ssh("nft list tables") == ""
    assert not re.search(r"psx|psc|vxlan", machine.ssh("ip -d link"))
    assert machine.ssh("find /sys/fs/cgroup -type d -path '*/pyswarm*' -not -name '*.service'") == ""
    # systemd forgets a unit's empty group later, where a v1 hierarchy tells it nothing.
    assert machine.ssh("cat /sys/fs/cgroup/*/system.slice/pyswarm-*.service/cgroup.procs", code=None) == ""
    assert "pyswarm" not in machine.ssh("cut -d ' ' -f 2 /proc/mounts")
    assert machine.ssh("ls -A /root/.config/pyswarm/contexts", code=None) == ""


@pytest.mark.parametrize("document", ["deploy/ansible/README.md", "docs/install.md"])
def test_the_playbooks_of_a_document_were_all_run(cluster: Cluster, document: str) -> None:
    """Above, and as they are written there but for names."""
    commands = re.findall(r"^ansible-playbook (.*)$", (REPOSITORY / document).read_text(), re.MULTILINE)
    assert commands
    assert {shape(command.split()) for command in commands} <= cluster.operator.played
