from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.support.etcd import ETCD, EtcdProcess


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdProcess]:
    """One for all tests that do not hurt it: each uses a prefix of its own."""
    if ETCD is None:
        pytest.skip("needs the etcd binary: install the package etcd-server")
    with EtcdProcess(tmp_path_factory.mktemp("etcd")) as process:
        yield process
