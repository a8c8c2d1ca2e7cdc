"""What `init`, `join` and `leave` ask of this machine: to be root, and its address."""

from __future__ import annotations

import os
import socket

from pyswarm_core.errors import InvalidInput, PreconditionFailed
from pyswarm_core.membership.member import ETC

_TEST_NET = "192.0.2.1"  # nothing is sent there: only the route is asked for


def refuse_all_but_root(what: str) -> None:
    if os.geteuid() != 0:
        raise PreconditionFailed(f"'{what}' writes to {ETC} and starts daemons, so it needs root; try with sudo")


def own_address(advertised: str) -> str:
    """The IPv4 address given, which must be this host's; else the one of the default route."""
    if advertised:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind((advertised, 0))
                if probe.getsockname()[0] != advertised or advertised == "0.0.0.0":
                    raise OSError
        except OSError:
            raise InvalidInput(
                f"'{advertised}' is not an IPv4 address of this host; 'ip -4 address' shows those it has"
            ) from None
        return advertised
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((_TEST_NET, 9))
            return str(probe.getsockname()[0])
    except OSError:
        raise PreconditionFailed(
            "this host has no default route, so it is not clear by which address others reach it; name one with "
            "--advertise-addr"
        ) from None
