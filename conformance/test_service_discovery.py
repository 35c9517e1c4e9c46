"""Service discovery: Cloud Map as its clients know it, and names that tasks find one another by."""

import ipaddress

import pytest

from support.aws import Cloud, address, refused, task_id
from support.dns import ask
from support.services import clear, create, describe, stable, tasks
from support.waiting import until


@pytest.fixture
def cluster(cloud, name):
    yield cloud.cluster(name)
    clear(cloud, name)


@pytest.fixture
def discovery(cloud):
    return cloud.client("servicediscovery")


@pytest.fixture
def namespace(cloud, discovery, name):
    """Makes private namespaces, and removes them with their services in the end."""
    made = []

    def make(of=None, vpc=None):
        answer = discovery.create_private_dns_namespace(Name=of or f"{name}.internal", Vpc=vpc or default_vpc(cloud))
        made.append(done(discovery, answer)["Targets"]["NAMESPACE"])
        return made[-1]

    yield make
    for one in made:
        remove(discovery, one)


def remove(discovery, namespace):
    only = [{"Name": "NAMESPACE_ID", "Values": [namespace]}]
    for service in discovery.list_services(Filters=only)["Services"]:
        for instance in discovery.list_instances(ServiceId=service["Id"])["Instances"]:
            discovery.deregister_instance(ServiceId=service["Id"], InstanceId=instance["Id"])
        discovery.delete_service(Id=service["Id"])
    done(discovery, discovery.delete_namespace(Id=namespace))


def done(discovery, answer):
    operation = discovery.get_operation(OperationId=answer["OperationId"])["Operation"]
    assert operation["Status"] == "SUCCESS"
    return operation


def default_vpc(cloud):
    (vpc,) = cloud.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    return vpc["VpcId"]


def registry(discovery, namespace, service, *records, ttl=60, **settings):
    """A service for these records; the ARN that ECS knows it by."""
    config = {"DnsRecords": [{"Type": kind, "TTL": ttl} for kind in records or ["A"]]}
    made = discovery.create_service(Name=service, NamespaceId=namespace, DnsConfig=config, **settings)["Service"]
    return made["Arn"]


def resolver(cloud):
    return str(ipaddress.ip_network(cloud.server.vpc_cidr)[2])


def found(cloud, name, **question):
    return ask(resolver(cloud), name, **question).addresses()


def shell(command):
    """A container that says in the end how its command ended."""
    return {"command": ["sh", "-c", f"{command}; echo ended with $?"]}


def output(cloud, family, task):
    """What such a container said; its command succeeded."""
    stream = f"test/main/{task_id(task)}"
    lines = cloud.until_line(f"/ecs/{family}", stream, "ended with")
    assert lines[-1] == "ended with 0", lines
    return "\n".join(lines)


def web(cloud, family, **settings):
    """A definition whose one container answers HTTP on port 80."""
    container = {"name": "web", "image": "nginx:alpine", "portMappings": [{"containerPort": 80}]}
    return cloud.register(family, container | settings.pop("container", {}), **settings)


def test_the_guides_service_discovery(cloud, cluster, name, namespace, discovery):
    zone = f"{name}.internal"
    answer = cloud.aws(
        *["servicediscovery", "create-private-dns-namespace", "--name", zone, "--vpc", default_vpc(cloud)]
    )
    operation = ["servicediscovery", "get-operation", "--operation-id", answer["OperationId"]]
    assert cloud.aws(*operation)["Operation"]["Status"] == "SUCCESS"
    made = cloud.aws(*operation)["Operation"]["Targets"]["NAMESPACE"]
    service = cloud.aws(
        *["servicediscovery", "create-service", "--name", "api", "--namespace-id", made],
        *["--dns-config", "RoutingPolicy=MULTIVALUE,DnsRecords=[{Type=A,TTL=60}]"],
        *["--health-check-custom-config", "FailureThreshold=1"],
    )["Service"]
    shown = cloud.aws(
        *["ecs", "create-service", "--cluster", cluster, "--service-name", "web"],
        *["--task-definition", web(cloud, name), "--desired-count", "2", "--launch-type", "FARGATE"],
        *["--network-configuration", cloud.cli_network(), "--service-registries", f"registryArn={service['Arn']}"],
    )["service"]
    assert shown["serviceRegistries"] == [{"registryArn": service["Arn"]}]
    stable(cloud, cluster)
    instances = cloud.aws("servicediscovery", "list-instances", "--service-id", service["Id"])["Instances"]
    addresses = sorted(address(task) for task in tasks(cloud, cluster))
    assert sorted(instance["Attributes"]["AWS_INSTANCE_IPV4"] for instance in instances) == addresses
    # Another task finds them by the name, and reaches them.
    client = cloud.register(
        f"{name}-client",
        shell(f"cat /etc/resolv.conf && nslookup api.{zone} && wget -q -O - http://api.{zone}/health"),
    )
    (arn,) = cloud.run(cluster, client)
    said = output(cloud, f"{name}-client", arn)
    for one in addresses:
        assert one in said
    assert "healthy" in said
    assert f"nameserver {resolver(cloud)}" in said and "search ec2.internal" in said
    clear(cloud, cluster)
    remove(discovery, made)


