//! containerd's content store. Invariant: bytes enter it only under the digest that containerd computed over them, and a
//! broken transfer goes on where it stopped, in this process or in a later one.

use std::{collections::HashMap, time::Duration};

use bytes::{Bytes, BytesMut};
use containerd_client::{
    services::v1::{
        AbortRequest, ReadContentRequest, WriteAction, WriteContentRequest, WriteContentResponse,
    },
    tonic::{Code, Status, Streaming},
};
use futures::{StreamExt, stream::BoxStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{
    PullError,
    manifest::{DOCUMENT_LIMIT, Descriptor, digest},
};
use crate::runtime::{
    Error,
    client::{Client, failed, is_disk_full, unless_missing},
};

pub(super) type ByteStream = BoxStream<'static, Result<Bytes, PullError>>;
pub(super) type Labels = HashMap<String, String>;

/// Where content comes from when it is not here.
#[async_trait::async_trait]
pub(super) trait Source: Send + Sync {
    /// A manifest or an index, unverified.
    async fn manifest(&self, descriptor: &Descriptor) -> Result<Bytes, PullError>;

    /// A blob's bytes from `offset` on, unverified.
    async fn blob(&self, descriptor: &Descriptor, offset: u64) -> Result<ByteStream, PullError>;
}

#[derive(Clone)]
pub(super) struct Store {
    pub client: Client,
}

impl Store {
    /// A manifest, an index or a configuration that is here.
    pub async fn read(&self, digest: &str) -> Result<Option<Bytes>, Error> {
        let request = ReadContentRequest { digest: digest.into(), offset: 0, size: 0 };
        let read = async {
            let mut stream = self.client.content().read(request).await?.into_inner();
            let mut bytes = BytesMut::new();
            while let Some(message) = stream.message().await? {
                bytes.extend_from_slice(&message.data);
                if bytes.len() as u64 > DOCUMENT_LIMIT {
                    return Err(Status::out_of_range("larger than any manifest or configuration"));
                }
            }
            Ok(bytes.freeze())
        };
        match read.await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(failed("read content")(status)),
        }
    }

    /// A content that is here, from `offset` on.
    pub async fn stream(&self, descriptor: &Descriptor, offset: u64) -> Result<ByteStream, PullError> {
        let request =
            ReadContentRequest { digest: descriptor.digest.clone(), offset: signed(offset), size: 0 };
        let answer = self.client.content().read(request).await;
        let stream = answer.map_err(|status| plain_error("read content", status))?.into_inner();
        let bytes = |message: Result<containerd_client::services::v1::ReadContentResponse, Status>| {
            message
                .map(|message| Bytes::from(message.data))
                .map_err(|status| plain_error("read content", status))
        };
        Ok(stream.map(bytes).boxed())
    }

    pub async fn write(
        &self,
        descriptor: &Descriptor,
        bytes: Bytes,
        labels: Labels,
    ) -> Result<(), PullError> {
        let Some(mut session) = Session::open(&self.client, descriptor).await? else { return Ok(()) };
        let written = usize::try_from(session.offset).unwrap_or(usize::MAX);
        if written < bytes.len() {
            session.write(bytes.slice(written..)).await?;
        }
        self.finish(session, descriptor, labels).await
    }

    /// Brings a blob here; `progress` gets the count of each batch of new bytes.
    pub async fn ingest(
        &self,
        descriptor: &Descriptor,
        source: &dyn Source,
        progress: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), PullError> {
        let Some(mut session) = Session::open(&self.client, descriptor).await? else {
            progress(descriptor.size);
            return Ok(());
        };
        progress(session.offset);
        transfer(&mut session, descriptor, source, progress).await?;
        self.finish(session, descriptor, Labels::new()).await
    }

    /// Forgets what an ingestion that failed has written so far.
    pub async fn abandon(&self, descriptor: &Descriptor) {
        let request = AbortRequest { r#ref: reference(descriptor) };
        if let Err(error) = unless_missing(self.client.content().abort(request).await, "abort a write") {
            tracing::warn!(%error, digest = descriptor.digest, "a part of a download stays");
        }
    }

    async fn finish(
        &self,
        session: Session,
        descriptor: &Descriptor,
        labels: Labels,
    ) -> Result<(), PullError> {
        let reference = session.reference.clone();
        let result = session.commit(descriptor, labels).await;
        if matches!(result, Err(PullError::DigestMismatch { .. })) {
            // The wrong bytes must not be what the next attempt goes on from.
            let _ = self.client.content().abort(AbortRequest { r#ref: reference }).await;
        }
        result
    }
}

/// What a write of this content is called until it is whole.
fn reference(descriptor: &Descriptor) -> String {
    format!("longshore-{}", descriptor.digest)
}

/// Verified bytes of a small document.
pub(super) fn verified(descriptor: &Descriptor, bytes: Bytes) -> Result<Bytes, PullError> {
    let actual = digest(&bytes);
    if actual == descriptor.digest {
        return Ok(bytes);
    }
    Err(PullError::DigestMismatch { what: "a manifest".into(), expected: descriptor.digest.clone(), actual })
}

/// Collects a stream that must be small.
pub(super) async fn collect(mut stream: ByteStream, limit: u64) -> Result<Bytes, PullError> {
    let mut all = BytesMut::new();
    while let Some(bytes) = stream.next().await {
        all.extend_from_slice(&bytes?);
        if all.len() as u64 > limit {
            let message = format!("a document is longer than {limit} bytes");
            return Err(PullError::Registry { host: "the image's source".into(), message });
        }
    }
    Ok(all.freeze())
}

/// Opens the source again where it broke, as long as each attempt brings something or the attempts are few.
async fn transfer(
    session: &mut Session,
    descriptor: &Descriptor,
    source: &dyn Source,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), PullError> {
    const ATTEMPTS: u32 = 5;
    let mut failures = 0;
    while session.offset < descriptor.size {
        let before = session.offset;
        let broke = match source.blob(descriptor, session.offset).await {
            Ok(stream) => copy(stream, session, descriptor, progress).await?,
            Err(error) => Some(error),
        };
        let Some(error) = broke.filter(|_| session.offset < descriptor.size) else { continue };
        if !is_passing(&error) {
            return Err(error);
        }
        failures = if session.offset > before { 1 } else { failures + 1 };
        if failures >= ATTEMPTS {
            return Err(error);
        }
        tracing::info!(digest = descriptor.digest, offset = session.offset, %error, "a download broke: going on");
        tokio::time::sleep(Duration::from_millis(50 << failures)).await;
    }
    Ok(())
}

/// What broke the source, if anything; an error is the store's.
async fn copy(
    mut stream: ByteStream,
    session: &mut Session,
    descriptor: &Descriptor,
    progress: &(dyn Fn(u64) + Send + Sync),
) -> Result<Option<PullError>, PullError> {
    /// Few messages, and little lost when the connection breaks.
    const BATCH: usize = 512 << 10;
    let mut batch = BytesMut::with_capacity(BATCH);
    loop {
        let next = stream.next().await;
        if let Some(Ok(bytes)) = &next {
            batch.extend_from_slice(bytes);
        }
        let ended = !matches!(next, Some(Ok(_)));
        if batch.len() >= BATCH || (ended && !batch.is_empty()) {
            let bytes = batch.split().freeze();
            let count = bytes.len() as u64;
            if session.offset + count > descriptor.size {
                let actual = format!("more than {} bytes", descriptor.size);
                let expected = descriptor.digest.clone();
                return Err(PullError::DigestMismatch { what: "a layer".into(), expected, actual });
            }
            session.write(bytes).await?;
            progress(count);
        }
        match next {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Ok(Some(error)),
            None if session.offset < descriptor.size => {
                let message =
                    format!("the download ended after {} of {} bytes", session.offset, descriptor.size);
                return Ok(Some(PullError::Unreachable { host: "the registry".into(), message }));
            }
            None => return Ok(None),
        }
    }
}

fn is_passing(error: &PullError) -> bool {
    matches!(error, PullError::Unreachable { .. })
}

/// One write to the content store.
struct Session {
    reference: String,
    requests: mpsc::Sender<WriteContentRequest>,
    answers: Streaming<WriteContentResponse>,
    /// Sent, and not yet answered.
    outstanding: u32,
    offset: u64,
}

impl Session {
    /// `None` when the content is here.
    async fn open(client: &Client, descriptor: &Descriptor) -> Result<Option<Self>, PullError> {
        let reference = reference(descriptor);
        // Another process of ours that was just killed may still hold the reference for an instant.
        for attempt in 0..50 {
            match Self::try_open(client, descriptor, reference.clone()).await {
                Ok(session) => return Ok(Some(session)),
                Err(status) if status.code() == Code::AlreadyExists => return Ok(None),
                Err(status) if status.message().contains("locked") && attempt < 49 => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(status) => return Err(store_error(descriptor, status)),
            }
        }
        Ok(None)
    }

    async fn try_open(client: &Client, descriptor: &Descriptor, reference: String) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(4);
        let question = WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: reference.clone(),
            total: signed(descriptor.size),
            expected: descriptor.digest.clone(),
            ..WriteContentRequest::default()
        };
        requests.send(question).await.map_err(|_| Status::internal("the write ended before it began"))?;
        let mut answers = client.content().write(ReceiverStream::new(receiver)).await?.into_inner();
        let answer = answers.message().await?.ok_or_else(|| Status::internal("the write ended at once"))?;
        let offset = u64::try_from(answer.offset).unwrap_or(0);
        Ok(Self { reference, requests, answers, outstanding: 0, offset })
    }

    async fn write(&mut self, data: Bytes) -> Result<(), PullError> {
        let count = data.len() as u64;
        let request = WriteContentRequest {
            action: WriteAction::Write.into(),
            offset: signed(self.offset),
            data: data.into(),
            ..WriteContentRequest::default()
        };
        // When it cannot be sent, the reason is in the answers.
        let _ = self.requests.send(request).await;
        self.outstanding += 1;
        self.offset += count;
        while self.outstanding > 2 {
            self.answer().await.map_err(|status| plain_error("write content", status))?;
            self.outstanding -= 1;
        }
        Ok(())
    }

    async fn commit(mut self, descriptor: &Descriptor, labels: Labels) -> Result<(), PullError> {
        let request = WriteContentRequest {
            action: WriteAction::Commit.into(),
            total: signed(descriptor.size),
            expected: descriptor.digest.clone(),
            // An offset of zero would mean: throw away what was written.
            offset: signed(self.offset),
            labels,
            ..WriteContentRequest::default()
        };
        let _ = self.requests.send(request).await;
        loop {
            match self.answer().await {
                Ok(answer) if answer.action() == WriteAction::Commit => return Ok(()),
                Ok(_) => {}
                Err(status) if status.code() == Code::AlreadyExists => return Ok(()),
                Err(status) => return Err(store_error(descriptor, status)),
            }
        }
    }

    async fn answer(&mut self) -> Result<WriteContentResponse, Status> {
        self.answers.message().await?.ok_or_else(|| Status::unavailable("containerd ended the write"))
    }
}

fn store_error(descriptor: &Descriptor, status: Status) -> PullError {
    let message = status.message();
    let mismatch =
        message.split_once("unexpected commit digest ").or(message.split_once("unexpected commit size "));
    if let Some((_, rest)) = mismatch {
        let actual = rest.split([',', ' ']).next().unwrap_or_default().to_owned();
        let what = if descriptor.media_type.contains("layer") || descriptor.media_type.contains("diff") {
            "a layer"
        } else {
            "a blob"
        };
        return PullError::DigestMismatch { what: what.into(), expected: descriptor.digest.clone(), actual };
    }
    plain_error("write content", status)
}

pub(super) fn plain_error(attempted: &'static str, status: Status) -> PullError {
    if is_disk_full(status.message()) { PullError::DiskFull } else { failed(attempted)(status).into() }
}

/// Sizes were checked to fit when they were read.
fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
