//! Calls the functions that lifecycle hooks name, at the endpoint that is configured, and commits what they answer.
//!
//! Invariant: a hook has at most one call under way here. One that was cut off is made again by whoever drives the
//! services then, so functions see a call at least once, as on AWS.
//!
//! Follows <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/lambda-lifecycle-hooks.html>.

use crate::context::{CommitError, Context};
use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use longshore_engine::View;
use longshore_engine::service::{self, HookAnswer, HookCall};
use longshore_model::change::Key;
use longshore_model::service::{Deployment, Service, ServiceDeployment, revision_arn};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Seconds until a function that wants to be called again is, where it does not say.
const AGAIN: u32 = 30;
/// The least and the most seconds that a function may ask for; a deployment waits a day for its hooks.
const SHORTEST_DELAY: u64 = 1;
const LONGEST_DELAY: u64 = 86_400;
/// As long as a Lambda function may take.
const TIMEOUT: Duration = Duration::from_secs(15 * 60);
const CONNECT: Duration = Duration::from_secs(5);
const LARGEST_ANSWER: usize = 256 * 1024;
/// Calls under way at a time; the others are made when a service is looked at again.
const AT_ONCE: usize = 64;

pub struct Hooks {
    context: Arc<Context>,
    client: Client<HttpConnector, Full<Bytes>>,
    under_way: Mutex<BTreeSet<String>>,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("no endpoint for functions is configured: start with --lambda-endpoint")]
    NoEndpoint,
    #[error("the function's address is no URL")]
    Address(#[from] http::Error),
    #[error("reach the endpoint")]
    Reach(#[from] hyper_util::client::legacy::Error),
    #[error("read the answer: {0}")]
    Read(Box<dyn std::error::Error + Send + Sync>),
    #[error("the function took too long")]
    Late,
    #[error("the endpoint answered {0}")]
    Busy(http::StatusCode),
}

impl Hooks {
    pub fn new(context: Arc<Context>) -> Arc<Self> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Arc::new(Self { context, client, under_way: Mutex::default() })
    }

    /// Makes the calls that are not under way yet, beside what the caller does.
    pub fn call(self: &Arc<Self>, service: &Key, calls: &[HookCall]) {
        for call in calls {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            if under_way.len() >= AT_ONCE || !under_way.insert(call.hook.clone()) {
                continue;
            }
            drop(under_way);
            let (hooks, service, call) = (Arc::clone(self), service.clone(), call.clone());
            tokio::spawn(async move {
                hooks.carry_out(&service, &call).await;
                hooks.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&call.hook);
            });
        }
    }

    async fn carry_out(&self, service: &Key, call: &HookCall) {
        let answer = match self.ask(service, call).await {
            Ok(answer) => answer,
            Err(error) => {
                let (error, function) = (&error as &dyn std::error::Error, call.function.as_str());
                tracing::warn!(function, error, "a lifecycle hook could not be called, and will be again");
                HookAnswer::InProgress { delay: AGAIN, details: None }
            }
        };
        let committed = self.context.commit::<_, CommitError, _>(|snapshot, transaction| {
            let Some(service) = snapshot.view.services.get(service) else { return Ok(()) };
            let now = self.context.now();
            // A deployment that was stopped meanwhile asks nobody any more.
            if let Ok(next) = service::hook_answered(&snapshot.view, service, &call.hook, &answer, now) {
                service::write_hook(service, &next, transaction);
            }
            Ok(())
        });
        if let Err(error) = committed.await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "a function's answer was not kept, and it will be called again");
        }
    }

    async fn ask(&self, service: &Key, call: &HookCall) -> Result<HookAnswer, CallError> {
        let endpoint = self.context.config.lambda_endpoint.as_deref().ok_or(CallError::NoEndpoint)?;
        let view = self.context.view();
        let present = view.services.get(service);
        let shift = present.and_then(|present| Some((present, service::shift(&view, present)?)));
        let Some((present, (deployment, _))) = shift else { return Ok(HookAnswer::Failed) };
        let payload = payload(&view, present, deployment, call);
        let request = Request::builder()
            .method(Method::POST)
            .uri(address(endpoint, &call.function)?)
            .header("content-type", "application/json")
            .header("x-amz-invocation-type", "RequestResponse")
            .body(Full::new(Bytes::from(payload.to_string())))?;
        tokio::time::timeout(TIMEOUT, self.exchange(request)).await.map_err(|_| CallError::Late)?
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<HookAnswer, CallError> {
        let response = self.client.request(request).await?;
        let status = response.status();
        if status.is_server_error() || status == http::StatusCode::TOO_MANY_REQUESTS {
            return Err(CallError::Busy(status));
        }
        let failed = !status.is_success() || response.headers().contains_key("x-amz-function-error");
        let body =
            Limited::new(response.into_body(), LARGEST_ANSWER).collect().await.map_err(CallError::Read)?;
        Ok(if failed { HookAnswer::Failed } else { answer(&body.to_bytes()) })
    }
}

