"""Connections: managers that are down, do not lead, are others', or go away in the middle."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from tests.support import fake_control as fake
from tests.support.cli import Run
from tests.support.fake_control import FakeControl
from tests.support.relay import Relay

from pyswarm_cli import client
from pyswarm_cli.client import Cluster
from pyswarm_cli.exits import ClusterUnreachable
from pyswarm_core import contexts, errors, tls
from pyswarm_core.contexts import Context
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import objects_pb2 as pb

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@pytest.fixture
def deaf() -> Iterator[str]:
    """Takes connections and never says a word: a manager that was stopped with SIGSTOP."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def second() -> Iterator[FakeControl]:
    server = FakeControl()
    server.start()
    try:
        yield server
    finally:
        server.stop()


def cluster_of(context: Context, patience: float = 3.0) -> Cluster:
    return Cluster(lambda: ("test", context), patience=patience)


def ls(cluster: Cluster) -> control.ListServicesResponse:
    return cluster.read(lambda stub: stub.ListServices, control.ListRequest())


def create(cluster: Cluster) -> control.ServiceResponse:
    request = control.CreateServiceRequest()
    request.spec.name = "web"
    request.spec.task.container.image = "web"
    return cluster.change(lambda stub: stub.CreateService, request)


def test_the_name_is_that_of_the_certificates() -> None:
    assert client.SERVER_NAME == tls.SERVER_NAME


def test_nobody_answers(cluster: FakeControl) -> None:
    addresses = [closed_port(), closed_port()]
    with pytest.raises(ClusterUnreachable) as raised:
        ls(cluster_of(cluster.context(*addresses), patience=1.0))
    sentence = str(raised.value)
    assert "context 'test'" in sentence and all(address in sentence for address in addresses)
    assert "connection refused" in sentence and "--context" in sentence


def test_the_first_that_answers_serves(cluster: FakeControl, deaf: str) -> None:
    for before in (closed_port(), deaf):
        it = cluster_of(cluster.context(before, cluster.address))
        assert len(ls(it).services) == 0
        it.close()


def test_a_name_that_does_not_resolve(cluster: FakeControl) -> None:
    with pytest.raises(ClusterUnreachable, match="cannot be resolved"):
        ls(cluster_of(cluster.context("nowhere.invalid:2377"), patience=0.5))


def test_another_clusters_manager(cluster: FakeControl) -> None:
    other = tls.Authority.create().issue(common_name="x", role="client")
    stranger = Context((cluster.address,), other.ca_pem.decode(), other.cert_pem.decode(), other.key_pem.decode())
    with pytest.raises(ClusterUnreachable, match="does not have a certificate of the cluster"):
        ls(cluster_of(stranger, patience=1.0))


def test_a_certificate_that_the_manager_does_not_trust(cluster: FakeControl) -> None:
    other = tls.Authority.create().issue(common_name="x", role="client")
    stranger = Context((cluster.address,), cluster.context().ca, other.cert_pem.decode(), other.key_pem.decode())
    with pytest.raises(ClusterUnreachable, match="may not trust this context's certificate"):
        ls(cluster_of(stranger, patience=1.0))


def test_certificates_that_are_none(run: Run, cluster: FakeControl) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
    contexts.save("broken", Context((cluster.address,), pem, pem, pem))
    result = run("--context", "broken", "service", "ls")
    assert result.exit_code == 1
    assert "the certificates of context 'broken' cannot be read" in result.stderr


def test_no_leader_for_a_moment(cluster: FakeControl) -> None:
    cluster.failures["ListServices"] = [(UNAVAILABLE, "No manager leads at the moment: try again.")] * 3
    assert len(ls(cluster_of(cluster.context())).services) == 0
    assert len(cluster.calls["ListServices"]) == 4


def test_no_leader_for_too_long(cluster: FakeControl) -> None:
    cluster.failures["ListServices"] = [(UNAVAILABLE, "No manager leads at the moment: try again.")] * 99
    with pytest.raises(ClusterUnreachable, match="cannot serve this now: No manager leads"):
        ls(cluster_of(cluster.context(), patience=1.0))


def test_what_a_manager_said_outlives_its_silence(cluster: FakeControl) -> None:
    """It says why it cannot serve, and then nothing: the patience is over in the middle of the next dial."""
    over = threading.Event()

    def silent(method: str) -> None:
        if method == "GetInfo" and cluster.calls["ListServices"]:
            over.wait(30)

    cluster.on_call = silent
    cluster.failures["ListServices"] = [(UNAVAILABLE, "No manager leads at the moment: try again.")] * 99
    try:
        with pytest.raises(ClusterUnreachable, match="cannot serve this now: No manager leads"):
            ls(cluster_of(cluster.context()))
    finally:
        over.set()


def test_another_manager_is_asked_when_one_cannot_serve(cluster: FakeControl, second: FakeControl) -> None:
    cluster.failures["ListServices"] = [(UNAVAILABLE, "etcd cannot be reached at x (Socket closed): wait.")] * 99
    second.services["x"] = pb.Service(id="x")
    assert len(ls(cluster_of(cluster.context(cluster.address, second.address))).services) == 1


def test_a_change_is_tried_again_when_the_manager_says_that_it_did_nothing(cluster: FakeControl) -> None:
    cluster.failures["CreateService"] = [(UNAVAILABLE, "This manager has just stopped leading: try the next one.")]
    assert create(cluster_of(cluster.context())).service.spec.name == "web"