def test_names_follow_the_tasks_of_a_service(cloud, cluster, name, namespace, discovery):
    arn = registry(discovery, namespace(), "api", ttl=7)
    host = f"api.{name}.internal"
    assert ask(resolver(cloud), host).code == "NXDOMAIN"
    create(cloud, cluster, web(cloud, name), serviceRegistries=[{"registryArn": arn}])

    def addresses(count):
        running = [task for task in tasks(cloud, cluster) if task["lastStatus"] == "RUNNING"]
        return sorted(address(task) for task in running) if len(running) == count else None

    for count in (1, 3, 1):
        cloud.ecs.update_service(cluster=cluster, service="web", desiredCount=count)
        until(f"{count} tasks have the name", lambda count=count: addresses(count) == found(cloud, host))
    (record,) = ask(resolver(cloud), host).answers
    assert (record.kind, record.ttl) == ("A", 7)
    (task,) = tasks(cloud, cluster)
    cloud.ecs.stop_task(cluster=cluster, task=task["taskArn"])
    until("one that is stopped is found no more", lambda: address(task) not in found(cloud, host))
    until("another one is found", lambda: found(cloud, host))
    clear(cloud, cluster)
    assert ask(resolver(cloud), host).code == "NXDOMAIN"


def test_what_ecs_says_of_a_task(cloud, cluster, name, namespace, discovery):
    arn = registry(discovery, namespace(), "api", "SRV", HealthCheckCustomConfig={"FailureThreshold": 1})
    registries = [{"registryArn": arn, "containerName": "web", "containerPort": 80}]
    create(cloud, cluster, web(cloud, name), serviceRegistries=registries)
    assert stable(cloud, cluster)["serviceRegistries"] == registries
    (task,) = tasks(cloud, cluster)
    id = task_id(task["taskArn"])
    (instance,) = discovery.discover_instances(NamespaceName=f"{name}.internal", ServiceName="api")["Instances"]
    assert instance == {
        "InstanceId": id,
        "NamespaceName": f"{name}.internal",
        "ServiceName": "api",
        "HealthStatus": "HEALTHY",
        "Attributes": {
            "AWS_INSTANCE_IPV4": address(task),
            "AWS_INSTANCE_PORT": "80",
            "AWS_INIT_HEALTH_STATUS": "HEALTHY",
            "AVAILABILITY_ZONE": task["availabilityZone"],
            "REGION": cloud.region,
            "ECS_CLUSTER_NAME": cluster,
            "ECS_SERVICE_NAME": "web",
            "ECS_TASK_DEFINITION_FAMILY": name,
        },
    }
    (record,) = ask(resolver(cloud), f"api.{name}.internal", "SRV").answers
    target = f"{id}.api.{name}.internal"
    assert (record.kind, record.data) == ("SRV", ((1, 1, 80), target))
    assert found(cloud, target) == [address(task)]
    assert ask(resolver(cloud), f"api.{name}.internal", "SRV", tcp=True).answers == (record,)


