"""deploy, create, update, scale, rollback and rm, against a fake manager over real TLS: what they start from, what they
send, and what they print."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from tests.support.cli import Run
from tests.support.fake_control import FakeControl

from pyswarm_cli.registry import auths
from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec

IMAGE = "registry.lab:5000/web:v1"
COMPOSE = """
services:
  web:
    image: registry.lab:5000/web:file
    environment: {FROM: file}
    deploy: {replicas: 2}
"""


RECEIPT_LINE = (
    "receipt: 3 tasks started, 3 replaced in 2.5s, 0 failures, 0 connections opened after leaving, 0 open at stop, "
    "0 resets"
)


pytestmark = pytest.mark.usefixtures("folder")


def sent(cluster: FakeControl) -> spec.ServiceSpec:
    """The spec of the last update."""
    found: spec.ServiceSpec = cluster.calls["UpdateService"][-1].spec
    return found


def test_progress_goes_to_stderr_and_the_result_to_stdout(run: Run, cluster: FakeControl) -> None:
    result = run("service", "deploy", "web", IMAGE, "--replicas", "3", "-p", "8080:80")
    assert result.exit_code == 0
    assert result.stdout == "web\n"
    bar = "[" + "=" * 50 + ">]"
    assert result.stderr.splitlines()[-7:] == [
        "overall progress: 3 out of 3 tasks",
        f"web.1: running   {bar}",
        f"web.2: running   {bar}",
        f"web.3: running   {bar}",
        "verify: waiting until all tasks have been stable for 5s",
        "verify: service web converged",
        RECEIPT_LINE,
    ]
    assert "\x1b" not in result.output


def test_quiet_and_detached(run: Run, cluster: FakeControl) -> None:
    assert run("service", "deploy", "a", IMAGE, "-q").stderr == ""
    assert run("service", "deploy", "b", IMAGE, "--detach").stderr == ""
    assert len(cluster.calls["WatchRollout"]) == 1


# what deploy starts from


def test_an_image_makes_a_service(run: Run, cluster: FakeControl) -> None:
    run("service", "deploy", "web", IMAGE, "--", "sleep", "-x", "5")
    wanted = cluster.calls["CreateService"][0].spec
    assert wanted.task.container.image == IMAGE
    assert list(wanted.task.container.args) == ["sleep", "-x", "5"]
    assert wanted.replicas == 1


def test_an_image_changes_the_running_service(run: Run, running: FakeControl) -> None:
    result = run("service", "deploy", "web", "registry.lab:5000/web:v2")
    assert result.exit_code == 0
    assert sent(running).task.container.image == "registry.lab:5000/web:v2"
    assert sent(running).replicas == 3 and list(sent(running).task.container.env) == ["A=1"]
    assert running.calls["UpdateService"][0].resolve_image


def test_flags_alone_change_the_running_service(run: Run, running: FakeControl) -> None:
    assert run("service", "deploy", "web", "--replicas", "5").exit_code == 0
    assert sent(running).replicas == 5
    assert sent(running).task.container.image == IMAGE
    assert not running.calls["UpdateService"][0].resolve_image


def test_arguments_without_an_image(run: Run, running: FakeControl) -> None:
    run("service", "deploy", "web", "--", "serve", "--port", "80")
    assert list(sent(running).task.container.args) == ["serve", "--port", "80"]
    assert sent(running).task.container.image == IMAGE
    run("service", "deploy", "web", "--")
    assert not sent(running).task.container.args


def test_the_compose_file_is_the_whole_spec(run: Run, running: FakeControl, folder: Path) -> None:
    (folder / "compose.yaml").write_text(COMPOSE)
    assert run("service", "deploy", "web", "--replicas", "4").exit_code == 0
    assert list(sent(running).task.container.env) == ["FROM=file"]
    assert sent(running).task.container.image == "registry.lab:5000/web:file"
    assert sent(running).replicas == 4
    assert running.calls["UpdateService"][0].resolve_image


def test_the_compose_file_makes_a_service(run: Run, cluster: FakeControl, folder: Path) -> None:
    (folder / "compose.yaml").write_text(COMPOSE)
    assert run("service", "deploy", "web").exit_code == 0
    assert cluster.calls["CreateService"][0].spec.replicas == 2


def test_a_variable_that_is_not_set_is_warned_of(run: Run, cluster: FakeControl, folder: Path) -> None:
    (folder / "compose.yaml").write_text("services:\n  web:\n    image: a\n    user: ${NOBODY_SET_THIS}\n")
    said = run("service", "deploy", "web", "-q").stderr
    assert said == "warning: compose.yaml:4: the variable NOBODY_SET_THIS is not set, and counts as empty\n"


def test_an_image_ignores_the_compose_file(run: Run, running: FakeControl, folder: Path) -> None:
    (folder / "compose.yaml").write_text("this: is not even one")
    assert run("service", "deploy", "web", "registry.lab:5000/web:v2").exit_code == 0
    assert list(sent(running).task.container.env) == ["A=1"]


def test_an_image_and_a_file_that_is_named(run: Run, running: FakeControl, folder: Path) -> None:
    (folder / "other.yaml").write_text(COMPOSE)
    assert run("service", "deploy", "web", IMAGE, "-f", "other.yaml").exit_code == 0
    assert sent(running).task.container.image == IMAGE
    assert list(sent(running).task.container.env) == ["FROM=file"]


def test_a_file_without_the_service_leads_to_the_running_one(run: Run, running: FakeControl, folder: Path) -> None:
    (folder / "compose.yaml").write_text("services: {api: {image: api}}")
    assert run("service", "deploy", "web", "--replicas", "2").exit_code == 0
    assert sent(running).task.container.image == IMAGE


def test_nothing_to_start_from(run: Run, cluster: FakeControl, folder: Path) -> None:
    result = run("service", "deploy", "web")
    assert result.exit_code == 1
    assert "there is no compose.yaml here" in result.stderr and "service deploy web IMAGE" in result.stderr
    (folder / "docker-compose.yml").write_text(COMPOSE)
    assert "would be read with -f docker-compose.yml" in run("service", "deploy", "web").stderr
    (folder / "compose.yaml").write_text("services: {api: {image: api}, db: {image: db}}")
    assert "compose.yaml has api, db" in run("service", "deploy", "web").stderr
    assert not cluster.calls["CreateService"]


def test_force_survives_the_compose_file(run: Run, running: FakeControl, folder: Path) -> None:
    run("service", "update", "web", "--force")
    (folder / "compose.yaml").write_text(COMPOSE)
    run("service", "deploy", "web")
    assert sent(running).task.force == 1


def test_files_that_are_wrong_end_it_with_1(run: Run, cluster: FakeControl, folder: Path) -> None:
    (folder / "compose.yaml").write_text("services:\n  web:\n    image: a\n    replica: 3\n")
    result = run("service", "deploy", "web")
    assert result.exit_code == 1
    assert "compose.yaml:4: services.web has an unknown key 'replica'" in result.stderr
    assert run("service", "deploy", "web", "-f", "nowhere.yaml").exit_code == 1
    assert run("service", "deploy", "web", IMAGE, "--env-file", "nowhere.env").exit_code == 1
    (folder / "bad.env").write_text("A=1\n=2\n")
    assert "bad.env:2:" in run("service", "deploy", "web", IMAGE, "--env-file", "bad.env").stderr
    assert not cluster.calls["CreateService"]


def test_networks_of_the_file_are_made(run: Run, cluster: FakeControl, folder: Path) -> None:
    networks = "networks: {front: {}, back: {external: true}, other: {}}\n"
    (folder / "compose.yaml").write_text(f"services: {{web: {{image: a, networks: [front, back]}}}}\n{networks}")
    cluster.networks["net-back"] = pb.Network(id="net-back", spec=spec.NetworkSpec(name="back"))
    assert run("service", "deploy", "web").exit_code == 0
    assert [call.spec.name for call in cluster.calls["CreateNetwork"]] == ["front"]
    assert run("service", "deploy", "web").exit_code == 0
    assert len(cluster.calls["CreateNetwork"]) == 1


def test_env_files_and_env(run: Run, cluster: FakeControl, folder: Path) -> None:
    (folder / "a.env").write_text("# c\nA=1\nB='quoted'\n\n")
    run("service", "deploy", "web", IMAGE, "--env-file", "a.env", "-e", "A=2")
    assert list(cluster.calls["CreateService"][0].spec.task.container.env) == ["A=2", "B='quoted'"]


def test_a_name_is_never_taken_for_a_prefix(run: Run, running: FakeControl) -> None:
    """`web-id` is the running service's id; a deploy of `w` makes another service."""
    assert run("service", "deploy", "w", IMAGE).exit_code == 0
    assert [call.spec.name for call in running.calls["CreateService"]] == ["web", "w"]


