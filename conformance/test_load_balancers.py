"""Services behind load balancers, with real traffic: what a client gets while tasks come, go and are replaced."""

import contextlib
import socket
import ssl
import subprocess

import pytest

from support.aws import refused
from support.balancers import PORT, Balancer, Load, get, page
from support.services import clear, create, describe, events, stable, tasks
from support.waiting import until


@pytest.fixture
def balancer(cloud, name):
    made = Balancer(cloud, name[-32:].strip("-"))
    yield made
    made.remove()


@pytest.fixture
def cluster(cloud, name):
    yield cloud.cluster(name)
    clear(cloud, name)


def test_a_service_is_reached_through_its_load_balancer(cloud, cluster, name, balancer):
    assert balancer.get()[0] == 503
    create(cloud, cluster, cloud.register(name, page("one")), count=2, **balancer.serves())
    stable(cloud, cluster)
    assert balancer.health() == ["healthy", "healthy"]
    assert [get(address) for address in balancer.addresses] == [(200, "one")] * 2
    (shown,) = describe(cloud, cluster)["loadBalancers"]
    assert shown == {"targetGroupArn": balancer.group, "containerName": "web", "containerPort": PORT}
    registered = [said for said in events(cloud, cluster) if "registered" in said]
    assert registered and all(f"targets in (target-group {balancer.group})" in said for said in registered)


def test_no_request_is_lost_while_a_service_is_updated_and_scaled(cloud, cluster, name, balancer):
    create(cloud, cluster, cloud.register(name, page("one")), count=2, **balancer.serves())
    stable(cloud, cluster)
    with Load(balancer.addresses[0]) as load:
        until("the first revision answers", lambda: load.pages() == {"one"})
        cloud.ecs.update_service(cluster=cluster, service="web", taskDefinition=cloud.register(name, page("two")))
        until("the second revision answers", lambda: "two" in load.pages())
        stable(cloud, cluster)
        for count in (3, 1):
            cloud.ecs.update_service(cluster=cluster, service="web", desiredCount=count)
            stable(cloud, cluster)
            until("targets follow", lambda count=count: balancer.health() == ["healthy"] * count)
        answers = load.end()
    assert {status for status, _ in answers} == {200}
    assert {text for _, text in answers} == {"one", "two"}
    said = events(cloud, cluster)
    assert any("has begun draining connections on" in message for message in said)
    assert any(f"deregistered 1 targets in (target-group {balancer.group})" in message for message in said)


def test_a_task_that_is_stopped_answers_what_it_has(cloud, cluster, name, balancer):
    create(cloud, cluster, cloud.register(name, page("one")), count=2, **balancer.serves())
    stable(cloud, cluster)
    with Load(balancer.addresses[0]) as load:
        until("it answers", lambda: load.pages() == {"one"})
        victim = tasks(cloud, cluster)[0]["taskArn"]
        cloud.ecs.stop_task(cluster=cluster, task=victim)
        cloud.until_stopped(cluster, victim)
        stable(cloud, cluster)
        answers = load.end()
    assert set(answers) == {(200, "one")}


def test_an_unhealthy_target_has_its_task_replaced(cloud, cluster, name, balancer):
    # The page is not where the check looks, from some time on.
    command = "while [ ! -e /gone ]; do sleep 1; done; rm /usr/share/nginx/html/index.html; sleep 1000"
    web = page("one")
    web["command"] = ["sh", "-c", f"({command}) & exec nginx -g 'daemon off;'"]
    create(cloud, cluster, cloud.register(name, web), healthCheckGracePeriodSeconds=0, **balancer.serves())
    stable(cloud, cluster)
    (first,) = tasks(cloud, cluster)
    cloud.elbv2.modify_target_group(TargetGroupArn=balancer.group, HealthCheckPath="/nothing", UnhealthyThresholdCount=2)
    stopped = cloud.until_stopped(cluster, first["taskArn"])
    assert stopped["stoppedReason"] == f"Task failed ELB health checks in (target-group {balancer.group})"
    cloud.elbv2.modify_target_group(TargetGroupArn=balancer.group, HealthCheckPath="/")
    stable(cloud, cluster)
    assert any(
        f"(service web) (port {PORT}) is unhealthy in (target-group {balancer.group}) due to (reason Health checks failed"
        in said
        for said in events(cloud, cluster)
    )


@pytest.mark.parametrize("strategy", ["BLUE_GREEN", "CANARY"])
def test_traffic_goes_over_to_the_new_revision_without_a_loss(cloud, cluster, name, balancer, strategy):
    green = balancer.make_group(f"{balancer.name[:-2]}-g"[:32])
    shift = {
        "alternateTargetGroupArn": green,
        "productionListenerRule": balancer.listener,
        "roleArn": "arn:aws:iam::123456789012:role/ecsInfrastructureRole",
    }
    configuration = {"strategy": strategy, "bakeTimeInMinutes": 0}
    if strategy == "CANARY":
        configuration["canaryConfiguration"] = {"canaryPercent": 20.0, "canaryBakeTimeInMinutes": 0}
    create(
        cloud,
        cluster,
        cloud.register(name, page("blue")),
        count=2,
        deploymentConfiguration=configuration,
        **balancer.serves(advancedConfiguration=shift),
    )
    stable(cloud, cluster)
    assert (balancer.health(), balancer.health(green)) == (["healthy"] * 2, [])
    with Load(balancer.addresses[0]) as load:
        until("blue answers", lambda: load.pages() == {"blue"})
        cloud.ecs.update_service(cluster=cluster, service="web", taskDefinition=cloud.register(name, page("green")))
        until("green answers", lambda: "green" in load.pages())
        stable(cloud, cluster)
        answers = load.end()
    assert set(answers) == {(200, "blue"), (200, "green")}
    assert balancer.get() == (200, "green")
    until("only green has targets", lambda: (balancer.health(), balancer.health(green)) == ([], ["healthy"] * 2))
    (listener,) = cloud.elbv2.describe_listeners(ListenerArns=[balancer.listener])["Listeners"]
    groups = listener["DefaultActions"][0]["ForwardConfig"]["TargetGroups"]
    assert {group["TargetGroupArn"]: group["Weight"] for group in groups} == {balancer.group: 0, green: 100}


