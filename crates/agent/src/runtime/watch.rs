//! Follows containerd's events. Invariant: after every (re)connection, [`Event::Restarted`] comes only when the
//! subscription is known to be live, so that a list made on it misses nothing.

use std::time::Duration;

use containerd_client::{
    events::{TaskExit, TaskOom},
    services::v1::{PublishRequest, SubscribeRequest},
    tonic::Status,
    types::Envelope,
};
use prost::Message;
use prost_types::Any;
use tokio::sync::broadcast;

use super::{Event, client::Client};

/// An event of our own: that it comes back proves that the subscription is live, for containerd answers a subscription
/// only with its first event.
const MARK: &str = "/longshore/watching";
const EXIT: &str = "/tasks/exit";
const OOM: &str = "/tasks/oom";

const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Runs until it is aborted.
pub(super) async fn follow(client: Client, namespace: String, events: broadcast::Sender<Event>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let mut live = false;
        match follow_once(&client, &namespace, &events, &mut live).await {
            Ok(()) => tracing::debug!("containerd ended its stream of events"),
            Err(status) => tracing::debug!(%status, "containerd's events are interrupted"),
        }
        pause = if live { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        tokio::time::sleep(pause).await;
    }
}

async fn follow_once(
    client: &Client,
    namespace: &str,
    events: &broadcast::Sender<Event>,
    live: &mut bool,
) -> Result<(), Status> {
    let filters = [EXIT, OOM, MARK].map(|topic| format!(r#"topic=="{topic}",namespace=="{namespace}""#));
    let mut subscriber = client.events();
    let subscription = subscriber.subscribe(SubscribeRequest { filters: filters.into() });
    let mut stream = tokio::select! {
        stream = subscription => stream?.into_inner(),
        failure = mark(client) => return Err(failure),
    };
    while let Some(envelope) = stream.message().await? {
        if envelope.topic == MARK {
            if !std::mem::replace(live, true) {
                send(events, Event::Restarted);
            }
        } else if let Some(event) = read(&envelope) {
            send(events, event);
        }
    }
    Ok(())
}

/// Publishes the mark again and again; returns only when that fails.
async fn mark(client: &Client) -> Status {
    loop {
        let request = PublishRequest { topic: MARK.into(), event: Some(Any::default()) };
        if let Err(status) = client.events().publish(request).await {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Exits of processes beside the first one are no concern of the container's state.
fn read(envelope: &Envelope) -> Option<Event> {
    let bytes = envelope.event.as_ref()?.value.as_slice();
    if envelope.topic == OOM {
        return Some(Event::Oom { id: TaskOom::decode(bytes).ok()?.container_id });
    }
    let exit = TaskExit::decode(bytes).ok()?;
    (exit.id == exit.container_id).then_some(Event::Exited { id: exit.container_id })
}

/// Nobody listening is fine: whoever comes later lists.
fn send(events: &broadcast::Sender<Event>, event: Event) {
    let _ = events.send(event);
}
