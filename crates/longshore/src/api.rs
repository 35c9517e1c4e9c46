//! What stands behind the front: the services, the access keys, and `/_longshore/`.

use crate::config::Auth;
use crate::credentials::{ACCOUNT, Credentials};
use crate::server::wait_for_agents;
use async_trait::async_trait;
use longshore_control::Context;
use longshore_control::api::{Call, Caller, Services};
use longshore_control::front::{self, Api, LocalAnswer, LocalRequest};
use longshore_model::{ContainerInstanceId, Scope};
use longshore_wire::{Fault, OperationInfo, ServiceInfo, Timestamp, Value};
use std::sync::Arc;

pub struct ServerApi {
    context: Arc<Context>,
    /// The container instances of this machine.
    instances: Vec<ContainerInstanceId>,
    services: Services,
    known: Vec<&'static ServiceInfo>,
    administrator: Credentials,
    auth: Auth,
}

impl ServerApi {
    pub fn new(
        context: Arc<Context>,
        instances: Vec<ContainerInstanceId>,
        administrator: Credentials,
        auth: Auth,
    ) -> Self {
        let services = Services::default();
        let known = services.all().map(|routes| routes.service).collect();
        Self { context, instances, services, known, administrator, auth }
    }

    fn caller(&self, caller: &front::Caller) -> Caller {
        let key = caller.access_key.clone().unwrap_or_default();
        Caller {
            scope: Scope::new(self.account_of(&key), &caller.region),
            user: "admin".into(),
            access_key: key.into(),
        }
    }

    /// With `--auth any`, an access key of twelve digits is the account's number, as test suites use it.
    fn account_of<'a>(&'a self, access_key: &'a str) -> &'a str {
        let is_account = access_key.len() == 12 && access_key.bytes().all(|b| b.is_ascii_digit());
        if access_key == self.administrator.access_key_id {
            &self.administrator.account
        } else if is_account {
            access_key
        } else {
            ACCOUNT
        }
    }

    /// Back to the first state: no records, no logs; containers are removed by the agents.
    async fn reset(&self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        self.context.store.reset().await?;
        self.context.log_store.reset().await?;
        self.context.metric_store.reset()?;
        wait_for_agents(&self.context, &self.instances).await;
        Ok(())
    }
}

#[async_trait]
impl Api for ServerApi {
    fn services(&self) -> &[&'static ServiceInfo] {
        &self.known
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.context.now().millis())
    }

    fn secret(&self, access_key: &str, session_token: Option<&str>) -> Option<String> {
        let known = access_key == self.administrator.access_key_id && session_token.is_none();
        known.then(|| self.administrator.secret_access_key.clone())
    }

    async fn call(
        &self,
        caller: front::Caller,
        service: &'static ServiceInfo,
        operation: &'static OperationInfo,
        input: Value,
    ) -> Result<Value, Fault> {
        let call = Call { context: Arc::clone(&self.context), caller: self.caller(&caller) };
        self.services.call(call, service.signing_name, operation.name, input).await
    }

    async fn local(&self, request: LocalRequest) -> Option<LocalAnswer> {
        if self.auth != Auth::Any || request.path != "/_longshore/reset" {
            return None;
        }
        if request.method != http::Method::POST {
            return Some(LocalAnswer::json(405, r#"{"message":"Use POST."}"#));
        }
        match self.reset().await {
            Ok(()) => Some(LocalAnswer::json(200, r#"{"status":"reset"}"#)),
            Err(error) => {
                let message = serde_json::json!({ "message": crate::chain(&*error) });
                Some(LocalAnswer::json(500, message.to_string()))
            }
        }
    }
}
