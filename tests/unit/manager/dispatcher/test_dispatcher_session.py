"""The dispatcher as agents see it: real gRPC with TLS on loopback, a store in memory."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

from tests.support.fake_agent import FakeAgent
from tests.support.manager import Cluster, eventually
from tests.unit.manager.dispatcher.build import NETWORK, RUNNING, is_ready, service, state, task

from pyswarm_core.ids import derived_id
from pyswarm_core.v1 import dispatcher_pb2 as wire
from pyswarm_core.v1 import endpoints_pb2 as ep
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.dispatcher.nodes import Limits
from pyswarm_manager.dispatcher.term import Timing
from pyswarm_manager.endpoints import derive, hold
from pyswarm_manager.plan import World, changed


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
