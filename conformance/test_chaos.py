"""Seeded chaos: servers and containerd are killed while tasks come and go. In the end every acknowledged task is
there once, or has ended with a reason, and nothing is used by two."""

import os
import random
import signal

import pytest

from support import server
from support.aws import Cloud, address, idle
from support.host import PROC, command_line, find_processes
from support.waiting import until

STEPS = 20
CLUSTER = "chaos"


@pytest.fixture(params=[1, 2, 3], ids=lambda seed: f"seed-{seed}")
def chaos(load, request):
    flags = ["--instances", "2", "--container-instances", "1", "--cluster", CLUSTER]
    with server.running(*flags) as started:
        load(started, "busybox:latest")
        yield Chaos(Cloud(started), request.param)


class Chaos:
    def __init__(self, cloud, seed):
        self.cloud, self.seed, self.random = cloud, seed, random.Random(seed)
        # Acknowledged tasks by the argument that marks their process.
        self.tasks = {}
        self.stopped = set()
        self.fargate = cloud.register("chaos-fargate", {"command": idle()})
        container = {"name": "main", "image": "busybox:latest", "memory": 32, "command": idle()}
        cloud.ecs.register_task_definition(family="chaos-ec2", networkMode="host", containerDefinitions=[container])

    def run(self):
        for _ in range(self.random.randint(1, 3)):
            marker = f"chaos-{self.seed}-{len(self.tasks)}"
            override = {"containerOverrides": [{"name": "main", "command": idle(marker)}]}
            settings = {"cluster": CLUSTER, "overrides": override}
            if self.random.random() < 0.3:
                answer = self.cloud.ecs.run_task(taskDefinition="chaos-ec2", **settings)
            else:
                settings |= {"launchType": "FARGATE", "networkConfiguration": self.cloud.network()}
                answer = self.cloud.ecs.run_task(taskDefinition=self.fargate, **settings)
            # An instance whose agent has not come back yet takes no tasks; that is no loss.
            for task in answer["tasks"]:
                self.tasks[marker] = task["taskArn"]

    def stop(self):
        running = sorted(set(self.tasks) - self.stopped)
        if running:
            marker = self.random.choice(running)
            self.cloud.ecs.stop_task(cluster=CLUSTER, task=self.tasks[marker])
            self.stopped.add(marker)

    def kill_server(self):
        self.cloud.server.kill()
        self.cloud.server.start()

    def kill_containerd(self):
        # One that was just killed is on its way back.
        for pid in until("containerd runs", lambda: containerds(self.cloud.server)):
            os.kill(pid, signal.SIGKILL)

    def kill_process(self):
        """A container that dies by itself: its task ends."""
        running = sorted(set(self.tasks) - self.stopped)
        marker = self.random.choice(running) if running else None
        for process in find_processes(marker) if marker else []:
            os.kill(process.pid, signal.SIGKILL)
            self.stopped.add(marker)

    def step(self):
        steps = [self.run, self.run, self.run, self.stop, self.kill_server, self.kill_containerd, self.kill_process]
        self.random.choice(steps)()

    def settled(self):
        """Every task is where it was last wanted, with one process if it runs and none if not."""
        for marker, arn in self.tasks.items():
            task = self.cloud.task(CLUSTER, arn)
            ended = task["lastStatus"] == "STOPPED"
            # A containerd that is killed while it makes a container can keep the task from starting, and says so.
            may_end = marker in self.stopped or task.get("stopCode") == "TaskFailedToStart"
            if ended and not may_end or not ended and (marker in self.stopped or task["lastStatus"] != "RUNNING"):
                return None
            if len(find_processes(marker)) != (not ended):
                return None
        return True


def containerds(of):
    """The processes of a server's own containerd; shims have another name."""
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                words = command_line(entry).split()
            except OSError:
                continue
            if words and words[0].endswith("containerd") and any(str(of.data_dir) in word for word in words):
                found.append(int(entry.name))
    return found


def test_nothing_is_lost_or_done_twice(chaos):
    chaos.run()
    for _ in range(STEPS):
        chaos.step()
    assert chaos.tasks, "the seed ran no task"
    until("every task is where it was last wanted", chaos.settled)
    tasks = [chaos.cloud.task(CLUSTER, arn) for arn in chaos.tasks.values()]
    running = [task for task in tasks if task["lastStatus"] == "RUNNING"]
    addresses = [address(task) for task in running if task["launchType"] == "FARGATE"]
    assert len(set(addresses)) == len(addresses)
    for task in tasks:
        if task["lastStatus"] == "STOPPED":
            assert task["stopCode"] and task["stoppedReason"]
    # What has ended has given back what it held.
    used = chaos.cloud.ec2.describe_network_interfaces()["NetworkInterfaces"]
    assert len(used) == len(addresses)