def test_a_task_is_found_while_its_health_checks_pass(cloud, cluster, name, namespace, discovery):
    arn = registry(discovery, namespace(), "api", HealthCheckCustomConfig={})
    id = arn.rsplit("/", 1)[1]
    # Healthy as long as its file is not there.
    check = {"command": ["CMD-SHELL", "test ! -e /tmp/ill/$HOSTNAME"], "interval": 5, "retries": 1, "startPeriod": 0}
    definition = web(cloud, name, container={"healthCheck": check})
    create(cloud, cluster, definition, count=2, serviceRegistries=[{"registryArn": arn}])
    stable(cloud, cluster)
    statuses = lambda: discovery.get_instances_health_status(ServiceId=id)["Status"]
    assert set(statuses().values()) == {"HEALTHY"} and len(statuses()) == 2
    one, other = sorted(statuses())
    by_id = {task_id(task["taskArn"]): address(task) for task in tasks(cloud, cluster)}
    # Whoever checks it says that one is not healthy.
    discovery.update_instance_custom_health_status(ServiceId=id, InstanceId=one, Status="UNHEALTHY")
    assert statuses()[one] == "UNHEALTHY"
    assert found(cloud, f"api.{name}.internal") == [by_id[other]]
    of_name = {"NamespaceName": f"{name}.internal", "ServiceName": "api"}
    asked = lambda status: {i["InstanceId"] for i in discovery.discover_instances(**of_name, HealthStatus=status)["Instances"]}
    assert [asked(status) for status in ("HEALTHY", "UNHEALTHY", "ALL")] == [{other}, {one}, {one, other}]
    # Where none is healthy, all are found.
    discovery.update_instance_custom_health_status(ServiceId=id, InstanceId=other, Status="UNHEALTHY")
    assert found(cloud, f"api.{name}.internal") == sorted(by_id.values())
    assert (asked("HEALTHY"), asked("HEALTHY_OR_ELSE_ALL")) == (set(), {one, other})


def test_a_namespace_is_known_in_its_vpc_alone(cloud, cluster, name, namespace, discovery):
    other = cloud.ec2.create_vpc(CidrBlock="10.201.0.0/16")["Vpc"]["VpcId"]
    try:
        for vpc, ip in ((default_vpc(cloud), "192.0.2.1"), (other, "192.0.2.2")):
            id = registry(discovery, namespace(vpc=vpc), "api").rsplit("/", 1)[1]
            done(discovery, discovery.register_instance(ServiceId=id, InstanceId="i", Attributes={"AWS_INSTANCE_IPV4": ip}))
        assert found(cloud, f"api.{name}.internal") == ["192.0.2.1"]
    finally:
        cloud.ec2.delete_vpc(VpcId=other)


def test_every_task_has_a_name(cloud, cluster, name):
    task = cloud.run_one(cluster, web(cloud, name))
    host = f"ip-{address(task).replace('.', '-')}.ec2.internal"
    assert found(cloud, host) == [address(task)]
    reverse = ".".join(reversed(address(task).split("."))) + ".in-addr.arpa"
    (record,) = ask(resolver(cloud), reverse, "PTR").answers
    assert record.data == host
    assert ask(resolver(cloud), "ip-1-2-3-4.ec2.internal").code == "NXDOMAIN"


def test_tasks_on_instances_with_networks_of_their_own(start, load, name):
    server = start("--instances", "2")
    load(server)
    cloud = Cloud(server)
    cluster = cloud.cluster(name)
    discovery = cloud.client("servicediscovery")
    made = done(
        discovery, discovery.create_private_dns_namespace(Name="production.internal", Vpc=default_vpc(cloud))
    )["Targets"]["NAMESPACE"]
    arn = registry(discovery, made, "api")
    create(cloud, cluster, web(cloud, name), count=2, serviceRegistries=[{"registryArn": arn}])
    stable(cloud, cluster)
    command = "nslookup api.production.internal 169.254.169.253 && wget -q -O - http://api.production.internal/health"
    client = cloud.register(f"{name}-client", shell(command))
    for arn in cloud.run(cluster, client, count=2):
        said = output(cloud, f"{name}-client", arn)
        assert "healthy" in said and all(address(task) in said for task in tasks(cloud, cluster))
    # What is told after a restart is what was there.
    addresses = found(cloud, "api.production.internal")
    assert len(addresses) == 2
    server.stop()
    server.start()
    assert until("names are answered", lambda: found(cloud, "api.production.internal")) == addresses


REGISTRIES = [
    ({"registryArn": "arn:aws:servicediscovery:us-east-1:123456789012:service/srv-none"}, [], "does not exist"),
    ({"port": 80}, ["A"], "do not require a value for 'port'. Remove the value and retry. Registry: arn:"),
    ({"containerName": "web", "containerPort": 80}, ["A"], "do not require a value for 'containerPort'"),
    ({}, ["SRV"], "Specify a value for either 'port' or the 'containerName' and 'containerPort' combination"),
    ({"containerName": "web", "containerPort": 80, "port": 80}, ["SRV"], "combination, but not both"),
    ({"containerName": "web", "containerPort": 81}, ["SRV"], "did not have a container port 81 defined"),
    ({"containerName": "db", "containerPort": 80}, ["SRV"], "The container db does not exist in the task definition"),
    ({}, ["AAAA"], "must be of the type A or SRV"),
]