def test_a_network_load_balancer_passes_connections_on(cloud, cluster, name):
    balancer = Balancer(cloud, name[-32:].strip("-"), kind="network")
    try:
        attributes = [{"Key": "deregistration_delay.timeout_seconds", "Value": "1"}]
        cloud.elbv2.modify_target_group_attributes(TargetGroupArn=balancer.group, Attributes=attributes)
        create(cloud, cluster, cloud.register(name, page("one")), count=2, **balancer.serves())
        stable(cloud, cluster)
        until("both are healthy", lambda: balancer.health() == ["healthy"] * 2)
        for address in balancer.addresses:
            assert [get(address) for _ in range(4)] == [(200, "one")] * 4
        clear(cloud, cluster)
        with pytest.raises(OSError):
            get(balancer.addresses[0])
    finally:
        clear(cloud, cluster)
        balancer.remove()


@pytest.fixture
def certificates(cloud, name, tmp_path):
    """Imported: by the domain's name, the ARN and the file with what clients believe in."""
    imported = {}
    for domain in ("one.test", "two.test"):
        body, key = tmp_path / f"{domain}.pem", tmp_path / f"{domain}.key"
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        command += ["-subj", f"/CN={domain}", "-addext", f"subjectAltName=DNS:{domain}", "-days", "2"]
        subprocess.run([*command, "-out", body, "-keyout", key], check=True, capture_output=True, timeout=30)
        request = {"Certificate": body.read_bytes(), "PrivateKey": key.read_bytes()}
        imported[domain] = cloud.client("acm").import_certificate(**request)["CertificateArn"], body
    yield imported
    for arn, _ in imported.values():
        cloud.client("acm").delete_certificate(CertificateArn=arn)


def get_secure(address, domain, authority):
    """What is answered to who asks for the domain, and believes in one certificate only."""
    context = ssl.create_default_context(cafile=authority)
    with (
        socket.create_connection((address, 443), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=domain) as secure,
    ):
        secure.sendall(f"GET / HTTP/1.1\r\nHost: {domain}\r\nConnection: close\r\n\r\n".encode())
        return secure.makefile("rb").read().decode()


def test_clients_speak_tls_by_imported_certificates(cloud, cluster, name, balancer, certificates):
    (one, one_file), (two, two_file) = certificates["one.test"], certificates["two.test"]
    create(cloud, cluster, cloud.register(name, page("one")), count=1, **balancer.serves())
    stable(cloud, cluster)
    (listener,) = balancer.elb.create_listener(
        LoadBalancerArn=balancer.arn,
        Protocol="HTTPS",
        Port=443,
        Certificates=[{"CertificateArn": one}],
        DefaultActions=[{"Type": "forward", "TargetGroupArn": balancer.group}],
    )["Listeners"]
    address = balancer.addresses[0]

    def answers(domain, authority):
        with contextlib.suppress(OSError):
            return get_secure(address, domain, authority).endswith("one\n")

    until("the listener speaks TLS", lambda: answers("one.test", one_file))
    with pytest.raises(ssl.SSLCertVerificationError):
        get_secure(address, "two.test", two_file)
    arn = listener["ListenerArn"]
    balancer.elb.add_listener_certificates(ListenerArn=arn, Certificates=[{"CertificateArn": two}])
    until("the second name is served", lambda: answers("two.test", two_file))
    assert answers("one.test", one_file)
    with refused("ResourceInUseException"):
        cloud.client("acm").delete_certificate(CertificateArn=two)
    balancer.elb.delete_listener(ListenerArn=arn)


def test_what_cannot_be_behind_a_load_balancer_is_refused(cloud, cluster, name, balancer):
    definition = cloud.register(name, page("one"))
    unused = balancer.make_group(f"{balancer.name[:-2]}-u"[:32])
    wrong = {
        f"The target group with targetGroupArn {unused} does not have an associated load balancer.": {
            "targetGroupArn": unused
        },
        "The container app does not exist in the task definition.": {"containerName": "app"},
        "The container web did not have a container port 81 defined.": {"containerPort": 81},
    }
    for message, settings in wrong.items():
        with pytest.raises(cloud.ecs.exceptions.InvalidParameterException) as error:
            create(cloud, cluster, definition, **balancer.serves(**settings))
        assert error.value.response["Error"]["Message"] == message
    with pytest.raises(cloud.ecs.exceptions.InvalidParameterException) as error:
        create(cloud, cluster, definition, healthCheckGracePeriodSeconds=10)
    assert "only valid for services configured to use load balancers" in str(error.value)
