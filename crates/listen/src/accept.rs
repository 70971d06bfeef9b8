use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};
use tower::Service;

use crate::body::RequestBody;
use crate::drive::drive;
use crate::places::{Place, Places};
use crate::{Connection, Limits};

/// Pause after a failed accept (no descriptors left, say), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` turns true, then drains: no new connection, requests in progress finish, and whatever is left at
/// the deadline is cut by the end of the runtime. Returns how many connections those are.
pub async fn serve<S, B>(
    listener: TcpListener,
    service: S,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) -> usize
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let places = Places::new(limits);
    loop {
        let (stream, place) = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            _ = shutdown.wait_for(|down| *down) => break,
        };
        if place.is_beyond() {
            tracing::warn!(limits.connections_max, "more connections than the server takes");
        }
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection ended as it began");
            continue;
        }
        let connection = Connection::new(stream);
        tokio::spawn(drive(connection, service.clone(), limits, place, shutdown.clone()));
    }
    drop(listener);
    let deadline = Instant::now() + limits.drain_deadline;
    // Whether they all ended in time shows in how many places are taken.
    let _ = timeout_at(deadline, places.all_free()).await;
    places.taken()
}

/// The next connection, once there is a place for one.
async fn accept(listener: &TcpListener, places: &Places) -> (TcpStream, Place) {
    let place = places.free().await;
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

/// Binds `address`; an error says which address and what to do.
///
/// # Errors
/// When the address is in use or not ours.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
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