@pytest.mark.parametrize(("given", "records", "message"), REGISTRIES, ids=[case[2][:30] for case in REGISTRIES])
def test_a_registry_that_does_not_fit_is_refused(cloud, cluster, name, namespace, discovery, given, records, message):
    arn = registry(discovery, namespace(), "api", *records)
    with refused("InvalidParameterException", message):
        create(cloud, cluster, web(cloud, name), serviceRegistries=[{"registryArn": arn} | given])


def test_namespaces(cloud, discovery, name):
    made = done(discovery, discovery.create_http_namespace(Name=name, Description="d", Tags=[{"Key": "a", "Value": "b"}]))
    assert made["Type"] == "CREATE_NAMESPACE"
    id = made["Targets"]["NAMESPACE"]
    shown = discovery.get_namespace(Id=id)["Namespace"]
    assert (shown["Name"], shown["Type"], shown["ServiceCount"], shown["Description"]) == (name, "HTTP", 0, "d")
    assert shown["Properties"] == {"HttpProperties": {"HttpName": name}}
    assert discovery.get_namespace(Id=shown["Arn"])["Namespace"]["Id"] == id
    with refused("NamespaceAlreadyExists"):
        discovery.create_http_namespace(Name=name)
    # The name may be given again to another kind, and is then known by another one to DiscoverInstances.
    dns = done(discovery, discovery.create_private_dns_namespace(Name=name, Vpc=default_vpc(cloud)))["Targets"]["NAMESPACE"]
    properties = discovery.get_namespace(Id=dns)["Namespace"]["Properties"]
    assert properties["HttpProperties"]["HttpName"].startswith(f"{name}-")
    assert properties["DnsProperties"]["HostedZoneId"].startswith("Z")
    by = lambda filter, *values, **more: [
        one["Id"] for one in discovery.list_namespaces(Filters=[{"Name": filter, "Values": values, **more}])["Namespaces"]
    ]
    assert by("NAME", name) == sorted([id, dns]) and by("HTTP_NAME", name) == [id]
    assert set(by("NAME", name[:-1], Condition="BEGINS_WITH")) == {id, dns}
    assert id in by("TYPE", "HTTP", Condition="EQ") and id not in by("TYPE", "DNS_PRIVATE", "DNS_PUBLIC", Condition="IN")
    assert discovery.list_tags_for_resource(ResourceARN=shown["Arn"])["Tags"] == [{"Key": "a", "Value": "b"}]
    discovery.tag_resource(ResourceARN=shown["Arn"], Tags=[{"Key": "c", "Value": ""}])
    discovery.untag_resource(ResourceARN=shown["Arn"], TagKeys=["a"])
    assert discovery.list_tags_for_resource(ResourceARN=shown["Arn"])["Tags"] == [{"Key": "c", "Value": ""}]
    done(discovery, discovery.update_http_namespace(Id=id, Namespace={"Description": "e"}))
    assert discovery.get_namespace(Id=id)["Namespace"]["Description"] == "e"
    change = {"Properties": {"DnsProperties": {"SOA": {"TTL": 99}}}}
    done(discovery, discovery.update_private_dns_namespace(Id=dns, Namespace=change))
    assert discovery.get_namespace(Id=dns)["Namespace"]["Properties"]["DnsProperties"]["SOA"] == {"TTL": 99}
    discovery.create_service(Name="s", NamespaceId=id)
    with refused("ResourceInUse"):
        discovery.delete_namespace(Id=id)
    remove(discovery, id)
    remove(discovery, dns)
    with refused("NamespaceNotFound"):
        discovery.get_namespace(Id=id)
    with refused("OperationNotFound"):
        discovery.get_operation(OperationId="none")
    types = [{"Name": "TYPE", "Values": ["UPDATE_NAMESPACE"]}, {"Name": "NAMESPACE_ID", "Values": [dns]}]
    assert len(discovery.list_operations(Filters=types)["Operations"]) == 1


