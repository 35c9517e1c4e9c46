//! The bodies of answers. Invariant: a connection to a target is free for others when the answer's last byte has come.

use crate::peer::{Busy, Sender};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll};

pub enum Payload {
    /// Written here.
    Own(Option<Bytes>),
    /// Passed on from a target.
    Passed(Passed),
}

pub struct Passed {
    body: Incoming,
    sender: Option<Sender>,
    busy: Busy,
}

impl Passed {
    /// Without a sender the connection is not to be used again.
    pub fn new(body: Incoming, sender: Option<Sender>, busy: Busy) -> Self {
        let mut passed = Self { body, sender, busy };
        passed.settle();
        passed
    }

    fn settle(&mut self) {
        if self.body.is_end_stream()
            && let Some(sender) = self.sender.take()
        {
            self.busy.peer().put_back(sender);
        }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Own(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Passed(passed) => {
                let polled = Pin::new(&mut passed.body).poll_frame(context);
                match &polled {
                    Poll::Ready(Some(Err(_))) => passed.sender = None,
                    Poll::Ready(_) => passed.settle(),
                    Poll::Pending => {}
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes) => bytes.is_none(),
            Self::Passed(passed) => passed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Self::Passed(passed) => passed.body.size_hint(),
        }
    }
}
