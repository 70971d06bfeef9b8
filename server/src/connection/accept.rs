use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout_at};
use tower::ServiceExt;

use super::socket::{Connection, Phase, Socket};

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections open at once; further ones wait in the kernel's backlog.
    pub connections_max: usize,
    /// From a request's first byte until its head is complete.
    pub header_timeout: Duration,
    /// Between two requests.
    pub idle_timeout: Duration,
    /// From the first sign of shutdown until connections are cut.
    pub drain_deadline: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(90),
            drain_deadline: Duration::from_secs(10),
        }
    }
}

/// How often a connection's phase is held against its timeouts.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Pause after a failed accept (no descriptors left, say), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Streams of one HTTP/2 connection.
const HTTP2_STREAMS_MAX: u32 = 256;

/// Serves `router` until `shutdown` turns true, then drains: no new connection, requests in progress finish, and
/// whatever is left at the deadline is cut. Returns how many connections were cut.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) -> usize {
    let room = Arc::new(Semaphore::new(limits.connections_max));
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let (stream, place) = tokio::select! {
            accepted = accept(&listener, &room) => accepted,
            _ = shutdown.wait_for(|down| *down) => break,
        };
        let connection = drive(stream, router.clone(), limits, shutdown.clone());
        let counted = Counted::new(&open);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "connection ended");
            }
            drop((place, counted));
        });
    }
    drop(listener);
    let deadline = Instant::now() + limits.drain_deadline;
    let everyone = u32::try_from(limits.connections_max).unwrap_or(u32::MAX);
    if timeout_at(deadline, room.acquire_many(everyone)).await.is_ok() {
        return 0;
    }
    open.load(Ordering::Relaxed)
}

/// The next connection, once there is room for one.
async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let place = Arc::clone(room).acquire_owned().await.expect("invariant: the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn drive(
    stream: TcpStream,
    router: Router,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|e| e.to_string())?;
    let connection = Connection::new(stream);
    let service = {
        let connection = connection.clone();
        service_fn(move |request| answer(request, router.clone(), connection.clone()))
    };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // The head's timeout is ours (`outstayed`): hyper has one knob for it and for idle keep-alive.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(None).pipeline_flush(true);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(HTTP2_STREAMS_MAX);
    let serving = builder.serve_connection(TokioIo::new(Socket(connection.clone())), service);
    tokio::pin!(serving);
    let mut watch = interval(WATCH_INTERVAL);
    watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut draining = false;
    loop {
        tokio::select! {
            ended = serving.as_mut() => return ended.map_err(|e| e.to_string()),
            _ = watch.tick() => {
                if outstayed(&connection, limits) {
                    return Err(format!("cut in phase {:?}", connection.phase()));
                }
            }
            _ = shutdown.wait_for(|down| *down), if !draining => {
                draining = true;
                serving.as_mut().graceful_shutdown();
            }
        }
    }
}

fn outstayed(connection: &Connection, limits: Limits) -> bool {
    match connection.phase() {
        Phase::Idle(since) => since.elapsed() > limits.idle_timeout,
        Phase::Head(since) => since.elapsed() > limits.header_timeout,
        Phase::Serving => false,
    }
}

async fn answer(
    mut request: Request<Incoming>,
    router: Router,
    connection: Connection,
) -> Result<Response<Body>, Infallible> {
    connection.begin_serving();
    let served = Served(connection.clone());
    request.extensions_mut().insert(connection);
    let response = router.oneshot(request.map(Body::new)).await;
    drop(served);
    response
}

/// Ends the serving phase also when hyper drops the request because its client went away.
struct Served(Connection);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.end_serving();
    }
}

/// One open connection.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Binds `address`; an error says which address and what to do.
///
/// # Errors
/// When the address is in use or not ours.
pub async fn bind(address: std::net::SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "; another program listens there: stop it or choose another port (`:0` picks a free one)"
            }
            _ => "",
        };
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}{hint}"))
    })
}