/// Lambda's Invoke of a function.
fn address(endpoint: &str, function: &str) -> Result<Uri, http::Error> {
    let name = function.split_once(":function:").map_or(function, |(_, name)| name);
    let (name, qualifier) = match name.split_once(':') {
        Some((name, qualifier)) => (name, format!("?Qualifier={qualifier}")),
        None => (name, String::new()),
    };
    let endpoint = endpoint.trim_end_matches('/');
    Ok(format!("{endpoint}/2015-03-31/functions/{name}/invocations{qualifier}").parse::<Uri>()?)
}

/// What the function is told.
fn payload(view: &View, service: &Service, deployment: &ServiceDeployment, call: &HookCall) -> Value {
    let weights = |of: fn((u32, u32)) -> u32| -> Map<String, Value> {
        let weight = |d: &Deployment| f64::from(of(service::traffic(view, service, d))) / 10.0;
        let arn = |d: &Deployment| {
            revision_arn(&service.scope, &service.cluster, &service.name, &d.service_revision)
        };
        service.deployments.iter().map(|d| (arn(d), json!(weight(d)))).collect()
    };
    let target = revision_arn(&service.scope, &service.cluster, &service.name, &deployment.target);
    let details = call.details.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let mut told = json!({
        "executionDetails": {
            "serviceArn": service.arn(),
            "targetServiceRevisionArn": target,
            "testTrafficWeights": weights(|(_, test)| test),
            "productionTrafficWeights": weights(|(production, _)| production),
        },
        "executionId": call.hook,
        "lifecycleStage": call.stage.as_str(),
        "resourceArn": deployment.arn(),
    });
    if let Some(details) = details {
        told["hookDetails"] = details;
    }
    told
}

/// What a function says; one that says nothing that is understood has failed.
fn answer(body: &[u8]) -> HookAnswer {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    match said["hookStatus"].as_str() {
        Some("SUCCEEDED") => HookAnswer::Succeeded,
        Some("IN_PROGRESS") => {
            let delay = said["callBackDelay"].as_u64().map(|s| s.clamp(SHORTEST_DELAY, LONGEST_DELAY));
            HookAnswer::InProgress {
                delay: delay.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(AGAIN),
                details: said.get("hookDetails").map(Value::to_string),
            }
        }
        _ => HookAnswer::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood_or_are_failures() {
        assert_eq!(answer(br#"{"hookStatus":"SUCCEEDED"}"#), HookAnswer::Succeeded);
        let waits = |delay, details: Option<&str>| HookAnswer::InProgress {
            delay,
            details: details.map(str::to_owned),
        };
        assert_eq!(answer(br#"{"hookStatus":"IN_PROGRESS"}"#), waits(30, None));
        let again = br#"{"hookStatus":"IN_PROGRESS","callBackDelay":7,"hookDetails":{"a":1}}"#;
        assert_eq!(answer(again), waits(7, Some(r#"{"a":1}"#)));
        let far = br#"{"hookStatus":"IN_PROGRESS","callBackDelay":99999999999}"#;
        assert_eq!(answer(far), waits(86_400, None));
        for other in [&b""[..], b"null", b"[]", b"{\"hookStatus\":1}", b"{\"hookStatus\":\"FAILED\"}"] {
            assert_eq!(answer(other), HookAnswer::Failed, "{other:?}");
        }
    }

    #[test]
    fn a_function_is_invoked_by_its_name() {
        let of = |arn: &str| address("http://127.0.0.1:9/", arn).unwrap().to_string();
        let base = "http://127.0.0.1:9/2015-03-31/functions/agrees/invocations";
        assert_eq!(of("arn:aws:lambda:us-east-1:1:function:agrees"), base);
        assert_eq!(of("arn:aws:lambda:us-east-1:1:function:agrees:live"), format!("{base}?Qualifier=live"));
        assert!(address("http://127.0.0.1:9", "arn:aws:lambda:us-east-1:1:function:a b").is_err());
    }
}
