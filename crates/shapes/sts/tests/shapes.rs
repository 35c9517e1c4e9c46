//! The generated shapes of STS, through the query protocol.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use longshore_sts::operations::AssumeRole;
use longshore_sts::{Error, GetCallerIdentityResponse, SERVICE};
use longshore_wire::protocol::{Form, answer, read_form};
use longshore_wire::{Encode, Fault, Operation, decode_input};

fn read<O: Operation>(text: &str) -> Result<O::Input, Fault> {
    let form = Form::parse(text.as_bytes()).expect("a form");
    decode_input::<O>(read_form(form, &SERVICE, O::input_schema())?)
}

#[test]
fn assume_role_is_read_and_checked() {
    let role = "Action=AssumeRole&RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fx&Tags.member.1.Key=k&Tags.member.1.Value=v";
    let request = read::<AssumeRole>(&format!("{role}&RoleSessionName=me")).unwrap();
    assert_eq!((request.role_session_name.as_str(), request.tags.unwrap()[0].value.as_str()), ("me", "v"));
    let fault = read::<AssumeRole>(&format!("{role}&RoleSessionName=%20&DurationSeconds=1")).unwrap_err();
    assert_eq!((fault.code.as_str(), fault.status), ("ValidationError", 400));
    assert_eq!(
        fault.message,
        "3 validation errors detected: Value '1' at 'durationSeconds' failed to satisfy constraint: Member must have \
         value greater than or equal to 900; Value ' ' at 'roleSessionName' failed to satisfy constraint: Member must \
         have length greater than or equal to 2; Value ' ' at 'roleSessionName' failed to satisfy constraint: Member \
         must satisfy regular expression pattern: [\\w+=,.@-]*"
    );
}

#[test]
fn the_identity_is_wrapped_as_query_clients_expect() {
    let output = GetCallerIdentityResponse { account: Some("123456789012".into()), ..Default::default() };
    let sent = answer(&SERVICE, SERVICE.operation("GetCallerIdentity").unwrap(), &output.encode(), "id");
    assert_eq!(
        String::from_utf8(sent.body).unwrap(),
        "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
         <Account>123456789012</Account></GetCallerIdentityResult><ResponseMetadata><RequestId>id</RequestId>\
         </ResponseMetadata></GetCallerIdentityResponse>"
    );
}

#[test]
fn codes_and_statuses_are_the_models() {
    let error = Error::MalformedPolicyDocumentException("bad".into());
    assert_eq!((error.code(), error.status()), ("MalformedPolicyDocument", 400));
    assert_eq!(Error::RegionDisabledException("off".into()).status(), 403);
}