def test_somebody_else_was_faster(run: Run, running: FakeControl) -> None:
    running.failures["UpdateService"] = [(grpc.StatusCode.ABORTED, "Service web was changed meanwhile.")] * 2
    assert run("service", "deploy", "web", "--replicas", "4").exit_code == 0
    assert len(running.calls["UpdateService"]) == 3
    running.failures["UpdateService"] = [(grpc.StatusCode.ABORTED, "Service web was changed meanwhile.")] * 50
    assert run("service", "update", "web", "--replicas", "4").exit_code == 1


def test_a_former_service_of_that_name_is_waited_for(run: Run, running: FakeControl) -> None:
    running.services["web-id"].removing = True

    def gone_after_two(method: str) -> None:
        if method == "GetService" and len(running.calls[method]) > 3:
            running.services.clear()

    running.on_call = gone_after_two
    assert run("service", "deploy", "web", IMAGE).exit_code == 0
    assert len(running.calls["CreateService"]) == 2


def test_credentials_are_sent_only_when_asked(run: Run, cluster: FakeControl) -> None:
    result = run("service", "deploy", "web", IMAGE, "--with-registry-auth")
    assert result.exit_code == 1 and "registry login registry.lab:5000" in result.stderr
    auths.save("registry.lab:5000", "me", "secret")
    run("service", "deploy", "web", IMAGE)
    assert not cluster.calls["CreateService"][0].HasField("auth")
    result = run("service", "deploy", "web", IMAGE, "--with-registry-auth")
    assert cluster.calls["UpdateService"][0].auth == pb.RegistryAuth(
        host="registry.lab:5000", username="me", password="secret"
    )
    assert "secret" not in result.output


