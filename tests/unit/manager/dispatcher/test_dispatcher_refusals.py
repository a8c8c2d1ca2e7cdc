"""Whom the dispatcher refuses, and who is not obeyed any more."""

from __future__ import annotations

import grpc
import pytest
from tests.support.manager import Cluster, eventually
from tests.unit.manager.dispatcher.build import NETWORK, RUNNING, is_ready, service, state, task

from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_manager.dispatcher.term import Timing


async def test_another_node_cannot_report_about_a_task(cluster: Cluster) -> None:
    await cluster.put(NETWORK, service())
    await cluster.lead()
    owner, other = cluster.agent("n1", 1), cluster.agent("n2", 2)
    async with owner.running(), other.running():
        await cluster.put(task("t1"))
        await eventually(lambda: state(cluster, "t1") == RUNNING and is_ready(cluster, "n2"))
        other.held["t1"] = owner.held["t1"].__class__(cluster.world.tasks["t1"], pb.TaskStatus())
        other.report("t1", state=pb.TASK_STATE_FAILED)
        # It is told that the task is none of its own.
        await eventually(lambda: "t1" not in other.held and other.all_stored)
        assert state(cluster, "t1") == RUNNING


@pytest.mark.parametrize("role", ["client", "etcd"])
async def test_certificates_of_users_are_refused(cluster: Cluster, role: str) -> None:
    await cluster.lead()
    agent = cluster.agent("n1", role=role)
    async with agent.running():
        await eventually(lambda: agent.error)
        assert agent.error and agent.error.code() == grpc.StatusCode.PERMISSION_DENIED
        assert role in (agent.error.details() or "")
    assert not cluster.world.nodes


async def test_a_node_cannot_speak_for_another(cluster: Cluster) -> None:
    await cluster.lead()
    agent = cluster.agent("n1")
    agent.hello.node_id = "n2"
    async with agent.running():
        await eventually(lambda: agent.error)
        assert agent.error and agent.error.code() == grpc.StatusCode.PERMISSION_DENIED
    assert not cluster.world.nodes


async def test_an_address_that_is_none_or_lies_in_a_network_is_refused(cluster: Cluster) -> None:
    await cluster.put(NETWORK)
    await cluster.lead()
    for address, code in (("nonsense", "INVALID_ARGUMENT"), ("10.128.3.4", "FAILED_PRECONDITION")):
        agent = cluster.agent("n1", address=address)
        async with agent.running():
            await eventually(lambda agent=agent: agent.error)
            assert agent.error and agent.error.code().name == code
    assert not cluster.world.nodes


async def test_a_manager_that_does_not_lead_names_the_leader(cluster: Cluster) -> None:
    agent = cluster.agent("n1")
    async with agent.running():
        await cluster.lead()
        await eventually(lambda: is_ready(cluster, "n1"))
        await cluster.step_down()
        await eventually(lambda: agent.sessions == 1 and agent.error is None)
        await cluster.lead()
        await eventually(lambda: agent.sessions == 2)


async def test_a_deposed_leader_stores_nothing_and_ends_its_sessions(cluster: Cluster) -> None:
    await cluster.put(NETWORK, service())
    old = await cluster.lead()
    agent = cluster.agent("n1")
    async with agent.running():
        await eventually(lambda: is_ready(cluster, "n1"))
        await cluster.put(task("t1"))
        await eventually(lambda: state(cluster, "t1") == RUNNING)
        agent.behaviour.heartbeats = False
        await cluster.lead()
        cluster.servicer.term = None  # nobody to go to
        agent.report("t1", health=pb.HEALTH_UNHEALTHY)
        await eventually(lambda: not [s for s in old.sessions if not s.is_closed])
        assert cluster.world.tasks["t1"].status.health == pb.HEALTH_NONE
        cluster.servicer.term = cluster.term
        await eventually(lambda: cluster.world.tasks["t1"].status.health == pb.HEALTH_UNHEALTHY)
        assert agent.fence.leader_revision == cluster.leader_revision


async def test_a_removed_node_loses_its_session(cluster: Cluster) -> None:
    await cluster.lead()
    agent = cluster.agent("n1", retry=60)
    async with agent.running():
        await eventually(lambda: is_ready(cluster, "n1"))
        await cluster.delete(cluster.world.nodes["n1"])
        assert cluster.term
        term = cluster.term
        await eventually(lambda: not term.sessions)


async def test_a_permit_is_given_by_a_certain_leader_to_a_node_that_is_ready(cluster: Cluster) -> None:
    certain = True
    term = await cluster.lead(Timing(heartbeat_period=60), is_certain=lambda: certain)
    async with cluster.agent("n1", retry=60).running():
        await eventually(lambda: is_ready(cluster, "n1"))
        session = next(iter(term.sessions))
        assert term.may_permit(session)
        certain = False
        assert not term.may_permit(session), "another may lead by now"
        certain = True
        async with cluster.agent("n1", retry=60).running():
            await eventually(lambda: session not in term.sessions)
            assert not term.may_permit(session), "another session of the node has taken over"
    await eventually(lambda: not term.sessions)
    assert not term.may_permit(session)


async def test_a_node_that_was_removed_is_not_registered_again_by_its_old_session(cluster: Cluster) -> None:
    term = await cluster.lead(Timing(heartbeat_period=0.02))
    agent = cluster.agent("n1", retry=60)
    async with agent.running():
        await eventually(lambda: is_ready(cluster, "n1"))
        session = next(iter(term.sessions))
        await cluster.delete(cluster.world.nodes["n1"])
        term.queue.add("node/n1")
        session.received(wire.AgentMessage(heartbeat=wire.Heartbeat()))
        await eventually(lambda: not term.sessions)
        term.queue.add("node/n1")
        await eventually(lambda: term.queue.is_idle)
        assert not cluster.world.nodes
