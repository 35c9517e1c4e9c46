//! The generated shapes of EC2: its parameters and its XML.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use longshore_ec2::operations::{AuthorizeSecurityGroupIngress, CreateVpc, DescribeVpcs};
use longshore_ec2::{DescribeVpcsResult, SERVICE, Tag, Vpc, VpcState};
use longshore_wire::protocol::{Form, answer, read_form};
use longshore_wire::{Encode, Fault, Operation, decode_input};

fn read<O: Operation>(text: &str) -> Result<O::Input, Fault> {
    let form = Form::parse(text.as_bytes()).expect("a form");
    decode_input::<O>(read_form(form, &SERVICE, O::input_schema())?)
}

#[test]
fn parameters_have_ec2s_names() {
    let request = read::<DescribeVpcs>(
        "Action=DescribeVpcs&Version=2016-11-15&VpcId.1=vpc-1&Filter.1.Name=is-default&Filter.1.Value.1=true&DryRun=false",
    )
    .unwrap();
    assert_eq!(request.vpc_ids, Some(vec!["vpc-1".into()]));
    let filter = &request.filters.unwrap()[0];
    assert_eq!(
        (filter.name.as_deref(), filter.values.clone()),
        (Some("is-default"), Some(vec!["true".into()]))
    );

    let request = read::<AuthorizeSecurityGroupIngress>(
        "GroupId=sg-1&IpPermissions.1.IpProtocol=tcp&IpPermissions.1.FromPort=80&IpPermissions.1.IpRanges.1.CidrIp=0.0.0.0%2F0\
         &TagSpecification.1.ResourceType=security-group-rule&TagSpecification.1.Tag.1.Key=k",
    )
    .unwrap();
    let permission = &request.ip_permissions.unwrap()[0];
    assert_eq!(permission.from_port, Some(80));
    assert_eq!(permission.ip_ranges.clone().unwrap()[0].cidr_ip.as_deref(), Some("0.0.0.0/0"));
    assert_eq!(request.tag_specifications.unwrap()[0].tags.clone().unwrap()[0].key.as_deref(), Some("k"));
}

#[test]
fn refusals_have_ec2s_codes() {
    let check = |fault: Fault, code: &str, words: &str| {
        assert_eq!(fault.code, code);
        assert!(fault.message.contains(words), "{}", fault.message);
    };
    check(
        read::<DescribeVpcs>("Colour=red").unwrap_err(),
        "UnknownParameter",
        "The parameter Colour is not recognized",
    );
    check(
        read::<DescribeVpcs>("MaxResults=1").unwrap_err(),
        "InvalidParameterValue",
        "Value (1) for parameter MaxResults",
    );
    check(read::<CreateVpc>("InstanceTenancy=moon").unwrap_err(), "InvalidParameterValue", "InstanceTenancy");
    let fault = read::<longshore_ec2::operations::CreateSubnet>("CidrBlock=10.0.0.0%2F24").unwrap_err();
    check(fault, "MissingParameter", "The request must contain the parameter VpcId");
}

#[test]
fn answers_have_ec2s_elements() {
    let tag = Tag { key: Some("Name".into()), value: Some("a&b".into()) };
    let vpc = Vpc {
        cidr_block: Some("172.31.0.0/16".into()),
        is_default: Some(true),
        state: Some(VpcState::Available),
        tags: Some(vec![tag]),
        vpc_id: Some("vpc-1".into()),
        ..Default::default()
    };
    let output = DescribeVpcsResult { next_token: None, vpcs: Some(vec![vpc]) };
    let sent = answer(&SERVICE, SERVICE.operation("DescribeVpcs").unwrap(), &output.encode(), "id");
    assert_eq!(
        String::from_utf8(sent.body).unwrap(),
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<DescribeVpcsResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
         <requestId>id</requestId><vpcSet><item><cidrBlock>172.31.0.0/16</cidrBlock><isDefault>true</isDefault>\
         <state>available</state><tagSet><item><key>Name</key><value>a&amp;b</value></item></tagSet><vpcId>vpc-1</vpcId>\
         </item></vpcSet></DescribeVpcsResponse>"
    );
}

#[test]
fn the_served_part_is_known_from_the_rest() {
    assert_eq!(longshore_ec2::OPERATIONS.len(), 51);
    assert!(SERVICE.unserved.contains(&"CreateNatGateway"));
    assert!(SERVICE.operation("CreateNatGateway").is_none());
}