def test_warnings_are_shown_even_when_quiet(run: Run, cluster: FakeControl) -> None:
    cluster.warnings = ["image web:v9 could not be resolved"]
    assert "warning: image web:v9 could not be resolved" in run("service", "deploy", "web", IMAGE, "-q").stderr


# the other commands


def test_create(run: Run, cluster: FakeControl) -> None:
    result = run("service", "create", "--name", "web", "--replicas", "2", IMAGE, "serve", "--port", "80")
    assert result.exit_code == 0
    assert result.stdout == "web-id\n"
    wanted = cluster.calls["CreateService"][0].spec
    assert wanted.replicas == 2 and list(wanted.task.container.args) == ["serve", "--port", "80"]
    again = run("service", "create", "--name", "web", IMAGE)
    assert again.exit_code == 1 and "exists" in again.stderr
    named = run("service", "create", IMAGE)
    assert named.exit_code == 0 and named.stdout.startswith("web-")


def test_update(run: Run, running: FakeControl) -> None:
    result = run(
        *("service", "update", "web", "--image", "web:v2", "--args", "a 'b c'", "--env-add", "B=2", "--env-rm", "A"),
        *("--replicas", "4", "--force", "--detach=false"),
    )
    assert result.exit_code == 0 and result.stdout == "web\n"
    wanted = sent(running)
    assert wanted.task.container.image == "web:v2"
    assert list(wanted.task.container.args) == ["a", "b c"]
    assert list(wanted.task.container.env) == ["B=2"]
    assert wanted.replicas == 4 and wanted.task.force == 1
    assert running.calls["UpdateService"][0].version == 2


def test_update_of_networks_goes_by_id(run: Run, running: FakeControl) -> None:
    run("network", "create", "front")
    run("service", "update", "web", "--network-add", "front")
    assert "net-front" in [n.network_id for n in sent(running).task.networks]
    run("service", "update", "web", "--network-add", "name=front,alias=www")
    assert [list(n.aliases) for n in sent(running).task.networks if n.network_id == "net-front"] == [["www"]]
    run("service", "update", "web", "--network-rm", "front")
    assert "net-front" not in [n.network_id for n in sent(running).task.networks]


def test_rollback(run: Run, running: FakeControl) -> None:
    assert run("service", "rollback", "web").exit_code == 1
    run("service", "update", "web", "--replicas", "4")
    assert run("service", "rollback", "web").exit_code == 0
    run("service", "update", "web", "--replicas", "5")
    assert run("service", "update", "web", "--rollback").exit_code == 0
    assert len(running.calls["RollbackService"]) == 3


def test_scale(run: Run, running: FakeControl) -> None:
    run("service", "deploy", "api", IMAGE)
    result = run("service", "scale", "web=5", "api=2")
    assert result.exit_code == 0
    assert result.stdout == "web scaled to 5\napi scaled to 2\n"
    assert result.stderr.count("converged") == 2
    assert len(running.calls["ScaleServices"]) == 1
    assert run("service", "scale", "web=1", "nowhere=2").exit_code == 1


def test_rm_tries_all(run: Run, running: FakeControl) -> None:
    run("service", "deploy", "api", IMAGE)
    result = run("service", "rm", "nowhere", "web", "neither", "api")
    assert result.exit_code == 1
    assert result.stdout == "web\napi\n"
    assert "nowhere" in result.stderr and "neither" in result.stderr
    assert not running.services
