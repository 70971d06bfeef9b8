//! Bodies that tell their connection when they end.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};

use crate::Connection;
use crate::limits::BODY_TIMEOUT;

/// The body of a request, as handlers read it. It ends with [`BodyTimeout`] when it is not complete in time.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    connection: Connection,
    ended: bool,
    /// Set once the body has to be waited for, which most have not.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// A body was not complete [`BODY_TIMEOUT`] after its head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyTimeout;

impl fmt::Display for BodyTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the body was not complete after {} s", BODY_TIMEOUT.as_secs())
    }
}

impl Error for BodyTimeout {}

impl RequestBody {
    pub(crate) fn new(incoming: Incoming, connection: Connection) -> Self {
        let ended = incoming.is_end_stream();
        Self { incoming, connection, ended, deadline: None }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(BODY_TIMEOUT)));
            ready!(deadline.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Box::new(BodyTimeout))));
        };
        if !self.ended && (frame.is_none() || self.incoming.is_end_stream()) {
            self.ended = true;
            self.connection.with(crate::state::State::body_ended);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// The body of an answer. The connection is serving until this is dropped: with its last frame, or when hyper gives up a
/// client that went away. A stream of events is no idle connection.
#[derive(Debug)]
pub struct AnswerBody<B> {
    body: Source<B>,
    _served: Served,
}

#[derive(Debug)]
enum Source<B> {
    Handler(B),
    Ours(Full<Bytes>),
}

impl<B> AnswerBody<B> {
    pub fn of_handler(body: B, served: Served) -> Self {
        Self { body: Source::Handler(body), _served: served }
    }

    pub fn ours(bytes: Bytes, served: Served) -> Self {
        Self { body: Source::Ours(Full::new(bytes)), _served: served }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for AnswerBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match &mut self.body {
            Source::Handler(body) => Pin::new(body).poll_frame(cx),
            Source::Ours(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Source::Handler(body) => body.is_end_stream(),
            Source::Ours(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Source::Handler(body) => body.size_hint(),
            Source::Ours(body) => body.size_hint(),
        }
    }
}

/// Ends the serving phase, also when hyper drops a request whose client went away.
#[derive(Debug)]
pub struct Served(pub Connection);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.with(|state| state.finish(Instant::now()));
    }
}
