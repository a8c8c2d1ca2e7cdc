"""The dispatcher as agents see it: real gRPC with TLS on loopback, a store in memory. One file: a session from its
hello to its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from tests.support.fake_agent import FakeAgent
from tests.support.manager import Cluster, eventually

from pyswarm_core.ids import derived_id
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.dispatcher.nodes import Limits
from pyswarm_manager.dispatcher.term import Timing
from pyswarm_manager.endpoints import derive, hold
from pyswarm_manager.plan import World, changed

ASSIGNED, RUNNING = pb.TASK_STATE_ASSIGNED, pb.TASK_STATE_RUNNING


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster.make() as cluster:
        yield cluster
        cluster.check_agents()


def service(service_id: str = "web") -> pb.Service:
    task = spec.TaskSpec(networks=[spec.NetworkAttachment(network_id="net")])
    return pb.Service(
        id=service_id,
        spec=spec.ServiceSpec(name=service_id, replicas=1, task=task),
        vips=[pb.Vip(network_id="net", address="10.128.0.9")],
    )


NETWORK = pb.Network(id="net", vni=4097, spec=spec.NetworkSpec(name="net", subnet="10.128.0.0/16"))


def task(task_id: str, node: str = "n1", *, service_id: str = "web", **fields: object) -> pb.Task:
    fields.setdefault("desired_state", RUNNING)
    fields.setdefault("status", pb.TaskStatus(state=ASSIGNED))
    return pb.Task(
        id=task_id,
        service_id=service_id,
        service_name=service_id,
        slot=1,
        node_id=node,
        addresses=[pb.TaskAddress(network_id="net", address=f"10.128.64.{len(task_id)}")],
        **fields,
    )


def state(cluster: Cluster, task_id: str) -> int:
    stored = cluster.world.tasks.get(task_id)
    return stored.status.state if stored else -1


def is_ready(cluster: Cluster, node_id: str) -> bool:
    node = cluster.world.nodes.get(node_id)
    return node is not None and node.state == pb.NODE_STATE_READY and node.serving


async def test_a_new_node_is_registered_and_ready_once_it_has_applied_all_endpoints(cluster: Cluster) -> None:
    await cluster.put(NETWORK)
    await cluster.lead()
    agent = cluster.agent("n1", labels={"zone": "a"}, hostname="host-1")
    agent.behaviour.applies = False
    async with agent.running():
        await eventually(lambda: agent.welcome and "n1" in cluster.world.nodes)
        node = cluster.world.nodes["n1"]
        assert (node.number, node.state, node.serving) == (1, pb.NODE_STATE_UNKNOWN, False)
        assert agent.welcome and agent.welcome.node_number == 1
        assert node.spec.labels == {"zone": "a"}
        assert node.spec.role == spec.NODE_ROLE_WORKER
        assert (node.description.hostname, node.address) == ("host-1", "10.99.0.1")
        await eventually(lambda: agent._pending_applied)
        agent.behaviour.applies = True
        agent.confirm_now()
        await eventually(lambda: is_ready(cluster, "n1"))
        assert [n.hostname for n in agent.nodes.values()] == ["host-1"]


async def test_many_nodes_that_register_at_once_get_different_numbers(cluster: Cluster) -> None:
    await cluster.lead()
    agents = [cluster.agent(f"n{i}", i) for i in range(1, 9)]
    await gather_running(cluster, agents)
    assert sorted(n.number for n in cluster.world.nodes.values()) == list(range(1, 9))


async def gather_running(cluster: Cluster, agents: list[FakeAgent]) -> None:
    async with AsyncExitStack() as stack:
        for agent in agents:
            await stack.enter_async_context(agent.running())
        await eventually(lambda: all(is_ready(cluster, a.node_id) for a in agents))
        await eventually(lambda: all(len(a.nodes) == len(agents) for a in agents), "every agent knows every node")


async def test_a_task_walks_to_running_and_becomes_an_endpoint_that_every_node_confirms(cluster: Cluster) -> None:
    await cluster.put(NETWORK, service())
    term = await cluster.lead()
    first, second = cluster.agent("n1", 1), cluster.agent("n2", 2)
    async with first.running(), second.running():
        await eventually(lambda: is_ready(cluster, "n1") and is_ready(cluster, "n2"))
        await cluster.put(task("t1"))
        await eventually(lambda: state(cluster, "t1") == RUNNING)
        for agent in (first, second):
            await eventually(lambda agent=agent: agent.endpoints["web"].endpoints)
            (endpoint,) = agent.endpoints["web"].endpoints
            assert (endpoint.task_id, endpoint.state) == ("t1", ep.ENDPOINT_STATE_SERVING)
        version = cluster.world.tasks["t1"].version
        await eventually(lambda: min(term.acks.applied("n1"), term.acks.applied("n2")) >= version)
        assert first.all_stored
        assert second.held == {}


async def test_orders_reach_the_agent_and_what_it_does_with_them_is_stored(cluster: Cluster) -> None:
    await cluster.put(NETWORK, service())
    await cluster.lead()
    agent = cluster.agent("n1")
    async with agent.running():
        await cluster.put(task("t1", desired_state=pb.TASK_STATE_READY))
        await eventually(lambda: state(cluster, "t1") == pb.TASK_STATE_READY)
        assert agent.starts == {}
        go = changed(cluster.world.tasks["t1"])
        go.desired_state = RUNNING
        await cluster.put(go)
        await eventually(lambda: state(cluster, "t1") == RUNNING)
        leave = changed(cluster.world.tasks["t1"])
        leave.desired_state, leave.leaving, leave.leaving_at = pb.TASK_STATE_SHUTDOWN, True, 1.0
        revision = await cluster.put(leave)
        await eventually(lambda: agent.applied >= revision)
        assert agent.endpoints["web"].endpoints[0].state == ep.ENDPOINT_STATE_LEAVING
        assert state(cluster, "t1") == RUNNING
        release = changed(cluster.world.tasks["t1"])
        release.released = True
        await cluster.put(release)
        await eventually(lambda: state(cluster, "t1") == pb.TASK_STATE_SHUTDOWN)
        free = changed(cluster.world.tasks["t1"])
        free.addresses_free = True
        await cluster.put(free)
        await eventually(lambda: agent.settled == {"t1"})
        assert not agent.endpoints["web"].endpoints
        await cluster.delete(free)
        await eventually(lambda: agent.held == {})


async def test_a_waited_for_revision_reaches_every_node_though_its_endpoints_did_not_change(cluster: Cluster) -> None:
    """Releasing needs confirmations of the revision at which a task left, also of a task that never served."""
    await cluster.put(NETWORK, service())
    term = await cluster.lead()
    agent = cluster.agent("n1")
    async with agent.running():
        await eventually(lambda: is_ready(cluster, "n1"))
        revision = await cluster.put(task("t9", node="elsewhere", leaving=True))
        await eventually(lambda: term.acks.applied("n1") >= revision)


async def test_nothing_is_sent_for_changes_that_concern_no_endpoint(cluster: Cluster) -> None:
    await cluster.put(NETWORK, service())
    await cluster.lead()
    agent = cluster.agent("n1")
    async with agent.running():
        await eventually(lambda: is_ready(cluster, "n1"))
        before = len(agent.updates)
        for step in (pb.TASK_STATE_NEW, pb.TASK_STATE_ASSIGNED, pb.TASK_STATE_PREPARING):
            await cluster.put(task("t1", node="elsewhere", status=pb.TaskStatus(state=step)))
        revision = await cluster.put(task("t2", node="elsewhere", leaving=True))
        await eventually(lambda: agent.applied >= revision)
        assert len(agent.updates) == before + 1


async def test_a_slow_agent_gets_one_update_for_many_changes(cluster: Cluster) -> None:
    await cluster.put(NETWORK, service())
    term = await cluster.lead()
    agent = cluster.agent("n1")
    async with agent.running():
        await eventually(lambda: is_ready(cluster, "n1"))
        agent.behaviour.applies = False
        for n in range(60):
            running = pb.TaskStatus(state=RUNNING)
            await cluster.put(task("t" * (n + 1), node="n1", status=running))
        received = len(agent.updates) + len(agent._pending_applied)
        assert received <= 12
        agent.behaviour.applies = True
        agent.confirm_now()
        await eventually(lambda: len(agent.endpoints["web"].endpoints) == 60)
        await eventually(lambda: term.acks.applied("n1") >= cluster.world.revision)
        agent.faults.clear()  # it had never heard of these tasks


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


async def test_a_node_is_down_after_its_silence_and_ready_again_when_it_has_applied(cluster: Cluster) -> None:
    await cluster.put(NETWORK, service())
    await cluster.lead(Timing(heartbeat_period=0.05, limits=Limits(down_after=0.4, apply_within=10), grace=0.4))
    agent = cluster.agent("n1")
    async with agent.running():
        await eventually(lambda: is_ready(cluster, "n1"))
        agent.behaviour.heartbeats = False
        await eventually(lambda: cluster.world.nodes["n1"].state == pb.NODE_STATE_DOWN)
        node = cluster.world.nodes["n1"]
        assert not node.serving
        assert "0.4 s" in node.state_message
        agent.behaviour.heartbeats = True
        await eventually(lambda: is_ready(cluster, "n1"))
        assert agent.sessions > 1, "the silent session was ended"
        assert cluster.world.nodes["n1"].number == 1


async def test_heartbeats_and_reconnections_are_not_written(cluster: Cluster) -> None:
    await cluster.put(NETWORK)
    await cluster.lead(Timing(heartbeat_period=0.02))
    agent = cluster.agent("n1")
    async with agent.running():
        await eventually(lambda: is_ready(cluster, "n1"))
        version = cluster.world.nodes["n1"].version
    again = cluster.agent("n1")
    async with again.running():
        await eventually(lambda: again.applied)
        await asyncio.sleep(0.2)
        assert cluster.world.nodes["n1"].version == version


async def test_a_new_leader_gives_all_nodes_time_to_come(cluster: Cluster) -> None:
    node = pb.Node(id="n1", number=1, state=pb.NODE_STATE_READY, serving=True, address="10.99.0.1")
    await cluster.put(NETWORK, node)
    await cluster.lead(Timing(limits=Limits(down_after=0.05), grace=0.5))
    await asyncio.sleep(0.2)
    assert cluster.world.nodes["n1"].state == pb.NODE_STATE_READY
    await eventually(lambda: cluster.world.nodes["n1"].state == pb.NODE_STATE_DOWN)


async def test_a_node_that_does_not_apply_is_not_waited_for_until_it_has_applied_everything(cluster: Cluster) -> None:
    await cluster.put(NETWORK, service())
    await cluster.lead(Timing(heartbeat_period=0.05, limits=Limits(down_after=10, apply_within=0.3)))
    agent = cluster.agent("n1")
    async with agent.running():
        await eventually(lambda: is_ready(cluster, "n1"))
        agent.behaviour.applies = False
        await cluster.put(task("t1", node="n1", status=pb.TaskStatus(state=RUNNING)))
        await eventually(lambda: not cluster.world.nodes["n1"].serving)
        node = cluster.world.nodes["n1"]
        assert node.state == pb.NODE_STATE_READY
        assert "does not apply" in node.state_message
        agent.behaviour.applies = True
        agent.confirm_now()
        await eventually(lambda: is_ready(cluster, "n1"))
        assert cluster.world.nodes["n1"].state_message == ""
        assert any(update.complete for update in agent.updates[1:])
        agent.faults.clear()


async def test_a_second_session_of_a_node_ends_the_first(cluster: Cluster) -> None:
    term = await cluster.lead()
    first = cluster.agent("n1", retry=60)
    second = cluster.agent("n1", retry=60)
    async with first.running():
        await eventually(lambda: first.sessions == 1)
        async with second.running():
            await eventually(lambda: second.applied)
            await eventually(lambda: first._stub is not None and len(term.sessions) == 1)
            assert first.sessions == second.sessions == 1


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


async def test_statuses_survive_an_outage_of_the_store(cluster: Cluster) -> None:
    await cluster.put(NETWORK, service())
    await cluster.lead()
    agent = cluster.agent("n1")
    async with agent.running():
        await cluster.put(task("t1"))
        await eventually(lambda: state(cluster, "t1") == RUNNING and agent.all_stored)
        cluster.store.set_available(False)
        agent.report("t1", message="one")
        agent.report("t1", message="two")
        await asyncio.sleep(0.1)
        assert not agent.all_stored
        cluster.store.set_available(True)
        await eventually(lambda: agent.all_stored)
        assert cluster.world.tasks["t1"].status.message == "two"
        assert agent.sessions == 1


async def test_credentials_go_to_the_nodes_that_pull_and_to_no_others(cluster: Cluster) -> None:
    await cluster.put(NETWORK, service(), service("db"))
    await cluster.put(pb.RegistryAuth(id="web", password="secret"), pb.RegistryAuth(id="db", password="other"))
    await cluster.lead()
    first, second = cluster.agent("n1", 1), cluster.agent("n2", 2)
    async with first.running(), second.running():
        await cluster.put(task("t1", "n1"))
        await eventually(lambda: state(cluster, "t1") == RUNNING and is_ready(cluster, "n2"))
        assert list(first.auths) == ["web"]
        assert not second.auths
        await cluster.put(pb.RegistryAuth(id="web", password="changed"))
        await eventually(lambda: first.auths["web"].password == "changed")
        assert not second.auths


async def test_every_node_gets_the_networks_of_all_services(cluster: Cluster) -> None:
    await cluster.lead()
    agent = cluster.agent("n1")
    async with agent.running():
        await eventually(lambda: is_ready(cluster, "n1"))
        await cluster.put(NETWORK)
        await cluster.put(service())
        await eventually(lambda: list(agent.networks) == ["net"])
        with_block = changed(cluster.world.networks["net"])
        with_block.blocks.add(node_id="n1", cidr="10.128.64.0/24")
        await cluster.put(with_block)
        await eventually(lambda: agent.networks["net"].blocks)
        await cluster.delete(service())
        assert list(agent.networks) == ["net"], "its tasks may still be there"
        await cluster.delete(with_block)
        await eventually(lambda: not agent.networks)


async def test_a_successor_made_without_a_manager_is_adopted(cluster: Cluster) -> None:
    await cluster.put(NETWORK, service())
    await cluster.lead()
    agent = cluster.agent("n1")
    async with agent.running():
        await cluster.put(task("t1"))
        await eventually(lambda: state(cluster, "t1") == RUNNING)
        made = pb.Task(id=derived_id("successor", "t1", "1"), predecessor_id="t1", created_at=5, restarts=1)
        made.addresses.add(network_id="net", address="10.128.64.2")
        updates = [
            wire.StatusUpdate(task_id="t1", status=pb.TaskStatus(state=pb.TASK_STATE_FAILED, error="crashed")),
            wire.StatusUpdate(task_id=made.id, status=pb.TaskStatus(state=RUNNING), adopted=made),
        ]
        agent._outbox.put_nowait(wire.AgentMessage(statuses=wire.StatusBatch(updates=updates)))
        await eventually(lambda: state(cluster, made.id) == RUNNING)
        assert state(cluster, "t1") == pb.TASK_STATE_FAILED
        agent.faults.clear()


async def test_a_removed_node_loses_its_session(cluster: Cluster) -> None:
    await cluster.lead()
    agent = cluster.agent("n1", retry=60)
    async with agent.running():
        await eventually(lambda: is_ready(cluster, "n1"))
        await cluster.delete(cluster.world.nodes["n1"])
        assert cluster.term
        term = cluster.term
        await eventually(lambda: not term.sessions)


class Impatient:
    """Derives as if each service had been empty for longer: it holds connections for two seconds."""

    EARLIER = hold.LONGEST - 2

    def derive(self, world: World, service_id: str, now: float, empty_since: float | None) -> Any:
        return derive.derive(world, service_id, now, None if empty_since is None else empty_since - self.EARLIER)

    def hold_until(self, world: World, service_id: str, now: float, empty_since: float | None) -> float | None:
        return derive.hold_until(world, service_id, now, None if empty_since is None else empty_since - self.EARLIER)

    def is_serving(self, world: World, service_id: str) -> bool:
        return derive.is_serving(world, service_id)


async def test_a_service_that_waits_for_endpoints_in_vain_refuses_when_its_time_is_over(cluster: Cluster) -> None:
    await cluster.put(NETWORK, service(), task("t1", status=pb.TaskStatus(state=pb.TASK_STATE_PREPARING)))
    await cluster.lead(deriver=Impatient())
    agent = cluster.agent("n2")
    async with agent.running():
        await eventually(lambda: agent.endpoints)
        assert agent.endpoints["web"].hold
        revision = cluster.store.revision
        await eventually(lambda: not agent.endpoints["web"].hold)
        assert cluster.store.revision <= revision + 2, "by a timer, not by a change (but for the node's own state)"


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
