from __future__ import annotations

import pytest

from pyswarm_agent.interfaces import ContainerFailure
from pyswarm_agent.runtime import capabilities as caps

EVERYTHING = frozenset(caps.KNOWN)


def test_the_default_is_dockers() -> None:
    assert len(caps.DEFAULT) == 14
    assert caps.granted([], [], EVERYTHING) == caps.DEFAULT
    assert "CAP_SYS_ADMIN" not in caps.DEFAULT and "CAP_NET_ADMIN" not in caps.DEFAULT


def test_names_are_taken_with_and_without_prefix_in_any_case() -> None:
    granted = caps.granted(["net_admin", "CAP_SYS_TIME"], ["Mknod"], EVERYTHING)
    assert granted == (caps.DEFAULT | {"CAP_NET_ADMIN", "CAP_SYS_TIME"}) - {"CAP_MKNOD"}


def test_all_dropped_leaves_what_is_added() -> None:
    assert caps.granted(["CHOWN"], ["ALL"], EVERYTHING) == {"CAP_CHOWN"}
    assert caps.granted([], ["all"], EVERYTHING) == frozenset()


def test_all_added_is_all_that_the_host_has_but_what_is_dropped() -> None:
    available = EVERYTHING - {"CAP_SYS_RESOURCE"}
    assert caps.granted(["ALL"], ["SYS_ADMIN"], available) == available - {"CAP_SYS_ADMIN"}


def test_what_the_host_lacks_is_left_out_of_the_default_and_refused_by_name() -> None:
    available = EVERYTHING - {"CAP_MKNOD", "CAP_SYS_RESOURCE"}
    assert "CAP_MKNOD" not in caps.granted([], [], available)
    with pytest.raises(ContainerFailure, match="CAP_SYS_RESOURCE") as failure:
        caps.granted(["SYS_RESOURCE"], [], available)
    assert failure.value.final


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ContainerFailure, match="FLY"):
        caps.granted([], ["FLY"], EVERYTHING)


def test_the_mask_of_the_kernel() -> None:
    assert caps.from_mask(0b1) == {"CAP_CHOWN"}
    assert caps.from_mask(1 << 21 | 1 << 40) == {"CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"}
