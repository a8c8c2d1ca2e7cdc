"""A service that is deployed, and looked at while it is updated."""

from __future__ import annotations

from typing import Any

from tests.support import build
from tests.support.cluster import Cluster

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

COMPLETED = pb.ROLLOUT_STATE_COMPLETED


def wanted(image: str = "v1-good", replicas: int = 4, **policy: Any) -> spec.ServiceSpec:
    update = build.policy(**policy)
    return build.service_spec(replicas=replicas, task=build.task_spec(image), update=update, rollback=update)


def deployed(**policy: Any) -> Cluster:
    cluster = Cluster(1)
    cluster.deploy(wanted(**policy))
    cluster.settle()
    assert cluster.rollout.state == COMPLETED
    return cluster


def count(cluster: Cluster, image: str) -> int:
    return sum(t.spec.container.image == image for t in cluster.serving())
