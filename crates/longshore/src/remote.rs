//! Links between machines: WebSocket with CBOR frames over TLS, where each end shows who it is.
//!
//! Invariant: a link carries the messages of `model::link` and no others, and holds no truth: what is lost with one is
//! said again on the next.

pub mod authority;
pub mod connector;
pub mod listener;
pub mod token;

use futures::{Sink, SinkExt, Stream, StreamExt};
use longshore_model::ContainerInstanceId;
use longshore_model::vpc::Cidr;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

/// The name in every control plane's certificate, wherever it listens.
pub const CONTROL_NAME: &str = "control.longshore.internal";
/// How often each end lets the other know that it is there, and how long it waits for that.
const PING: Duration = Duration::from_secs(2);
const SILENCE: Duration = Duration::from_secs(7);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long an address has to answer at all: a packet that was lost is sent again within that.
const CONNECT: Duration = Duration::from_secs(3);
/// The largest message: what an instance with thousands of tasks is told when it connects.
const LARGEST: usize = 64 << 20;
/// The largest message of an agent: a batch of log lines.
const LARGEST_OF_AGENT: usize = 8 << 20;
/// The largest message of somebody without a certificate: a token and a key.
const LARGEST_OF_STRANGER: usize = 16 << 10;

/// What an agent says first.
#[derive(Serialize, Deserialize)]
pub enum Greeting {
    /// It was never here: let it in, and sign its key.
    Join { token: String, secret: String, cluster: Option<String>, public_key: Vec<u8> },
    /// It has a certificate, and wants a new one for this key.
    Renew { instance: ContainerInstanceId, public_key: Vec<u8> },
    /// It has a certificate, and goes on with the messages of `model::link`.
    Link,
}

/// What a control plane answers to all but [`Greeting::Link`].
#[derive(Serialize, Deserialize)]
pub enum Welcome {
    Joined(Joined),
    Refused(String),
}

/// What an agent keeps of its joining.
#[derive(Serialize, Deserialize)]
pub struct Joined {
    pub instance: ContainerInstanceId,
    /// Where its cluster is; none for Fargate capacity.
    pub region: Option<String>,
    pub cluster: Option<String>,
    /// The block of the default VPCs.
    pub vpc_cidr: Cidr,
    /// PEM texts.
    pub certificate: String,
    pub authority: String,
}

/// The name in the certificate of an instance's agent.
pub fn agent_name(instance: ContainerInstanceId) -> String {
    format!("i{instance}.agents.longshore.internal")
}

#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("the other end closed the link")]
    Closed,
    #[error("the other end refused the link: {0}")]
    Refused(String),
    #[error("the other end was silent for {} seconds", SILENCE.as_secs())]
    Silent,
    #[error("speak WebSocket")]
    WebSocket(#[source] Box<tungstenite::Error>),
    #[error("a message that is not one: {0}")]
    NotAMessage(String),
}

impl From<tungstenite::Error> for Broken {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => Self::Closed,
            other => Self::WebSocket(Box::new(other)),
        }
    }
}

/// Frames in both directions.
pub trait Frames:
    Stream<Item = Result<Message, tungstenite::Error>> + Sink<Message, Error = tungstenite::Error> + Unpin + Send
{
}

impl<T> Frames for T where
    T: Stream<Item = Result<Message, tungstenite::Error>>
        + Sink<Message, Error = tungstenite::Error>
        + Unpin
        + Send
{
}

pub fn limits(largest: usize) -> WebSocketConfig {
    let mut limits = WebSocketConfig::default();
    limits.max_message_size = Some(largest);
    limits.max_frame_size = Some(largest);
    limits.read_buffer_size = 8 << 10;
    limits.write_buffer_size = 0;
    limits
}

/// Carries messages both ways until the link breaks or one of the channels closes.
pub async fn carry<Out: Serialize, In: DeserializeOwned>(
    frames: &mut impl Frames,
    outgoing: &mut mpsc::Receiver<Out>,
    incoming: &mpsc::Sender<In>,
) -> Broken {
    let mut ping = tokio::time::interval(PING);
    ping.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut heard = tokio::time::Instant::now();
    loop {
        let sent = tokio::select! {
            message = outgoing.recv() => match message {
                Some(message) => send(frames, &message).await,
                None => {
                    let _ = tokio::time::timeout(PING, frames.close()).await;
                    return Broken::Closed;
                }
            },
            frame = frames.next() => {
                heard = tokio::time::Instant::now();
                match read(frame) {
                    Ok(Some(message)) => incoming.send(message).await.map_err(|_| Broken::Closed),
                    Ok(None) => Ok(()),
                    Err(broken) => Err(broken),
                }
            },
            _ = ping.tick() => frames.send(Message::Ping(Default::default())).await.map_err(Broken::from),
            () = tokio::time::sleep_until(heard + SILENCE) => Err(Broken::Silent),
        };
        if let Err(broken) = sent {
            return broken;
        }
    }
}

pub async fn send(frames: &mut impl Frames, message: &impl Serialize) -> Result<(), Broken> {
    let mut bytes = Vec::new();
    ciborium::into_writer(message, &mut bytes).map_err(|error| Broken::NotAMessage(error.to_string()))?;
    let sending = frames.send(Message::Binary(bytes.into()));
    // A peer that takes nothing must not hold this end for ever.
    match tokio::time::timeout(SILENCE, sending).await {
        Ok(sent) => Ok(sent?),
        Err(_) => Err(Broken::Silent),
    }
}

/// Closes a link and says why.
pub async fn refuse(frames: &mut impl Frames, why: &str) {
    // A close frame has room for 125 bytes, two of which are its code.
    let end = why.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= 123).last();
    let reason = why.get(..end.unwrap_or_default()).unwrap_or_default().to_owned();
    let close = CloseFrame { code: CloseCode::Policy, reason: reason.into() };
    let closing = async {
        frames.send(Message::Close(Some(close))).await?;
        // The other end reads the reason before it answers.
        while frames.next().await.is_some_and(|frame| frame.is_ok()) {}
        Ok::<_, tungstenite::Error>(())
    };
    let _ = tokio::time::timeout(PING, closing).await;
}

/// The next message; waits for it no longer than a handshake may take.
pub async fn receive<In: DeserializeOwned>(frames: &mut impl Frames) -> Result<In, Broken> {
    let next = async {
        loop {
            if let Some(message) = read(frames.next().await)? {
                return Ok(message);
            }
        }
    };
    tokio::time::timeout(HANDSHAKE, next).await.unwrap_or(Err(Broken::Silent))
}

/// `None` for frames that only say that the other end is there.
fn read<In: DeserializeOwned>(
    frame: Option<Result<Message, tungstenite::Error>>,
) -> Result<Option<In>, Broken> {
    match frame.ok_or(Broken::Closed)?? {
        Message::Binary(bytes) => {
            let message = ciborium::from_reader(&*bytes);
            message.map(Some).map_err(|error| Broken::NotAMessage(error.to_string()))
        }
        Message::Close(Some(close)) if close.code == CloseCode::Policy => {
            Err(Broken::Refused(close.reason.to_string()))
        }
        Message::Close(_) => Err(Broken::Closed),
        Message::Text(_) => Err(Broken::NotAMessage("text".to_owned())),
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests;
