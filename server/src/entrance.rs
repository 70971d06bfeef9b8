//! What every request of a listener passes before the routes: whether it may come from where it does, whether it can be
//! understood, and whether there is a store to work on yet.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::future::RouteFuture;
use brisq_api::{ApiError, ErrorCode};
use brisq_listen::{PROBES, RequestBody};
use futures_util::future::Either;
use hyper::header::{CONTENT_ENCODING, HOST, ORIGIN};
use hyper::http::uri::Authority;
use hyper::{HeaderMap, Request, Uri};
use parking_lot::RwLock;
use percent_encoding::percent_decode_str;
use tower::Service;

use crate::connection::Connection;
use crate::error::Failure;
use crate::routes::service::alive;

/// What the server waits for, and the routes once it waits for nothing.
#[derive(Debug, Default)]
pub struct Opening {
    routes: OnceLock<Router>,
    missing: Arc<RwLock<String>>,
}

impl Opening {
    /// An opening that has `missing` to say.
    pub fn new(missing: Arc<RwLock<String>>) -> Self {
        Self { routes: OnceLock::new(), missing }
    }

    /// Serves `routes` from now on.
    pub fn open(&self, routes: Router) {
        // It is opened once; a second time would change nothing.
        let _ = self.routes.set(routes);
    }
}

/// The service of one listener.
#[derive(Clone, Debug)]
pub struct Entrance {
    opening: Arc<Opening>,
    /// Only hosts and pages of this machine are served: there is no authentication.
    local_only: bool,
}

impl Entrance {
    pub fn new(opening: Arc<Opening>, local_only: bool) -> Self {
        Self { opening, local_only }
    }

    fn check<B>(&self, request: &Request<B>) -> Result<(), ApiError> {
        let path = request.uri().path();
        if self.local_only && !PROBES.contains(&path) {
            is_of_this_machine(request.uri(), request.headers())?;
        }
        if path.contains('%') && percent_decode_str(path).decode_utf8().is_err() {
            let message =
                "The path is not UTF-8 once its `%` escapes are taken apart. Escape the bytes of UTF-8 text.";
            return Err(ApiError::new(ErrorCode::InvalidRequest, message).with("path", path));
        }
        if let Some(encoding) = request.headers().get(CONTENT_ENCODING)
            && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
        {
            let message = "The body is compressed. Send it as it is.";
            let encoding = String::from_utf8_lossy(encoding.as_bytes());
            return Err(ApiError::new(ErrorCode::UnsupportedMediaType, message).with("encoding", encoding));
        }
        Ok(())
    }

    /// What is answered while the store is not open.
    fn before(&self, path: &str) -> Response {
        if path == "/healthz" {
            return alive();
        }
        let missing = self.opening.missing.read().clone();
        let message = format!("The server is starting: {missing}. Try again.");
        refused(ApiError::new(ErrorCode::Starting, message).with("missing", "store"))
    }
}

impl Service<Request<RequestBody>> for Entrance {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Ready<Result<Response, Infallible>>, RouteFuture<Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<RequestBody>) -> Self::Future {
        if let Err(error) = self.check(&request) {
            return Either::Left(ready(Ok(refused(error))));
        }
        let Some(routes) = self.opening.routes.get() else {
            return Either::Left(ready(Ok(self.before(request.uri().path()))));
        };
        if let Some(connection) = request.extensions_mut().remove::<brisq_listen::Connection>() {
            request.extensions_mut().insert(Connection(connection));
        }
        Either::Right(routes.clone().call(request))
    }
}

fn refused(error: ApiError) -> Response {
    Failure(error).into_response()
}

/// That a request without a token was made for a loopback address or `localhost`, and not by a page of another site: such a
/// page can send requests here from the browser of whoever opens it, and with a name of its own that resolves to loopback it
/// can also read the answers.
fn is_of_this_machine(uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
    let foreign = |what: &'static str, value: &[u8]| {
        let message = "Without authentication only `localhost` and loopback addresses are served, and no page of \
                       another site. Call the server as 127.0.0.1, or start it with --tokens FILE.";
        ApiError::new(ErrorCode::ForeignOrigin, message).with(what, String::from_utf8_lossy(value))
    };
    if let Some(authority) = uri.authority()
        && !is_local(authority.as_str())
    {
        return Err(foreign("host", authority.as_str().as_bytes()));
    }
    for host in headers.get_all(HOST) {
        if !host.to_str().is_ok_and(is_local) {
            return Err(foreign("host", host.as_bytes()));
        }
    }
    for origin in headers.get_all(ORIGIN) {
        let authority = origin
            .to_str()
            .ok()
            .and_then(|origin| origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")));
        if !authority.is_some_and(is_local) {
            return Err(foreign("origin", origin.as_bytes()));
        }
    }
    Ok(())
}

/// Whether `host`, with or without a port, is a loopback address or `localhost`.
fn is_local(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    let local = name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    local && !host.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_this_machine_are_loopback_addresses_and_localhost() {
        for local in [
            "localhost",
            "localhost:7070",
            "LocalHost:1",
            "127.0.0.1",
            "127.0.0.1:7070",
            "127.8.8.8",
            "[::1]",
            "[::1]:7070",
            "[::ffff:127.0.0.1]:7070",
        ] {
            assert!(is_local(local), "{local}");
        }
        for foreign in [
            "",
            "evil",
            "evil:7070",
            "localhost.evil",
            "127.0.0.1.evil",
            "evil@127.0.0.1",
            "127.0.0.1@evil",
            "localhost:80:80",
            "0.0.0.0",
            "10.0.0.1:7070",
            "[::]",
            "localhost/",
            "127.1",
            " localhost",
        ] {
            assert!(!is_local(foreign), "{foreign}");
        }
    }

    #[test]
    fn every_host_and_origin_of_a_request_counts() {
        let request = |uri: &str, fields: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                headers.append(*name, value.parse().unwrap());
            }
            is_of_this_machine(&uri.parse().unwrap(), &headers).is_ok()
        };
        assert!(request("/", &[]), "HTTP/1.0 names no host");
        assert!(request("/", &[("host", "localhost:7070"), ("origin", "http://localhost:7070")]));
        assert!(request("http://127.0.0.1:7070/", &[("host", "127.0.0.1:7070")]));
        assert!(!request("/", &[("host", "localhost"), ("host", "evil")]));
        assert!(!request("http://evil/", &[("host", "localhost")]));
        for origin in
            ["http://evil", "null", "", "https://localhost.evil", "file://", "chrome-extension://abc"]
        {
            assert!(!request("/", &[("host", "localhost"), ("origin", origin)]), "{origin}");
        }
    }
}