def test_services_and_instances(cloud, discovery, name):
    id = done(discovery, discovery.create_http_namespace(Name=name))["Targets"]["NAMESPACE"]
    with refused("InvalidInput", "takes no DnsConfig"):
        registry(discovery, id, "s")
    made = discovery.create_service(Name="s", NamespaceId=id, HealthCheckCustomConfig={"FailureThreshold": 5})["Service"]
    assert (made["Type"], made["InstanceCount"], made["NamespaceId"]) == ("HTTP", 0, id)
    assert made["HealthCheckCustomConfig"] == {"FailureThreshold": 1}
    with refused("ServiceAlreadyExists"):
        discovery.create_service(Name="s", NamespaceId=id)
    register = lambda instance, **more: discovery.register_instance(ServiceId=made["Id"], InstanceId=instance, **more)
    for number in range(5):
        register(f"i-{number}", Attributes={"stage": "one" if number < 2 else "two", "AWS_INSTANCE_IPV4": "192.0.2.1"})
    pages = discovery.get_paginator("list_instances").paginate(ServiceId=made["Id"], PaginationConfig={"PageSize": 2})
    assert [len(page["Instances"]) for page in pages] == [2, 2, 1]
    answer = discovery.discover_instances(NamespaceName=name, ServiceName="s", QueryParameters={"stage": "one"})
    assert {instance["InstanceId"] for instance in answer["Instances"]} == {"i-0", "i-1"}
    preferred = {"QueryParameters": {"stage": "two"}, "OptionalParameters": {"stage": "one"}, "MaxResults": 2}
    assert len(discovery.discover_instances(NamespaceName=name, ServiceName="s", **preferred)["Instances"]) == 2
    revision = answer["InstancesRevision"]
    discovery.update_instance_custom_health_status(ServiceId=made["Id"], InstanceId="i-0", Status="UNHEALTHY")
    again = discovery.discover_instances(NamespaceName=name, ServiceName="s")
    assert again["InstancesRevision"] == revision and len(again["Instances"]) == 4
    # The same request again is the same operation; its id for another instance is refused.
    one = register("i-0", Attributes={"stage": "one"}, CreatorRequestId="r")
    assert register("i-0", Attributes={"stage": "one"}, CreatorRequestId="r")["OperationId"] == one["OperationId"]
    with refused("DuplicateRequest"):
        register("i-9", Attributes={"stage": "one"}, CreatorRequestId="r")
    for wrong in ({"AWS_INSTANCE_IPV4": "none"}, {"AWS_INIT_HEALTH_STATUS": "ILL"}, {f"k{n}": "v" for n in range(31)}):
        with refused("InvalidInput"):
            register("i-9", Attributes=wrong)
    with refused("InstanceNotFound"):
        discovery.get_instance(ServiceId=made["Id"], InstanceId="i-9")
    plain = discovery.create_service(Name="p", NamespaceId=id)["Service"]["Id"]
    discovery.register_instance(ServiceId=plain, InstanceId="i", Attributes={})
    with refused("CustomHealthNotFound"):
        discovery.update_instance_custom_health_status(ServiceId=plain, InstanceId="i", Status="HEALTHY")
    assert discovery.get_instances_health_status(ServiceId=plain)["Status"] == {"i": "UNKNOWN"}
    with refused("ResourceInUse"):
        discovery.delete_service(Id=plain)
    remove(discovery, id)
    with refused("ServiceNotFound"):
        discovery.get_service(Id=plain)


def test_services_of_dns(cloud, discovery, name, namespace):
    id = namespace()
    arn = registry(discovery, id, "s", "A", ttl=10)
    with refused("ServiceAlreadyExists"):
        registry(discovery, id, "S")
    with refused("InvalidInput", "AWS_INSTANCE_IPV4 is required"):
        discovery.register_instance(ServiceId=arn, InstanceId="i", Attributes={})
    with refused("InvalidInput", "cannot be changed"):
        change = {"DnsConfig": {"DnsRecords": [{"Type": "SRV", "TTL": 1}]}}
        discovery.update_service(Id=arn, Service=change)
    done(discovery, discovery.register_instance(ServiceId=arn, InstanceId="i", Attributes={"AWS_INSTANCE_IPV4": "192.0.2.1"}))
    change = {"Description": "d", "DnsConfig": {"DnsRecords": [{"Type": "A", "TTL": 1}]}}
    assert done(discovery, discovery.update_service(Id=arn, Service=change))["Type"] == "UPDATE_SERVICE"
    (record,) = ask(resolver(cloud), f"s.{name}.internal").answers
    assert (record.ttl, record.data) == (1, "192.0.2.1")
    shown = discovery.get_service(Id=arn)["Service"]
    assert (shown["Type"], shown["Description"], shown["InstanceCount"]) == ("DNS_HTTP", "d", 1)
    weighted = {"RoutingPolicy": "WEIGHTED", "DnsRecords": [{"Type": "CNAME", "TTL": 5}]}
    alias = discovery.create_service(Name="alias", NamespaceId=id, DnsConfig=weighted)["Service"]["Id"]
    attributes = {"AWS_INSTANCE_CNAME": f"s.{name}.internal"}
    done(discovery, discovery.register_instance(ServiceId=alias, InstanceId="i", Attributes=attributes))
    assert found(cloud, f"alias.{name}.internal") == ["192.0.2.1"]