def test_a_change_whose_answer_is_lost_is_not_tried_again(cluster: FakeControl) -> None:
    cluster.failures["CreateService"] = [(UNAVAILABLE, "Socket closed")]
    with pytest.raises(errors.OutcomeUnknown, match="may or may not have been made"):
        create(cluster_of(cluster.context()))
    assert len(cluster.calls["CreateService"]) == 1


def test_deploy_is_done_again_when_the_answer_is_lost(run: Run, cluster: FakeControl) -> None:
    cluster.failures["CreateService"] = [(UNAVAILABLE, "Socket closed")]
    assert run("service", "deploy", "web", "web:v1").exit_code == 0
    assert len(cluster.calls["CreateService"]) == 2


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (grpc.StatusCode.NOT_FOUND, errors.NotFound, "There is no such thing."),
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidInput, "There is no such thing."),
        (grpc.StatusCode.ALREADY_EXISTS, errors.AlreadyExists, "There is no such thing."),
        (grpc.StatusCode.FAILED_PRECONDITION, errors.PreconditionFailed, "There is no such thing."),
        (grpc.StatusCode.ABORTED, errors.Conflict, "There is no such thing."),
        (grpc.StatusCode.UNKNOWN, errors.OutcomeUnknown, "There is no such thing."),
        (grpc.StatusCode.INTERNAL, errors.PyswarmError, "There is no such thing."),
        (grpc.StatusCode.PERMISSION_DENIED, errors.PreconditionFailed, "There is no such thing."),
        (grpc.StatusCode.UNIMPLEMENTED, errors.PyswarmError, "of another version"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.PyswarmError, "too large"),
        (grpc.StatusCode.DATA_LOSS, errors.PyswarmError, "data_loss"),
    ],
)
def test_every_code_is_translated(
    run: Run, cluster: FakeControl, code: grpc.StatusCode, kind: type[errors.PyswarmError], words: str
) -> None:
    cluster.failures["ListServices"] = [(code, "There is no such thing.")]
    with pytest.raises(kind, match=words):
        ls(cluster_of(cluster.context()))
    cluster.failures["ListServices"] = [(code, "There is no such thing.")]
    assert run("service", "ls").exit_code == 1


def test_a_rollout_is_followed_through_the_loss_of_its_manager(run: Run, cluster: FakeControl) -> None:
    """The manager is gone in the middle of the stream, and comes back at the same address."""
    port = cluster.port
    first = threading.Event()

    def script(service: pb.Service, rollout: pb.Rollout) -> Iterator[control.RolloutView]:
        if not first.is_set():
            yield fake.view(service, rollout, [])
            first.set()
            time.sleep(5)
        yield from fake.converges(service, rollout)

    def restart() -> None:
        first.wait(10)
        cluster.stop()
        time.sleep(1)
        cluster.start(port)

    cluster.script = script
    restarter = threading.Thread(target=restart)
    restarter.start()
    result = run("service", "deploy", "web", "web:v1")
    restarter.join()
    assert result.exit_code == 0, result.output
    assert "does not answer; the rollout goes on" in result.stderr or "converged" in result.stderr


def test_followed_logs_go_on_where_they_were(run: Run, cluster: FakeControl) -> None:
    from pyswarm_core.v1 import dispatcher_pb2 as wire

    cluster.services["web-id"] = pb.Service(id="web-id")
    cluster.services["web-id"].spec.name = "web"

    def line(number: int) -> wire.LogLine:
        return wire.LogLine(task_id="t", at=float(number), line=b"%d" % number)

    cluster.logs = [control.LogsResponse(lines=[line(1), line(2)])]
    cluster.failures_after["Logs"] = [(UNAVAILABLE, "Socket closed")]

    def second_time(method: str) -> None:
        if method == "Logs" and len(cluster.calls["Logs"]) == 2:
            cluster.logs = [control.LogsResponse(lines=[line(2), line(3)])]

    cluster.on_call = second_time
    assert run("service", "logs", "-f", "--raw", "web").stdout.split() == ["1", "2", "3"]
    assert cluster.calls["Logs"][1].since == 2.0


async def test_a_manager_that_falls_silent_is_left(cluster: FakeControl) -> None:
    """Its host is cut off, or it is stopped: no connection breaks, and nothing comes any more."""
    relay = Relay(cluster.address)
    await relay.start()
    over = threading.Event()

    def script(service: pb.Service, rollout: pb.Rollout) -> Iterator[control.RolloutView]:
        if len(cluster.calls["WatchRollout"]) > 1:
            yield from fake.converges(service, rollout)
            return
        yield fake.view(service, rollout, [])
        over.wait(60)

    cluster.script = script
    contexts.save("test", cluster.context(relay.endpoint, cluster.address))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pyswarm_cli", "service", "deploy", "web", "web:v1"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        assert b"overall progress" in await process.stderr.readline()
        assert relay.connections == 1
        relay.freeze()
        _, said = await asyncio.wait_for(process.communicate(), 40)
        assert process.returncode == 0, said
        assert b"does not answer; the rollout goes on" in said
    finally:
        over.set()
        if process.returncode is None:
            process.kill()
            await process.wait()
        await relay.cut()
