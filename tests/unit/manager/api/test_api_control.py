"""The API over real gRPC with TLS, on a store in memory. What is valid is the admission's, tested there. One file:
one test or more for each RPC of one service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from tests.support.manager import Cluster, eventually

from pyswarm_core.errors import Conflict
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import control_pb2_grpc as control_grpc
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.plan import changed
from pyswarm_manager.presence import Presence

DIGEST, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
NETWORK = pb.Network(
    id="net0", vni=4097, vip_range="10.128.0.0/18", spec=spec.NetworkSpec(name="default", subnet="10.128.0.0/16")
)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster.make() as cluster:
        await cluster.put(NETWORK)
        cluster.resolver.has("docker.io/library/web:v1", DIGEST)
        cluster.resolver.has("docker.io/library/web:v2", OTHER)
        yield cluster


@pytest.fixture
async def stub(cluster: Cluster) -> AsyncIterator[control_grpc.ControlAsyncStub]:
    async with cluster.client() as stub:
        yield stub


def web(name: str = "web", image: str = "web:v1", env: str = "", **fields: object) -> spec.ServiceSpec:
    fields.setdefault("replicas", 1)
    return spec.ServiceSpec(
        name=name, task=spec.TaskSpec(container=spec.ContainerSpec(image=image, env=[env] if env else [])), **fields
    )


async def create(stub: control_grpc.ControlAsyncStub, wanted: spec.ServiceSpec) -> control.ServiceResponse:
    return await stub.CreateService(control.CreateServiceRequest(spec=wanted))


async def refused(call: grpc.aio.UnaryUnaryCall) -> tuple[str, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    details = raised.value.details() or ""
    assert "Traceback" not in details and "\n" not in details
    return raised.value.code().name, details


async def test_create_stores_service_and_rollout_in_one_transaction(cluster: Cluster, stub) -> None:
    before = cluster.store.revision
    response = await create(stub, web(ports=[spec.Port(target=80, published=8080)]))
    assert cluster.store.revision == before + 1
    service, rollout = response.service, response.rollout
    assert service == cluster.world.services[service.id]
    assert rollout == cluster.world.rollouts[service.rollout_id]
    assert service.version == rollout.version == cluster.store.revision
    container = service.spec.task.container
    assert (container.image, container.digest) == ("docker.io/library/web:v1", DIGEST)
    assert [p.architecture for p in container.platforms] == ["amd64"]
    assert list(response.warnings) == []
    view = await stub.GetService(control.Ref(ref="web"))
    assert (view.service, view.rollout, view.running, view.desired) == (service, rollout, 0, 1)


async def test_a_tag_that_cannot_be_resolved_warns_and_goes_on_unpinned(cluster: Cluster, stub) -> None:
    response = await create(stub, web(image="web:none"))
    assert not response.service.spec.task.container.digest
    assert "docker.io/library/web:none could not be resolved" in response.warnings[0]


async def test_a_digest_given_by_the_user_is_kept_and_no_registry_asked(cluster: Cluster, stub) -> None:
    response = await create(stub, web(image=f"web:v1@{OTHER}"))
    assert response.service.spec.task.container.digest == OTHER
    assert cluster.resolver.asked == []


async def test_what_is_invalid_is_said_before_a_registry_is_asked(cluster: Cluster, stub) -> None:
    code, details = await refused(stub.CreateService(control.CreateServiceRequest(spec=web("no good"))))
    assert code == "INVALID_ARGUMENT"
    assert "no good" in details
    assert cluster.resolver.asked == []


async def test_update_keeps_the_digest_unless_the_image_changes_or_is_to_be_resolved_again(cluster, stub) -> None:
    created = await create(stub, web())
    cluster.resolver.has("docker.io/library/web:v1", OTHER)  # the tag has moved
    request = control.UpdateServiceRequest(ref="web", version=created.service.version, spec=web(replicas=2))
    updated = await stub.UpdateService(request)
    assert updated.service.spec.task.container.digest == DIGEST
    assert updated.service.spec.task.container.platforms
    assert updated.rollout.id != created.rollout.id
    again = await stub.UpdateService(control.UpdateServiceRequest(ref="web", spec=web(replicas=2), resolve_image=True))
    assert again.service.spec.task.container.digest == OTHER
    # A copy of the old digest in a spec with another image is no digest of that.
    copied = web(image="web:v2")
    copied.task.container.digest = DIGEST
    cluster.resolver.has("docker.io/library/web:v2", "sha256:" + "c" * 64)
    other = await stub.UpdateService(control.UpdateServiceRequest(ref="web", spec=copied))
    assert other.service.spec.task.container.digest == "sha256:" + "c" * 64
    assert other.service.previous_spec == again.service.spec


async def test_a_spec_made_from_an_old_version_is_aborted(cluster: Cluster, stub) -> None:
    created = await create(stub, web())
    request = control.UpdateServiceRequest(ref="web", version=created.service.version, spec=web(replicas=2))
    await stub.UpdateService(request)
    code, details = await refused(stub.UpdateService(request))
    assert code == "ABORTED"
    assert "changed meanwhile" in details


async def test_a_loop_that_writes_the_service_at_the_same_time_only_delays(cluster: Cluster, stub) -> None:
    created = await create(stub, web())

    async def disturb() -> None:
        done = 0
        while done < 20:  # as a loop does: again, on what is there now
            service = changed(cluster.world.services[created.service.id])
            del service.vips[:]
            service.vips.add(network_id="net0", address=f"10.128.0.{done + 1}")
            try:
                await cluster.put(service)
            except Conflict:
                await asyncio.sleep(0.001)
            else:
                done += 1

    disturbing = asyncio.create_task(disturb())
    for replicas in range(2, 12):
        await stub.UpdateService(control.UpdateServiceRequest(ref="web", spec=web(replicas=replicas)))
    await disturbing
    service = cluster.world.services[created.service.id]
    assert service.spec.replicas == 11
    assert service.vips[0].address == "10.128.0.20"


async def test_scale_all_or_none(cluster: Cluster, stub) -> None:
    await create(stub, web("a"))
    await create(stub, web("b"))
    target = control.ScaleServicesRequest.Target
    call = stub.ScaleServices(
        control.ScaleServicesRequest(targets=[target(ref="a", replicas=3), target(ref="nope", replicas=3)])
    )
    assert (await refused(call))[0] == "NOT_FOUND"
    assert {s.spec.replicas for s in cluster.world.services.values()} == {1}
    response = await stub.ScaleServices(
        control.ScaleServicesRequest(targets=[target(ref="a", replicas=3), target(ref="b", replicas=0)])
    )
    assert [s.service.spec.replicas for s in response.services] == [3, 0]
    assert {s.spec.name: s.spec.replicas for s in cluster.world.services.values()} == {"a": 3, "b": 0}


async def test_rollback_and_remove(cluster: Cluster, stub) -> None:
    await create(stub, web())
    assert (await refused(stub.RollbackService(control.Ref(ref="web"))))[0] == "FAILED_PRECONDITION"
    await stub.UpdateService(control.UpdateServiceRequest(ref="web", spec=web(replicas=5)))
    back = await stub.RollbackService(control.Ref(ref="web"))
    assert back.service.spec.replicas == 1
    assert back.rollout.kind == pb.ROLLOUT_KIND_ROLLBACK
    await stub.RemoveService(control.Ref(ref="web"))
    assert cluster.world.services[back.service.id].removing
    await stub.RemoveService(control.Ref(ref=back.service.id))
    code, _ = await refused(stub.UpdateService(control.UpdateServiceRequest(ref="web", spec=web())))
    assert code == "FAILED_PRECONDITION"


async def test_of_many_that_create_one_name_at_once_on_two_managers_one_succeeds(cluster: Cluster) -> None:
    async with Cluster.make(store=cluster.store) as other, cluster.client() as here, other.client() as there:
        calls = [create(stub, web()) for _ in range(5) for stub in (here, there)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        created = [r for r in results if isinstance(r, control.ServiceResponse)]
        assert len(created) == 1
        errors = {r.code() for r in results if isinstance(r, grpc.aio.AioRpcError)}
        assert errors == {grpc.StatusCode.ALREADY_EXISTS}
        assert len(cluster.world.services) == 1


async def test_of_two_that_publish_one_port_at_once_on_two_managers_one_succeeds(cluster: Cluster) -> None:
    port = spec.Port(target=80, published=8080)
    async with Cluster.make(store=cluster.store) as other, cluster.client() as here, other.client() as there:
        results = await asyncio.gather(
            create(here, web("a", ports=[port])), create(there, web("b", ports=[port])), return_exceptions=True
        )
        assert sum(isinstance(r, control.ServiceResponse) for r in results) == 1
        (error,) = [r for r in results if isinstance(r, grpc.aio.AioRpcError)]
        assert error.code() == grpc.StatusCode.ALREADY_EXISTS
        assert "8080" in (error.details() or "")


async def test_a_port_that_a_rollback_may_need_is_not_given_away(cluster: Cluster, stub) -> None:
    port = spec.Port(target=80, published=8080)
    await create(stub, web("a", ports=[port]))
    updated = await stub.UpdateService(control.UpdateServiceRequest(ref="a", spec=web("a", env="X=1")))
    code, details = await refused(create(stub, web("b", ports=[port])))
    assert code == "ALREADY_EXISTS" and "rolled back" in details
    done = changed(cluster.world.rollouts[updated.rollout.id])
    done.state = pb.ROLLOUT_STATE_COMPLETED
    await cluster.put(done)
    await create(stub, web("b", ports=[port]))
    assert (await refused(stub.RollbackService(control.Ref(ref="a"))))[0] == "ALREADY_EXISTS"


async def test_ports_picked_at_once_on_two_managers_differ(cluster: Cluster) -> None:
    async with Cluster.make(store=cluster.store) as other, cluster.client() as here, other.client() as there:
        calls = [create(stub, web(f"s{n}", ports=[spec.Port(target=80)])) for n, stub in enumerate([here, there] * 4)]
        responses = await asyncio.gather(*calls)
        assert len({r.service.spec.ports[0].published for r in responses}) == 8


async def test_what_one_manager_has_answered_is_seen_at_the_other_at_once(cluster: Cluster) -> None:
    async with Cluster.make(store=cluster.store) as other, cluster.client() as here, other.client() as there:
        for n in range(10):
            await create(here, web(f"s{n}"))
            assert len((await there.ListServices(control.ListRequest())).services) == n + 1


async def test_credentials_are_stored_used_and_never_answered(cluster: Cluster, stub) -> None:
    auth = pb.RegistryAuth(host="docker.io", username="me", password="hunter2")
    created = await stub.CreateService(control.CreateServiceRequest(spec=web(), auth=auth))
    assert cluster.resolver.asked == [("docker.io/library/web:v1", "me")]
    assert cluster.world.auths[created.service.id].password == "hunter2"
    await stub.UpdateService(control.UpdateServiceRequest(ref="web", spec=web(image="web:v2")))
    assert cluster.resolver.asked[1:] == [("docker.io/library/web:v2", "me")], "what is stored is used"
    view = await stub.GetService(control.Ref(ref="web"))
    listed = await stub.ListServices(control.ListRequest())
    for answer in (created, view, listed):
        assert b"hunter2" not in answer.SerializeToString()
    new = pb.RegistryAuth(host="docker.io", username="me", password="changed")
    await stub.UpdateService(control.UpdateServiceRequest(ref="web", spec=web(), auth=new))
    assert cluster.world.auths[created.service.id].password == "changed"
    bad = control.CreateServiceRequest(spec=web("b"), auth=pb.RegistryAuth(password="x"))
    assert (await refused(stub.CreateService(bad)))[0] == "INVALID_ARGUMENT"


async def test_a_first_request_waits_for_the_default_network(cluster: Cluster, stub) -> None:
    await cluster.delete(NETWORK)
    creating = asyncio.ensure_future(create(stub, web()))
    await asyncio.sleep(0.1)
    assert not creating.done()
    await cluster.put(NETWORK)
    assert (await creating).service.spec.task.networks[0].network_id == "net0"
    await cluster.delete(NETWORK)
    async with Cluster.make(store=cluster.store, begun_within=0.05) as other, other.client() as impatient:
        code, details = await refused(create(impatient, web("b")))
        assert code == "UNAVAILABLE" and "led" in details


async def test_networks(cluster: Cluster, stub) -> None:
    made = await stub.CreateNetwork(control.CreateNetworkRequest(spec=spec.NetworkSpec(name="back")))
    assert made.version and made.spec.subnet and made.vni
    assert (await stub.GetNetwork(control.Ref(ref="back"))) == made
    again = stub.CreateNetwork(control.CreateNetworkRequest(spec=spec.NetworkSpec(name="back")))
    assert (await refused(again))[0] == "ALREADY_EXISTS"
    names = [n.spec.name for n in (await stub.ListNetworks(control.ListRequest())).networks]
    assert names == ["back", "default"]
    wanted = web()
    wanted.task.networks.add(network_id="back")
    await create(stub, wanted)
    code, details = await refused(stub.RemoveNetwork(control.Ref(ref="back")))
    assert code == "FAILED_PRECONDITION" and "web" in details
    other = await stub.CreateNetwork(control.CreateNetworkRequest(spec=spec.NetworkSpec(name="free")))
    await stub.RemoveNetwork(control.Ref(ref=other.id))
    assert other.id not in cluster.world.networks


async def test_networks_made_at_once_do_not_overlap(cluster: Cluster) -> None:
    async with Cluster.make(store=cluster.store) as other, cluster.client() as here, other.client() as there:
        networks = await asyncio.gather(
            *(
                stub.CreateNetwork(control.CreateNetworkRequest(spec=spec.NetworkSpec(name=f"n{i}")))
                for i, stub in enumerate([here, there] * 3)
            )
        )
        assert len({n.spec.subnet for n in networks}) == len({n.vni for n in networks}) == 6


def node(node_id: str, **fields: object) -> pb.Node:
    fields.setdefault("state", pb.NODE_STATE_READY)
    return pb.Node(
        id=node_id, number=1, address="10.9.0.1", description=pb.NodeDescription(hostname=f"h-{node_id}"), **fields
    )


async def test_nodes(cluster: Cluster, stub) -> None:
    manager = spec.NodeSpec(role=spec.NODE_ROLE_MANAGER)
    await cluster.put(node("manager-1", spec=manager), node("w1"), node("w2", state=pb.NODE_STATE_DOWN))
    await cluster.put(node("manager-2", spec=manager), node("manager-3", spec=manager))
    await cluster.lead()
    presence = Presence(cluster.store, pb.Leader(manager_id="manager-2", address="10.9.0.2:99"), cluster.clock)
    living = asyncio.create_task(presence.run())
    await eventually(lambda: cluster.store.list_now("/pyswarm/v1/manager/").entries)
    nodes = {n.id: n for n in (await stub.ListNodes(control.ListRequest())).nodes}
    assert nodes["manager-1"].manager.leader
    assert nodes["manager-1"].manager.address == cluster.address
    assert not nodes["w1"].HasField("manager")
    assert (nodes["manager-2"].manager.reachable, nodes["manager-2"].manager.address) == (True, "10.9.0.2:99")
    assert not nodes["manager-3"].manager.reachable
    living.cancel()
    await presence.withdraw()
    assert not (await stub.GetNode(control.Ref(ref="manager-2"))).manager.reachable
    assert (await stub.GetNode(control.Ref(ref="self"))).id == "manager-1"
    drained = spec.NodeSpec(availability=spec.NODE_AVAILABILITY_DRAIN)
    updated = await stub.UpdateNode(control.UpdateNodeRequest(ref="h-w1", spec=drained))
    assert updated.spec == drained == cluster.world.nodes["w1"].spec
    stale = control.UpdateNodeRequest(ref="w1", version=nodes["w1"].version, spec=spec.NodeSpec())
    assert (await refused(stub.UpdateNode(stale)))[0] == "ABORTED"
    assert (await refused(stub.RemoveNode(control.RemoveNodeRequest(ref="w1"))))[0] == "FAILED_PRECONDITION"
    await stub.RemoveNode(control.RemoveNodeRequest(ref="w2"))
    await stub.RemoveNode(control.RemoveNodeRequest(ref="w1", force=True))
    assert sorted(cluster.world.nodes) == ["manager-1", "manager-2", "manager-3"]


async def test_self_where_no_agent_runs(cluster: Cluster, stub) -> None:
    code, details = await refused(stub.GetNode(control.Ref(ref="self")))
    assert code == "NOT_FOUND" and "manager-1" in details


async def test_tasks_by_service_node_and_history(cluster: Cluster, stub) -> None:
    a, b = (await create(stub, web("a"))).service.id, (await create(stub, web("b"))).service.id
    done, runs = pb.TaskStatus(state=pb.TASK_STATE_FAILED), pb.TaskStatus(state=pb.TASK_STATE_RUNNING)
    await cluster.put(
        node("n1"),
        pb.Task(id="a1", service_id=a, service_name="a", slot=1, node_id="n1", status=runs),
        pb.Task(id="a0", service_id=a, service_name="a", slot=1, node_id="n1", status=done),
        pb.Task(id="b1", service_id=b, service_name="b", slot=1, node_id="n2", status=runs),
    )

    async def listed(**fields: object) -> list[str]:
        return [t.id for t in (await stub.ListTasks(control.ListTasksRequest(**fields))).tasks]

    assert await listed() == ["a1", "b1"]
    assert await listed(services=["a"]) == ["a1"]
    assert sorted(await listed(services=["a"], history=True)) == ["a0", "a1"]
    assert await listed(node="h-n1") == ["a1"]
    response = await stub.ListTasks(control.ListTasksRequest())
    assert [n.hostname for n in response.nodes] == ["h-n1"]
    assert (await refused(stub.ListTasks(control.ListTasksRequest(services=["zzz"]))))[0] == "NOT_FOUND"


async def test_info(cluster: Cluster, stub) -> None:
    await create(stub, web())
    info = await stub.GetInfo(control.Empty())
    assert (info.manager_id, info.leader_address, info.services) == ("manager-1", "", 1)
    await cluster.lead()
    assert (await stub.GetInfo(control.Empty())).leader_address == cluster.address


async def test_a_rollout_is_watched_to_its_end(cluster: Cluster, stub) -> None:
    created = await create(stub, web())
    views: list[control.RolloutView] = []

    async def watch() -> None:
        async for view in stub.WatchRollout(control.WatchRolloutRequest(rollout_id=created.rollout.id)):
            views.append(view)

    watching = asyncio.create_task(watch())
    await eventually(lambda: views)
    assert views[0].service.spec.name == "web"
    for n in range(50):
        status = pb.TaskStatus(state=pb.TASK_STATE_PREPARING, message=str(n))
        await cluster.put(pb.Task(id="t", service_id=created.service.id, slot=1, status=status))
    finished = changed(cluster.world.rollouts[created.rollout.id])
    finished.state = pb.ROLLOUT_STATE_COMPLETED
    await cluster.put(finished)
    await asyncio.wait_for(watching, 5)
    assert views[-1].rollout.state == pb.ROLLOUT_STATE_COMPLETED
    assert [t.status.message for t in views[-1].tasks] == ["49"]
    assert len(views) < 40, "many changes are few messages"
    # A finished one is told at once; one that is unknown is an error.
    await asyncio.wait_for(watch(), 5)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in stub.WatchRollout(control.WatchRolloutRequest(rollout_id="nope")):
            pass
    assert raised.value.code() == grpc.StatusCode.NOT_FOUND


async def test_watching_ends_when_the_service_goes(cluster: Cluster, stub) -> None:
    created = await create(stub, web())

    async def watch() -> list[control.RolloutView]:
        call = stub.WatchRollout(control.WatchRolloutRequest(rollout_id=created.rollout.id))
        return [view async for view in call]

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0.05)
    await cluster.delete(created.rollout, created.service)
    assert (await asyncio.wait_for(watching, 5))[0].rollout.id == created.rollout.id


@pytest.mark.parametrize("role", ["worker", "etcd"])
async def test_certificates_of_hosts_cannot_command(cluster: Cluster, role) -> None:
    async with cluster.client(role) as stub:
        code, details = await refused(stub.ListNodes(control.ListRequest()))
        assert code == "PERMISSION_DENIED" and role in details
        assert (await refused(create(stub, web())))[0] == "PERMISSION_DENIED"
    assert not cluster.world.services


async def test_without_the_store_reads_still_answer_and_writes_say_why_not(cluster: Cluster, stub) -> None:
    await create(stub, web())
    cluster.store.set_available(False)
    assert len((await stub.ListServices(control.ListRequest())).services) == 1
    assert (await refused(create(stub, web("b"))))[0] == "UNAVAILABLE"
    cluster.store.set_available(True)
    await create(stub, web("b"))


async def test_an_error_of_our_own_is_one_sentence_and_internal(cluster: Cluster, stub) -> None:
    async def broken(reference: object, auth: object) -> None:
        raise ZeroDivisionError

    cluster.resolver.resolve = broken  # type: ignore[method-assign]
    code, details = await refused(create(stub, web()))
    assert code == "INTERNAL"
    assert "log" in details and "ZeroDivision" not in details
