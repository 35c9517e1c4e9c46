//! From an operation's name to its handler. Invariant: a handler sees only requests that keep the model's
//! constraints, and an operation without a handler answers with an error that says so.

use crate::context::Context;
use longshore_model::Scope;
use longshore_model::id::stable_hash;
use longshore_wire::{Encode, Fault, Operation, Protocol, ServiceInfo, Value, decode_input};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

/// Who makes a request, and where.
#[derive(Clone, Debug)]
pub struct Caller {
    pub scope: Scope,
    pub access_key: Arc<str>,
    /// The name of the user whose key it is.
    pub user: Arc<str>,
}

impl Caller {
    pub fn arn(&self) -> String {
        match self.user.as_ref() {
            "root" => format!("arn:aws:iam::{}:root", self.scope.account),
            user => format!("arn:aws:iam::{}:user/{user}", self.scope.account),
        }
    }

    /// `AIDA…`: stable for a key, and saying nothing of it.
    pub fn user_id(&self) -> String {
        let hash = stable_hash(self.access_key.bytes());
        format!("AIDA{hash:016X}")
    }
}

/// What a handler is given besides the request.
#[derive(Clone)]
pub struct Call {
    pub context: Arc<Context>,
    pub caller: Caller,
}

impl Call {
    pub fn scope(&self) -> &Scope {
        &self.caller.scope
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Value, Fault>> + Send>>;
type Handler = Box<dyn Fn(Call, Value) -> Answer + Send + Sync>;

/// The operations of one service that have a handler.
pub struct Routes {
    pub service: &'static ServiceInfo,
    handlers: BTreeMap<&'static str, Handler>,
}

impl Routes {
    pub fn new(service: &'static ServiceInfo) -> Self {
        Self { service, handlers: BTreeMap::new() }
    }

    #[must_use]
    pub fn on<O, F, R, E>(mut self, handler: F) -> Self
    where
        O: Operation + 'static,
        O::Input: Send,
        F: Fn(Call, O::Input) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Result<O::Output, E>> + Send,
        E: Into<Fault>,
    {
        let answer = move |call: Call, input: Value| -> Answer {
            let handler = handler.clone();
            Box::pin(async move {
                let request = decode_input::<O>(input)?;
                handler(call, request).await.map(Encode::encode).map_err(Into::into)
            })
        };
        self.handlers.insert(O::NAME, Box::new(answer));
        self
    }

    pub fn serves(&self, operation: &str) -> bool {
        self.handlers.contains_key(operation)
    }
}

/// Every service that is served, by its signing name.
pub struct Services {
    services: BTreeMap<&'static str, Routes>,
}

impl Services {
    pub fn new(routes: impl IntoIterator<Item = Routes>) -> Self {
        Self { services: routes.into_iter().map(|routes| (routes.service.signing_name, routes)).collect() }
    }

    pub fn all(&self) -> impl Iterator<Item = &Routes> {
        self.services.values()
    }

    pub async fn call(
        &self,
        call: Call,
        service: &str,
        operation: &str,
        input: Value,
    ) -> Result<Value, Fault> {
        let routes = self.services.get(service);
        let handler = routes.and_then(|routes| routes.handlers.get(operation));
        let protocol = routes.map(|routes| routes.service.protocol);
        let handler = handler.ok_or_else(|| not_served(service, operation, protocol))?;
        call.context.open_region(call.scope()).await?;
        handler(call, input).await
    }
}

impl Default for Services {
    fn default() -> Self {
        Self::new([
            crate::acm::routes(),
            crate::autoscaling::routes(),
            crate::cloudwatch::routes(),
            crate::codedeploy::routes(),
            crate::ecs::routes(),
            crate::ec2::routes(),
            crate::elbv2::routes(),
            crate::logs::routes(),
            crate::secretsmanager::routes(),
            crate::servicediscovery::routes(),
            crate::ssm::routes(),
            crate::sts::routes(),
        ])
    }
}

/// What an operation without a handler answers, in the code that its protocol has for it.
pub fn not_served(service: &str, operation: &str, protocol: Option<Protocol>) -> Fault {
    let code = match protocol {
        Some(Protocol::Query | Protocol::Ec2) => "InvalidAction",
        Some(Protocol::Json10 | Protocol::Json11) | None => "UnknownOperationException",
    };
    let message = format!(
        "Longshore does not serve {service}:{operation} yet. docs/coverage.md lists the operations that it serves."
    );
    Fault::sender(code, message)
}
