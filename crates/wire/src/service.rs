//! What the generated crates say about a service and its operations.

use crate::check::check;
use crate::{Decode, Encode, Fault, Schema, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `application/x-amz-json-1.0`
    Json10,
    /// `application/x-amz-json-1.1`
    Json11,
    Query,
    Ec2,
}

/// How a service words a request that breaks the model's constraints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violations {
    /// All of them in one message, under this code: `2 validation errors detected: …; …`
    Listed(&'static str),
    /// EC2's: the first one, as MissingParameter or InvalidParameterValue.
    Ec2,
}

#[derive(Debug)]
pub struct ServiceInfo {
    /// The name in credential scopes, and botocore's: `ecs`.
    pub name: &'static str,
    pub full_name: &'static str,
    pub signing_name: &'static str,
    pub protocol: Protocol,
    /// The same service in JSON, for requests that name a target, where it speaks that besides.
    pub json: Option<&'static ServiceInfo>,
    pub api_version: &'static str,
    /// What stands before the dot in `X-Amz-Target`; empty where the protocol has none.
    pub target_prefix: &'static str,
    /// Empty where the protocol writes no XML.
    pub xml_namespace: &'static str,
    /// Whether errors also carry their old query code in `x-amzn-query-error`.
    pub query_compatible: bool,
    pub violations: Violations,
    /// Operations with shapes, by name.
    pub operations: &'static [OperationInfo],
    /// Operations of the model that have none, by name.
    pub unserved: &'static [&'static str],
}

impl ServiceInfo {
    pub fn operation(&self, name: &str) -> Option<&'static OperationInfo> {
        let at = self.operations.binary_search_by(|operation| operation.name.cmp(name)).ok()?;
        self.operations.get(at)
    }
}

#[derive(Debug)]
pub struct OperationInfo {
    pub name: &'static str,
    pub input: &'static Schema,
    /// Nothing where the operation answers with no members.
    pub output: Option<&'static Schema>,
    /// The element around a query response's members; empty where there is none.
    pub result_wrapper: &'static str,
}

/// An operation with its shapes.
pub trait Operation {
    const NAME: &'static str;
    type Input: Decode;
    type Output: Encode;

    fn service() -> &'static ServiceInfo;
    fn input_schema() -> &'static Schema;
}

/// Checks a request against the model's constraints and gives it its type.
///
/// A protocol has read `value` with the operation's schema, so the kinds of its values are right already.
pub fn decode_input<O: Operation>(value: Value) -> Result<O::Input, Fault> {
    let violations = check(&value, O::input_schema());
    if !violations.is_empty() {
        return Err(crate::check::fault(O::service(), &violations));
    }
    O::Input::decode(value)
        .map_err(|error| Fault::sender(crate::protocol::malformed_code(O::service()), error.to_string()))
}

/// Declares the operations of a service as types: `RunTask(RunTaskRequest) -> RunTaskResponse, INPUT_SCHEMA;`
#[macro_export]
macro_rules! operations {
    ($service:path; $($name:ident($input:ty) -> $output:ty, $schema:path;)*) => {
        $(
            #[derive(Clone, Copy, Debug)]
            pub struct $name;

            impl $crate::Operation for $name {
                const NAME: &'static str = stringify!($name);
                type Input = $input;
                type Output = $output;

                fn service() -> &'static $crate::ServiceInfo {
                    &$service
                }

                fn input_schema() -> &'static $crate::Schema {
                    &$schema
                }
            }
        )*

        /// The names of the operations, in order.
        pub const OPERATIONS: &[&str] = &[$(stringify!($name),)*];
    };
}
