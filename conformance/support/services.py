"""Services as tests make them and look at them."""

from .waiting import until


def create(cloud, cluster, definition, count=1, **settings):
    """The service `web` on Fargate; a setting of None leaves out what it is of."""
    request = {
        "cluster": cluster,
        "serviceName": "web",
        "taskDefinition": definition,
        "desiredCount": count,
        "launchType": "FARGATE",
        "networkConfiguration": cloud.network(),
    } | settings
    return cloud.ecs.create_service(**{field: value for field, value in request.items() if value is not None})["service"]


def describe(cloud, cluster, service="web", **settings):
    (found,) = cloud.ecs.describe_services(cluster=cluster, services=[service], **settings)["services"]
    return found


def events(cloud, cluster):
    """The messages, oldest first."""
    return [event["message"] for event in reversed(describe(cloud, cluster)["events"])]


def stable(cloud, cluster):
    """As the waiter services-stable looks at it, without its pauses."""

    def check():
        found = describe(cloud, cluster)
        done = len(found["deployments"]) == 1 and found["runningCount"] == found["desiredCount"]
        return found if done and found["deployments"][0]["rolloutState"] == "COMPLETED" else None

    return until("the service is stable", check)


def tasks(cloud, cluster, service="web", **settings):
    arns = cloud.ecs.list_tasks(cluster=cluster, serviceName=service, **settings)["taskArns"]
    return cloud.ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"] if arns else []


def clear(cloud, cluster):
    """Deletes all services of a cluster and waits until they are gone."""
    for arn in cloud.ecs.list_services(cluster=cluster)["serviceArns"]:
        cloud.ecs.delete_service(cluster=cluster, service=arn, force=True)
        until(f"{arn} is INACTIVE", lambda arn=arn: describe(cloud, cluster, arn)["status"] == "INACTIVE")
    cloud.stop_all(cluster)
