"""pyswarm lab: a whole cluster on one machine."""

from __future__ import annotations

import subprocess
import sys

import click

from pyswarm_cli.lab import cgroups, daemons, layout, lifecycle, switch
from pyswarm_cli.lab import host as hosts

NAME = click.option("--name", default="lab", show_default=True, help="Which lab.")
DAEMON = click.argument("daemon", required=False, type=click.Choice(["manager", "agent", "etcd"]))


def say(text: str) -> None:
    click.echo(text, err=True)


@click.group()
def lab() -> None:
    """A whole cluster on this machine, each host a set of namespaces."""


@lab.command()
@click.option("--hosts", "host_count", default=3, show_default=True, help="How many hosts.")
@click.option("--managers", default=1, show_default=True, help="How many of them are managers: 1, 3 or 5.")
@NAME
def up(host_count: int, managers: int, name: str) -> None:
    """Make the hosts, start their daemons, and select the lab as context."""
    made = lifecycle.up(name, host_count, managers, say)
    say(f"try 'pyswarm node ls'; published ports answer at http://{made.hosts[0].address}:PORT")


@lab.command("ls")
@NAME
def list_hosts(name: str) -> None:
    """The hosts of a lab."""
    it = layout.load(name)
    click.echo(f"{'HOST':<10}{'ADDRESS':<15}{'ROLES':<28}PIDS")
    for host in it.hosts:
        running = [d for d in host.daemons if hosts.daemon_process(it, host, d) is not None]
        roles = ",".join(d if d in running else f"({d})" for d in host.daemons)
        click.echo(f"{host.name:<10}{host.address:<15}{roles:<28}{len(cgroups.pids(it.name, host.name))}")


@lab.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@NAME
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec(name: str, host: str, command: tuple[str, ...]) -> None:  # noqa: A001 - the verb's name
    """Run COMMAND inside HOST."""
    layout.need_root()
    it = layout.load(name)
    if command[0] == "--":
        command = command[1:]
    sys.exit(subprocess.run(hosts.enter(it, it.host(host), command)).returncode)


@lab.command()
@NAME
@click.argument("host")
@DAEMON
def stop(name: str, host: str, daemon: str | None) -> None:
    """Stop a host, or one daemon on it, in an orderly way."""
    layout.need_root()
    it = layout.load(name)
    target = it.host(host)
    if daemon is None:
        lifecycle.stop_host(it, target)
    else:
        daemons.check_name(target, daemon)
        daemons.stop(it, target, daemon)


@lab.command()
@NAME
@click.argument("host")
@DAEMON
def start(name: str, host: str, daemon: str | None) -> None:
    """Start a host, or one daemon on it; returns when it answers."""
    layout.need_root()
    it = layout.load(name)
    target = it.host(host)
    if daemon is None:
        lifecycle.start_host(it, target)
    else:
        daemons.check_name(target, daemon)
        daemons.start(it, target, daemon)
        daemons.wait(it, target, daemon)


@lab.command()
@NAME
@click.argument("host")
@DAEMON
def kill(name: str, host: str, daemon: str | None) -> None:
    """SIGKILL: a host (its power goes), or one daemon on it."""
    layout.need_root()
    it = layout.load(name)
    target = it.host(host)
    if daemon is None:
        hosts.power_off(it, target)
    else:
        daemons.check_name(target, daemon)
        daemons.kill(it, target, daemon)


def _freeze(word: str, name: str, host: str, daemon: str | None) -> None:
    layout.need_root()
    it = layout.load(name)
    target = it.host(host)
    number = lifecycle.signal_of(word)
    if daemon is None:
        hosts.freeze(it, target, number)
        return
    daemons.check_name(target, daemon)
    pid = hosts.daemon_process(it, target, daemon)
    if pid is not None:
        hosts.send(pid, number)


@lab.command()
@NAME
@click.argument("host")
@DAEMON
def pause(name: str, host: str, daemon: str | None) -> None:
    """SIGSTOP: a host, or one daemon on it."""
    _freeze("pause", name, host, daemon)


@lab.command()
@NAME
@click.argument("host")
@DAEMON
def resume(name: str, host: str, daemon: str | None) -> None:
    """SIGCONT: a host, or one daemon on it."""
    _freeze("resume", name, host, daemon)


@lab.command()
@NAME
@click.argument("host", nargs=-1, required=True)
@click.option("--in", "inbound", is_flag=True, help="Only what goes to them.")
@click.option("--out", "outbound", is_flag=True, help="Only what comes from them.")
def cut(name: str, host: tuple[str, ...], inbound: bool, outbound: bool) -> None:
    """Cut hosts off from everything, this machine included, and from each other."""
    layout.need_root()
    it = layout.load(name)
    both = inbound == outbound
    switch.cut(it, [it.host(h) for h in host], inbound=inbound or both, outbound=outbound or both)


@lab.command()
@NAME
def heal(name: str) -> None:
    """Mend all cuts."""
    layout.need_root()
    switch.heal(layout.load(name))


@lab.command()
@NAME
def down(name: str) -> None:
    """Everything of the lab goes, and the former context is back."""
    layout.need_root()
    lifecycle.down(layout.load(name), say)
    say(f"lab {name} is gone")
