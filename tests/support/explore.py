"""Random histories of a cluster: what a user, agents, nodes, acknowledgements and the leader may do in any order."""

from __future__ import annotations

from collections.abc import Callable

from pyswarm_core.v1 import objects_pb2 as pb
from pyswarm_core.v1 import spec_pb2 as spec
from pyswarm_manager.plan import changed
from pyswarm_manager.tasks import is_terminal, may_be_exclusive
from tests.support import build
from tests.support.cluster import Cluster

Step = tuple[str, int]


class Explorer:
    """`is_global`, `order`, `parallelism` hold for the whole history; images, replicas and faults come and go.

    `real`: with the real scheduler and allocator."""

    def __init__(
        self,
        *,
        is_global: bool = False,
        order: spec.UpdateOrder.ValueType = spec.UPDATE_ORDER_START_FIRST,
        action: spec.FailureAction.ValueType = spec.FAILURE_ACTION_ROLLBACK,
        parallelism: int = 1,
        delay: float = 0,
        host_port: bool = False,
        real: bool = False,
        deadline: float = 120,
        exclusive: bool = False,
    ) -> None:
        self.cluster = Cluster(seed=1, nodes=4, real=real)
        self.is_global, self.order, self.action = is_global, order, action
        self.parallelism, self.delay, self.host_port = parallelism, delay, host_port
        self.deadline, self.exclusive = deadline, exclusive
        self.replicas, self.image = 3, "v0-good"
        self.versions = 0
        self.deploy()

    ACTIONS: dict[str, Callable[[Explorer, int], None]] = {}

    def step(self, step: Step) -> None:
        name, number = step
        self.ACTIONS[name](self, number)
        self.cluster.world.check_untouched()
        if self.exclusive:
            self.check_exclusive()

    # what may happen

    def deploy(self) -> None:
        policy = build.policy(
            parallelism=self.parallelism, delay=self.delay, order=self.order, action=self.action, deadline=self.deadline
        )
        task = build.task_spec(self.image, constraints=("node.labels.zone!=nowhere",))
        if self.host_port:
            task.host_ports.add(target=80, published=8080, mode=spec.PUBLISH_MODE_HOST)
        task.exclusive = self.exclusive
        mode = spec.SERVICE_MODE_GLOBAL if self.is_global else spec.SERVICE_MODE_REPLICATED
        wanted = build.service_spec(mode=mode, task=task, update=policy, rollback=policy)
        wanted.replicas = 0 if self.is_global else self.replicas
        self.cluster.deploy(wanted)

    def update(self, number: int) -> None:
        self.versions += 1
        kind = ("good", "good", "good", "crashes", "hangs", "unknown")[number % 6]
        self.image = f"v{self.versions}-{kind}"
        if number >= 32:
            self.replicas = number % 5
        self.deploy()

    def scale(self, number: int) -> None:
        self.image = self.cluster.service.spec.task.container.image
        self.replicas = number % 7
        self.deploy()

    def converge(self, number: int) -> None:
        """As the loop does: again, as long as there was something to write."""
        for _ in range(6):
            if not self.cluster.converge():
                break
        else:
            raise AssertionError(f"converge does not come to rest: {self.cluster.story()}")
        self.check_surge()

    def converge_partly(self, number: int) -> None:
        self.cluster.converge(steps=number % 3)

    def schedule(self, number: int) -> None:
        self.cluster.schedule()

    def drain(self, number: int) -> None:
        self.cluster.drain()

    def drain_partly(self, number: int) -> None:
        self.cluster.drain(steps=1)

    def agent(self, number: int) -> None:
        tasks = [t.id for t in self.cluster.world.tasks.values() if not is_terminal(t)]
        for step in range(len(tasks)):
            if self.cluster.agent(tasks[(number + step) % len(tasks)]):
                return

    def agents(self, number: int) -> None:
        for task_id in list(self.cluster.world.tasks):
            self.cluster.agent(task_id)

    def acknowledge(self, number: int) -> None:
        """Somewhere between what the node had and now."""
        node = self.node(number)
        have, now = self.cluster.acks.applied(node), self.cluster.world.revision
        self.cluster.acknowledge(node, min(now, have + 1 + number % 9))

    def acknowledge_all(self, number: int) -> None:
        self.cluster.acknowledge_all()

    def tick(self, number: int) -> None:
        self.cluster.now += (0.1, 1, 5, 30)[number % 4]

    def fail(self, number: int) -> None:
        if task := self.task(number):
            self.cluster.fail(task, (pb.TASK_STATE_FAILED, pb.TASK_STATE_COMPLETE)[number % 2])

    def sicken(self, number: int) -> None:
        if task := self.task(number):
            self.cluster.set_health(task, pb.HEALTH_UNHEALTHY)

    def cure(self, number: int) -> None:
        if task := self.task(number):
            self.cluster.set_health(task, pb.HEALTH_HEALTHY)

    def cut(self, number: int) -> None:
        self.cluster.cut_node(self.node(number))

    def heal(self, number: int) -> None:
        if self.node(number) in self.cluster.cut:
            self.cluster.heal_node(self.node(number))

    def end_permit(self, number: int) -> None:
        if self.node(number) in self.cluster.cut:
            self.cluster.end_permit(self.node(number))

    def remove_node(self, number: int) -> None:
        node = self.node(number)
        refused = any(map(may_be_exclusive, self.cluster.world.tasks_of_node(node)))  # by the admission
        if len(self.cluster.world.nodes) > 2 and not refused:
            self.cluster.remove_node(node)

    def drain_node(self, number: int) -> None:
        self.cluster.set_availability(self.node(number), spec.NODE_AVAILABILITY_DRAIN)

    def pause_node(self, number: int) -> None:
        self.cluster.set_availability(self.node(number), spec.NODE_AVAILABILITY_PAUSE)

    def activate_node(self, number: int) -> None:
        self.cluster.set_availability(self.node(number), spec.NODE_AVAILABILITY_ACTIVE)

    def relabel(self, number: int) -> None:
        node = changed(self.cluster.world.nodes[self.node(number)])
        node.spec.labels["zone"] = ("a", "nowhere")[number % 2]
        self.cluster.world.put(node)

    def node(self, number: int) -> str:
        nodes = sorted(self.cluster.world.nodes)
        return nodes[number % len(nodes)]

    def task(self, number: int) -> str | None:
        tasks = sorted(t.id for t in self.cluster.living())
        return tasks[number % len(tasks)] if tasks else None

    # what must hold

    def size(self) -> int:
        """How many tasks there should be."""
        if not self.is_global:
            return self.cluster.service.spec.replicas
        return sum(
            n.spec.availability != spec.NODE_AVAILABILITY_DRAIN and n.spec.labels["zone"] != "nowhere"
            for n in self.cluster.world.nodes.values()
        )

    def check_surge(self) -> None:
        surge = self.parallelism or self.size()
        wanted = self.cluster.wanted()
        assert len(wanted) <= self.size() + surge, self.cluster.story()

    def check_exclusive(self) -> None:
        """Of containers, wherever they are and whoever knows: one a slot."""
        slots = [self.cluster.world.tasks[task_id].slot for task_id in self.cluster.running]
        assert len(slots) == len(set(slots)), f"two run in one slot: {self.cluster.running} {self.cluster.story()}"

    def calm_down(self) -> None:
        """All faults end."""
        cluster = self.cluster
        for node in sorted(cluster.cut):
            cluster.converge()  # what was given up is stored as such
            cluster.heal_node(node)
        for node in sorted(cluster.world.nodes):
            cluster.set_availability(node, spec.NODE_AVAILABILITY_ACTIVE)
            out = changed(cluster.world.nodes[node])
            out.spec.labels["zone"] = "a"
            cluster.world.put(out)
        for task in cluster.living():
            cluster.set_health(task.id, pb.HEALTH_HEALTHY)

    def finish(self) -> None:
        """Faults end, and in bounded time everything is as it was asked for."""
        self.calm_down()
        cluster = self.cluster
        cluster.settle(rounds=1500, until=4000)
        story = cluster.story()
        rollout, service = cluster.rollout, cluster.service
        if self.host_port and self.size() > len(cluster.world.nodes):
            return  # more than there is room for
        assert rollout.finished_at > 0, story
        if rollout.state == pb.ROLLOUT_STATE_PAUSED or not service.spec.task.container.image.endswith("good"):
            return
        assert len(cluster.serving()) == self.size(), story
        assert len(cluster.living()) == self.size(), story
        assert all(t.spec == service.spec.task and t.balanced_at for t in cluster.serving()), story
        assert len({(t.slot, self.is_global and t.node_id) for t in cluster.serving()}) == self.size(), story
        cluster.now += 1000
        assert not cluster.round(), story


Explorer.ACTIONS = {
    name: getattr(Explorer, name)
    for name in [
        "update",
        "scale",
        "converge",
        "converge_partly",
        "schedule",
        "drain",
        "drain_partly",
        "agent",
        "agents",
        "acknowledge",
        "acknowledge_all",
        "tick",
        "fail",
        "sicken",
        "cure",
        "cut",
        "heal",
        "remove_node",
        "end_permit",
        "drain_node",
        "pause_node",
        "activate_node",
        "relabel",
    ]
}

# Those that make things go on come more often.
WORK = ("converge", "schedule", "drain", "agent", "agents", "acknowledge", "acknowledge_all", "tick")
PARTLY = ("converge_partly", "drain_partly")
USER = ("update", "scale")
FAULTS = (
    "fail",
    "sicken",
    "cure",
    "cut",
    "heal",
    "drain_node",
    "pause_node",
    "activate_node",
    "relabel",
    "remove_node",
)
