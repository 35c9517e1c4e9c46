"""The server dies at any instant and comes back: nothing acknowledged is lost, and containers never notice."""

import os
import re
import signal
import threading

import pytest

from support import server
from support.aws import Cloud, address, task_id
from support.host import find_process
from support.waiting import until

COUNTER = "i=0; while :; do echo n=$i; i=$((i+1)); sleep 0.02; done; : {marker}"
ENDS_WHEN_TOLD = "trap 'exit 7' TERM; echo up; while :; do sleep 0.05; done; : {marker}"


@pytest.fixture(scope="module")
def own(load):
    """A server that may be killed, with one cluster."""
    with server.running() as started:
        load(started)
        cloud = Cloud(started)
        cloud.cluster("restart")
        yield cloud


@pytest.fixture(autouse=True)
def empty(own):
    if own.server.process is None:
        own.server.start()
    yield
    if own.server.process is None:
        own.server.start()
    own.stop_all("restart")


def script(text, marker):
    """A shell whose process can be told from all others."""
    return {"command": ["sh", "-c", text.format(marker=marker), marker], "stopTimeout": 2}


def numbers(lines):
    return [int(match[1]) for match in (re.fullmatch(r"n=(\d+)", line) for line in lines) if match]


def test_containers_never_notice(own, name):
    task = own.run_one("restart", own.register(name, script(COUNTER, name)))
    process = find_process(name)
    stream = f"test/main/{task_id(task['taskArn'])}"
    own.until_line(f"/ecs/{name}", stream, "n=10")
    own.server.kill()
    assert process.alive()
    own.server.start()
    assert process.alive(), "the container that runs after the restart is the one of before"
    again = own.until_running("restart", task["taskArn"])
    for field in ("startedAt", "createdAt", "taskDefinitionArn", "attachments"):
        assert again[field] == task[field]
    assert find_process(name).pid == process.pid


def test_log_lines_are_neither_lost_nor_doubled(own, name):
    task = own.run_one("restart", own.register(name, script(COUNTER, name)))
    stream = f"test/main/{task_id(task['taskArn'])}"
    for _ in range(3):
        seen = len(own.until_line(f"/ecs/{name}", stream, "n=10"))
        own.server.kill()
        own.server.start()
        own.until_line(f"/ecs/{name}", stream, f"n={seen + 50}")
    found = numbers(own.lines(f"/ecs/{name}", stream))
    assert found == list(range(len(found)))


def test_what_ended_meanwhile_is_reported(own, name):
    task = own.run_one("restart", own.register(name, script(ENDS_WHEN_TOLD, name)))
    own.until_line(f"/ecs/{name}", f"test/main/{task_id(task['taskArn'])}", "up")
    process = find_process(name)
    own.server.kill()
    os.kill(process.pid, signal.SIGTERM)
    until("the container's end", lambda: not process.alive())
    own.server.start()
    stopped = own.until_stopped("restart", task["taskArn"])
    assert stopped["containers"][0]["exitCode"] == 7
    assert stopped["stopCode"] == "EssentialContainerExited"
    assert stopped["stoppedReason"] == "Essential container in task exited"


def test_sigterm_leaves_containers_running(own, name):
    task = own.run_one("restart", own.register(name, script(COUNTER, name)))
    process = find_process(name)
    assert own.server.stop() == 0
    assert process.alive()
    own.server.start()
    assert own.task("restart", task["taskArn"])["lastStatus"] == "RUNNING"
    own.ecs.stop_task(cluster="restart", task=task["taskArn"])
    own.until_stopped("restart", task["taskArn"])
    assert not process.alive()


def test_a_stop_that_was_acknowledged_is_carried_out(own, name):
    task = own.run_one("restart", own.register(name, script(COUNTER, name)))
    process = find_process(name)
    own.ecs.stop_task(cluster="restart", task=task["taskArn"], reason="before the crash")
    own.server.kill()
    own.server.start()
    stopped = own.until_stopped("restart", task["taskArn"])
    assert stopped["stoppedReason"] == "before the crash"
    assert not process.alive()


def test_a_task_that_was_acknowledged_runs(own, name):
    arns = own.run("restart", own.register(name, script(COUNTER, name)), count=3)
    own.server.kill()
    own.server.start()
    tasks = [own.until_running("restart", arn) for arn in arns]
    assert len({address(task) for task in tasks}) == 3


def test_no_acknowledged_record_is_lost(own, name):
    """Writers write until the server is killed under them, three times over."""
    acknowledged = []

    def write(writer, round_number):
        client = own.client("ecs")
        for i in range(10_000):
            cluster = f"{name}-{round_number}-{writer}-{i}"
            try:
                client.create_cluster(clusterName=cluster)
            except Exception:  # the server is gone: whatever that looks like to the client
                return
            acknowledged.append(cluster)

    for round_number in range(3):
        before = len(acknowledged)
        writers = [threading.Thread(target=write, args=(writer, round_number)) for writer in range(4)]
        for writer in writers:
            writer.start()
        until("writes are acknowledged", lambda: len(acknowledged) >= before + 50, every=0.005)
        own.server.kill()
        for writer in writers:
            writer.join()
        own.server.start()
    pages = own.ecs.get_paginator("list_clusters").paginate()
    listed = {arn.rpartition("/")[2] for page in pages for arn in page["clusterArns"]}
    assert set(acknowledged) <= listed


def test_the_key_and_the_address_stay(own):
    before = own.server.exports()
    own.server.kill()
    own.server.start()
    assert own.server.exports() == before
    assert own.aws("sts", "get-caller-identity")["Account"] == "123456789012"
