//! One connection from its accept to its end.

use std::convert::Infallible;
use std::error::Error;
use std::net::Shutdown;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use brisq_api::ApiError;
use brisq_model::limits::HEAD_MAX_BYTES;
use bytes::Bytes;
use futures_util::FutureExt;
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tower::{Service, ServiceExt};

use crate::body::{AnswerBody, RequestBody, Served};
use crate::limits::{PROBES, SILENCE};
use crate::places::Place;
use crate::refusal::{Refusal, answer, too_many_connections};
use crate::socket::Socket;
use crate::state::Overstay;
use crate::work::Work;
use crate::{Connection, Limits};

/// How often a connection is looked at while no time-out of its own is nearer.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// For how long a refusal may take to go out, and for how long after it what the client still sends is thrown away: closed
/// at once, the connection would be reset under an answer that the client has not read yet.
const LINGER: Duration = Duration::from_secs(2);
/// Buffer for what is thrown away.
const LINGER_BUFFER: usize = 16 * 1024;

pub async fn drive<S, B>(
    connection: Connection,
    service: S,
    limits: Limits,
    place: Place,
    shutdown: watch::Receiver<bool>,
) where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let place = Arc::new(place);
    let refusal = match requests(&connection, service, limits, &place, shutdown).await {
        Ended::ByItself => connection.with(|state| state.refusal()),
        Ended::Overstayed(Overstay::Head) => Some(Refusal::HeadTimeout),
        Ended::Overstayed(_) => return,
    };
    match close(&connection, refusal).await {
        Ok(true) => {
            let linger = place.linger();
            drop(place);
            if linger.is_some() {
                // The client may well send for longer; it was answered.
                let _ = timeout(LINGER, discard(connection.stream())).await;
            }
        }
        Ok(false) => {}
        Err(error) => tracing::debug!(%error, "a connection was not closed in order"),
    }
}

/// How the requests of a connection ended.
enum Ended {
    /// By the client, by hyper, or by a shutdown.
    ByItself,
    /// By a time-out.
    Overstayed(Overstay),
}

/// Serves the connection's requests, one after the other.
async fn requests<S, B>(
    connection: &Connection,
    service: S,
    limits: Limits,
    place: &Arc<Place>,
    mut shutdown: watch::Receiver<bool>,
) -> Ended
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (of_requests, standing) = (connection.clone(), Arc::clone(place));
    let serve = service_fn(move |request| {
        let (connection, place) = (of_requests.clone(), Arc::clone(&standing));
        let serving =
            one(request, service.clone(), connection.clone(), Arc::clone(&place), limits.connections_max);
        Work::new(serving, connection, place)
    });
    let mut builder = http1::Builder::new();
    // hyper has one knob for the head's time-out and for idle keep-alive; both are ours. Its `pipeline_flush` loses answers
    // when a byte lies behind a body, and puts no bound on answers that nobody reads.
    builder.header_read_timeout(None).max_buf_size(HEAD_MAX_BYTES);
    let mut serving =
        std::pin::pin!(builder.serve_connection(TokioIo::new(Socket(connection.clone())), serve));
    let mut draining = false;
    loop {
        let beyond = place.is_beyond();
        let limits = if beyond { limits.beyond() } else { limits };
        let now = std::time::Instant::now();
        let silent = if beyond { connection.with(|state| state.silent_since()) } else { None };
        let gives_way = silent.is_some_and(|since| now.duration_since(since) >= SILENCE);
        // A head that begins after this look is met by the next one before its time is over.
        let look_every = LOOK_EVERY.min(if beyond { SILENCE } else { limits.header_timeout });
        let left = match connection.with(|state| state.overstay(&limits, now)) {
            Ok(left) => left.unwrap_or(look_every).min(look_every),
            Err(reason) => return Ended::Overstayed(reason),
        };
        tokio::select! {
            ended = serving.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended");
                }
                return Ended::ByItself;
            }
            () = sleep(left) => {}
            () = place.needed(), if gives_way => {
                if connection.with(|state| state.silent_since().is_some()) && !has_input(connection.stream()) {
                    return Ended::Overstayed(Overstay::Idle);
                }
                place.pass_on();
            }
            _ = shutdown.wait_for(|down| *down), if !draining => {
                draining = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Serves one request.
async fn one<S, B>(
    request: Request<Incoming>,
    service: S,
    connection: Connection,
    place: Arc<Place>,
    connections_max: usize,
) -> Result<Response<AnswerBody<B>>, Infallible>
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible>,
    B: Body<Data = Bytes> + Unpin,
{
    let with_body = !request.body().is_end_stream();
    connection.with(|state| state.begin(with_body, std::time::Instant::now()));
    let served = Served(connection.clone());
    if place.is_beyond() && !PROBES.contains(&request.uri().path()) {
        let refused = last(&too_many_connections(connections_max));
        return Ok(refused.map(|bytes| AnswerBody::ours(bytes, served)));
    }
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let mut request = request.map(|incoming| RequestBody::new(incoming, connection.clone()));
    request.extensions_mut().insert(connection);
    // What a panic leaves behind is the request's alone; what others share says itself that it broke off.
    match AssertUnwindSafe(service.oneshot(request)).catch_unwind().await {
        Ok(answered) => answered.map(|response| response.map(|body| AnswerBody::of_handler(body, served))),
        Err(_) => {
            tracing::error!(%method, path = uri.path(), "a request broke off: its handler panicked");
            Ok(last(&ApiError::broke_off()).map(|bytes| AnswerBody::ours(bytes, served)))
        }
    }
}

/// An error after which the connection ends.
fn last(error: &ApiError) -> Response<Bytes> {
    let mut refused = answer(error);
    refused.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    refused
}

/// Says what is still to be said, and sends the FIN. Answers whether the client may still be sending.
async fn close(connection: &Connection, refusal: Option<Refusal>) -> std::io::Result<bool> {
    let stream = connection.stream();
    if let Some(refusal) = refusal {
        timeout(LINGER, write(stream, &refusal.bytes())).await??;
    }
    match SockRef::from(stream).shutdown(Shutdown::Write) {
        Err(error) if error.kind() == std::io::ErrorKind::NotConnected => return Ok(false),
        result => result?,
    }
    Ok(refusal.is_some() || connection.with(|state| state.input_unread()))
}

/// Whether bytes lie in the socket that were not read yet.
fn has_input(stream: &TcpStream) -> bool {
    SockRef::from(stream).peek(&mut [std::mem::MaybeUninit::uninit()]).is_ok()
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn discard(stream: &TcpStream) -> std::io::Result<()> {
    let mut thrown_away = vec![0; LINGER_BUFFER];
    loop {
        stream.readable().await?;
        match stream.try_read(&mut thrown_away) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}
