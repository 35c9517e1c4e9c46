//! The generated shapes of ECS: requests as clients send them, errors, and what must not be shown.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use longshore_ecs::operations::{CreateCluster, RegisterTaskDefinition, RunTask, TagResource};
use longshore_ecs::{
    AssignPublicIp, Compatibility, Container, DescribeTasksResponse, Error, LaunchType, NetworkMode,
    OPERATIONS, RunTaskRequest, SERVICE, Task,
};
use longshore_wire::protocol::{answer, read_json};
use longshore_wire::{Encode, Fault, Operation, Timestamp, decode_input};

fn read<O: Operation>(text: &str) -> Result<O::Input, Fault> {
    decode_input::<O>(read_json(text.as_bytes(), O::input_schema())?)
}

#[test]
fn every_operation_of_the_model_is_there() {
    assert_eq!(OPERATIONS.len(), 77);
    assert_eq!(SERVICE.operations.len(), 77);
    assert!(SERVICE.unserved.is_empty());
    assert!(OPERATIONS.iter().all(|name| SERVICE.operation(name).is_some_and(|info| info.name == *name)));
}

#[test]
fn run_task_as_the_cli_sends_it() {
    let request = read::<RunTask>(
        r#"{"cluster":"c","taskDefinition":"web:1","launchType":"FARGATE","count":2,"networkConfiguration":
            {"awsvpcConfiguration":{"subnets":["subnet-1"],"assignPublicIp":"ENABLED"}}}"#,
    )
    .unwrap();
    let network = request.network_configuration.clone().unwrap().awsvpc_configuration.unwrap();
    assert_eq!(
        (network.subnets, network.assign_public_ip),
        (vec!["subnet-1".into()], Some(AssignPublicIp::Enabled))
    );
    let rest = RunTaskRequest { network_configuration: None, ..request };
    assert_eq!(
        rest,
        RunTaskRequest {
            cluster: Some("c".into()),
            count: Some(2),
            launch_type: Some(LaunchType::Fargate),
            task_definition: "web:1".into(),
            ..Default::default()
        }
    );
}

#[test]
fn a_task_definition_reads_back_and_hides_its_environment() {
    let text = r#"{"family":"web","networkMode":"awsvpc","requiresCompatibilities":["FARGATE"],"containerDefinitions":
        [{"name":"main","image":"busybox","essential":true,"environment":[{"name":"PASSWORD","value":"hunter2"}]}]}"#;
    let request = read::<RegisterTaskDefinition>(text).unwrap();
    assert_eq!(request.network_mode, Some(NetworkMode::Awsvpc));
    assert_eq!(request.requires_compatibilities, Some(vec![Compatibility::Fargate]));
    let shown = format!("{request:?}");
    assert!(shown.contains("busybox") && !shown.contains("hunter2"), "{shown}");
    assert_eq!(decode_input::<RegisterTaskDefinition>(request.clone().encode()), Ok(request));
}

#[test]
fn broken_constraints_are_said_as_aws_says_them() {
    let check = |refused: Result<String, Fault>, message: &str| {
        let fault = refused.unwrap_err();
        assert_eq!((fault.code.as_str(), fault.message.as_str()), ("InvalidParameterException", message));
    };
    let shown = |request: RunTaskRequest| format!("{request:?}");
    check(
        read::<RunTask>(r#"{"launchType":"MOON"}"#).map(shown),
        "2 validation errors detected: Value 'MOON' at 'launchType' failed to satisfy constraint: Member must satisfy \
         enum value set: [EC2, FARGATE, EXTERNAL, MANAGED_INSTANCES]; Value null at 'taskDefinition' failed to satisfy \
         constraint: Member must not be null",
    );
    check(
        read::<TagResource>(r#"{"resourceArn":"a","tags":[{"key":"a"},{"key":"<"}]}"#).map(|_| String::new()),
        "1 validation error detected: Value '<' at 'tags.2.member.key' failed to satisfy constraint: Member must \
         satisfy regular expression pattern: ([\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*)",
    );
    assert_eq!(read::<CreateCluster>(r#"{"clusterName":7}"#).unwrap_err().code, "SerializationException");
}

#[test]
fn answers_leave_out_what_is_absent() {
    let task = Task {
        containers: Some(vec![Container { exit_code: Some(137), ..Default::default() }]),
        created_at: Some(Timestamp(1_769_860_800_250)),
        launch_type: Some(LaunchType::Ec2),
        ..Default::default()
    };
    let output = DescribeTasksResponse { failures: Some(vec![]), tasks: Some(vec![task]) };
    let sent = answer(&SERVICE, SERVICE.operation("DescribeTasks").unwrap(), &output.encode(), "id");
    assert_eq!(
        String::from_utf8(sent.body).unwrap(),
        r#"{"failures":[],"tasks":[{"containers":[{"exitCode":137}],"createdAt":1769860800.250,"launchType":"EC2"}]}"#
    );
}

#[test]
fn errors_carry_their_members_and_statuses() {
    let fault = Fault::from(Error::ClusterNotFoundException("Cluster not found.".into()));
    assert_eq!((fault.code.as_str(), fault.status, fault.sender), ("ClusterNotFoundException", 400, true));
    let fault = Fault::from(Error::ServerException("no".into()));
    assert_eq!((fault.status, fault.sender), (500, false));
    let conflict =
        Error::ConflictException { message: "taken".into(), resource_ids: Some(vec!["arn".into()]) };
    assert_eq!(conflict.to_string(), "ConflictException: taken");
    assert!(Fault::from(conflict).extra.get("resourceIds").is_some());
}
