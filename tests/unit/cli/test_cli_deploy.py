"""deploy, create, update, scale, rollback, rm, watch and logs, against a fake manager over real TLS: what they start
from, what they send, what they print, and how they end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from tests.support import fake_control as fake
from tests.support.cli import Run
from tests.support.fake_control import FakeControl

from pyswarm_cli.registry import auths
from pyswarm_core.v1 import control_pb2 as control
from pyswarm_core.v1 import dispatcher_pb2 as wire
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


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command runs: without a Compose file."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def running(run: Run, cluster: FakeControl) -> FakeControl:
    """web:v1 runs, with 3 replicas and a variable."""
    assert run("service", "deploy", "web", IMAGE, "--replicas", "3", "-e", "A=1").exit_code == 0
    return cluster


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


# how it ends


def ends(state: pb.RolloutState.ValueType, **fields: object) -> Callable[[pb.Service, pb.Rollout], Iterator[object]]:
    """A rollout whose second task fails, and that then ends so."""

    def script(service: pb.Service, rollout: pb.Rollout) -> Iterator[control.RolloutView]:
        broken = fake.task(
            service,
            2,
            pb.TASK_STATE_FAILED,
            task_id="broken",
            error="exit code 3",
            last_lines=tuple(f"line {n}" for n in range(12)),
        )
        yield fake.view(service, rollout, [fake.task(service, 1), broken])
        last = fake.view(service, rollout, [fake.task(service, 1)], state, reason="task web.2 failed: exit code 3")
        last.rollout.failed_task_id = "broken"
        for name, value in fields.items():
            setattr(last.rollout, name, value)
        yield last

    return script


@pytest.mark.parametrize(
    ("state", "fields", "code", "words"),
    [
        (pb.ROLLOUT_STATE_ROLLED_BACK, {}, 2, "was rolled back to its previous spec: task web.2 failed"),
        (pb.ROLLOUT_STATE_PAUSED, {}, 3, "the rollout of service web is paused: task web.2 failed"),
        (pb.ROLLOUT_STATE_PAUSED, {"generation": 1}, 3, "the rollback of service web is paused"),
        (pb.ROLLOUT_STATE_ROLLED_BACK, {"deadline_passed": True}, 4, "was rolled back"),
        (pb.ROLLOUT_STATE_PAUSED, {"deadline_passed": True}, 4, "is paused"),
        (pb.ROLLOUT_STATE_COMPLETED, {"deadline_passed": True}, 4, "but late"),
        (pb.ROLLOUT_STATE_SUPERSEDED, {}, 1, "a newer change of service web took over"),
    ],
)
@pytest.mark.parametrize("quiet", [False, True])
def test_failures_end_with_the_reason_and_the_last_lines(
    run: Run, running: FakeControl, state: pb.RolloutState.ValueType, fields: dict[str, object], code: int, words: str,
    quiet: bool,
) -> None:  # fmt: skip
    running.script = ends(state, **fields)  # type: ignore[assignment]
    result = run("service", "update", "web", "--image", "web:v2", *(["--quiet"] if quiet else []))
    assert result.exit_code == code
    lines = result.stderr.splitlines()
    assert any(line.startswith("pyswarm: ") and words in line for line in lines)
    assert lines[-11:] == ["last lines of web.2 on host-1:", *(f"    line {n}" for n in range(2, 12))]
    assert quiet != any(line.startswith("receipt: ") for line in lines)


def test_the_failed_task_is_looked_up_when_it_was_not_seen(run: Run, running: FakeControl) -> None:
    def script(service: pb.Service, rollout: pb.Rollout) -> Iterator[control.RolloutView]:
        yield fake.view(service, rollout, [], pb.ROLLOUT_STATE_ROLLED_BACK, reason="x", failed_task_id="old")

    running.script = script
    service = running.services["web-id"]
    running.tasks = [fake.task(service, 1, pb.TASK_STATE_FAILED, task_id="old", error="boom", last_lines=("bye",))]
    assert run("service", "update", "web", "--force").stderr.splitlines()[-3:] == [
        "web.1: boom",
        "last lines of web.1 on host-1:",
        "    bye",
    ]


def test_a_deadline_tells_what_could_not_be_placed(run: Run, running: FakeControl) -> None:
    def script(service: pb.Service, rollout: pb.Rollout) -> Iterator[control.RolloutView]:
        waiting = fake.task(service, 1, pb.TASK_STATE_PENDING, message="no suitable node: 3 lack memory")
        yield fake.view(service, rollout, [waiting])
        yield fake.view(service, rollout, [], pb.ROLLOUT_STATE_PAUSED, deadline_passed=True, reason="too slow")

    running.script = script
    result = run("service", "deploy", "web", "--replicas", "1")
    assert result.exit_code == 4
    assert result.stderr.splitlines()[-1] == "web.1: no suitable node: 3 lack memory"
    assert "web.1: pending   [" in result.stderr


def test_of_several_the_first_failure_counts(run: Run, running: FakeControl) -> None:
    run("service", "deploy", "api", IMAGE)
    bad = ends(pb.ROLLOUT_STATE_PAUSED)

    def script(service: pb.Service, rollout: pb.Rollout) -> Iterator[control.RolloutView]:
        yield from bad(service, rollout) if service.spec.name == "web" else fake.converges(service, rollout)  # type: ignore[misc]

    running.script = script
    result = run("service", "scale", "web=2", "api=2")
    assert result.exit_code == 3
    assert "service api converged" in result.stderr


def test_watch_follows_what_goes_on(run: Run, running: FakeControl) -> None:
    running.script = ends(pb.ROLLOUT_STATE_ROLLED_BACK)  # type: ignore[assignment]
    assert run("service", "update", "web", "--force", "-d").exit_code == 0
    assert run("service", "watch", "web").exit_code == 2
    assert run("service", "watch", "nowhere").exit_code == 1


def test_a_service_that_is_removed_meanwhile(run: Run, running: FakeControl) -> None:

    def script(service: pb.Service, rollout: pb.Rollout) -> Iterator[control.RolloutView]:
        yield fake.view(service, rollout, [])
        running.services.clear()

    running.script = script
    result = run("service", "update", "web", "--force")
    assert result.exit_code == 1
    assert "was removed before the rollout had ended" in result.stderr


def test_a_stream_that_ends_early_is_opened_again(run: Run, running: FakeControl) -> None:
    def script(service: pb.Service, rollout: pb.Rollout) -> Iterator[control.RolloutView]:
        yield fake.view(service, rollout, [])
        if len(running.calls["WatchRollout"]) > 3:
            yield from fake.converges(service, rollout)

    running.script = script
    before = len(running.calls["WatchRollout"])
    assert run("service", "update", "web", "--force").exit_code == 0
    assert len(running.calls["WatchRollout"]) - before == 3


# logs


def lines(*texts: tuple[str, str, bool]) -> list[control.LogsResponse]:
    response = control.LogsResponse(
        sources=[
            control.LogSource(task_id="a" * 25, task_name="web.1", hostname="host-1"),
            control.LogSource(task_id="b" * 25, task_name="web.10", hostname="host-2"),
        ]
    )
    for number, (task, text, is_stderr) in enumerate(texts):
        response.lines.append(
            wire.LogLine(task_id=task * 25, at=1_700_000_000 + number, line=text.encode(), is_stderr=is_stderr)
        )
    return [response, control.LogsResponse(warnings=["host-3 is down: its tasks web.3 are missing"])]


def test_logs(run: Run, running: FakeControl) -> None:
    running.logs = lines(("a", "one", False), ("b", "two", True), ("a", "drei ä", False))
    result = run("service", "logs", "web")
    assert result.stdout == f"web.1.{'a' * 12}@host-1  | one\nweb.1.{'a' * 12}@host-1  | drei ä\n"
    assert result.stderr == (f"web.10.{'b' * 12}@host-2 | two\nwarning: host-3 is down: its tasks web.3 are missing\n")
    assert run("service", "logs", "--raw", "web").stdout == "one\ndrei ä\n"
    assert run("service", "logs", "--no-task-ids", "-t", "web").stdout.splitlines()[0] == (
        "2023-11-14T22:13:20.000000Z web.1@host-1  | one"
    )
    run("service", "logs", "--tail", "5", "--since", "2026-01-01T00:00:00Z", "-f", "web")
    request = running.calls["Logs"][-1]
    assert (request.tail, request.since, request.follow) == (5, 1767225600.0, True)
    run("service", "logs", "-n", "all", "web")
    assert running.calls["Logs"][-1].tail == -1


def test_since_is_relative_too(run: Run, running: FakeControl) -> None:
    import time

    run("service", "logs", "--since", "10m", "web")
    assert abs(running.calls["Logs"][-1].since - (time.time() - 600)) < 10
