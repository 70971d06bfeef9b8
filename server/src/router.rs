//! All routes in one list, each with the scope it needs beside its handler; the OpenAPI document comes from the same list.

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use brisq_api::{ApiError, ErrorCode};
use bytes::Bytes;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use utoipa::OpenApi;
use utoipa_axum::routes;

use crate::auth::Scope;
use crate::console;
use crate::error::{Failure, no_such_path};
use crate::faults::{InClaim, slow_claim};
use crate::routes::{Handled, explain, leases, many, queues, schedules, service, tasks};
use crate::scoped::{Need, ScopedRouter};
use crate::state::App;

#[derive(OpenApi)]
#[openapi(info(
    title = "Brisq",
    description = "A task queue that tells you why it got slow.",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct Document;

/// Every route. There is no way to add one without saying what it needs.
fn all_routes(app: Option<&App>) -> ScopedRouter {
    let read = Need::Scope(Scope::TasksRead);
    let write = Need::Scope(Scope::TasksWrite);
    let work = Need::Scope(Scope::Work);
    let admin = Need::Scope(Scope::Admin);
    ScopedRouter::new(app, Document::openapi())
        .acts(write, routes!(tasks::enqueue))
        .routes(read, routes!(tasks::get))
        .acts(write, routes!(tasks::cancel))
        .routes(read, routes!(tasks::result))
        .routes(read, routes!(explain::task))
        .routes(read, routes!(explain::events))
        .routes(work, routes!(leases::claim))
        .routes(work, routes!(leases::claims))
        .acts(work, routes!(leases::complete))
        .acts(work, routes!(leases::fail))
        .acts(work, routes!(leases::release))
        .acts(work, routes!(leases::heartbeat))
        // Its acts are; the claim behind them is not.
        .routes(work, routes!(leases::complete_batch))
        .acts(work, routes!(leases::fail_batch))
        .acts(work, routes!(leases::release_batch))
        .acts(work, routes!(leases::heartbeat_batch))
        .routes(read, routes!(queues::list))
        .routes(read, routes!(queues::get))
        .routes(read, routes!(explain::queue))
        .routes(read, routes!(many::list))
        .acts(write, routes!(many::redrive))
        .acts(admin, routes!(many::purge))
        .acts(admin, routes!(queues::put))
        .acts(admin, routes!(queues::delete))
        .acts(admin, routes!(queues::pause))
        .acts(admin, routes!(queues::resume))
        .routes(read, routes!(schedules::list))
        .routes(read, routes!(schedules::get))
        .acts(write, routes!(schedules::put))
        .acts(write, routes!(schedules::delete))
        .acts(write, routes!(schedules::trigger))
        .routes(Need::Open, routes!(service::healthz))
        .routes(Need::Open, routes!(service::readyz))
        .routes(Need::Open, routes!(openapi))
        .page(read, "/", get(console::page))
        .page(read, "/console/events", get(console::events))
        .page(read, "/captures/{*path}", get(console::capture_file))
        .page(read, "/docs/explain/{reason}", get(console::reason))
}

/// The OpenAPI document, pretty-printed.
pub fn openapi_document() -> String {
    let document = all_routes(None).into_openapi();
    document.to_pretty_json().expect("invariant: the document is made of strings and numbers") + "\n"
}

/// The document, written once: the route is open to everybody.
static OPENAPI: LazyLock<Bytes> = LazyLock::new(|| openapi_document().into());

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "service", responses((status = 200, description = "OpenAPI 3.1")))]
pub async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], OPENAPI.clone()).into_response()
}

/// The public routes over `app`, with what is called in every claim.
pub fn router(app: &App, in_claim: impl IntoIterator<Item = InClaim>) -> Router {
    let routes = all_routes(Some(app)).into_router().method_not_allowed_fallback(method_not_allowed);
    let mut routes = routes.with_state(Arc::clone(app));
    for in_claim in in_claim {
        routes = routes.route_layer(from_fn_with_state(in_claim, slow_claim));
    }
    routes.route_layer(from_fn_with_state(Arc::clone(app), note)).fallback(not_found)
}

/// The probes alone.
pub fn probes(app: &App) -> Router {
    Router::new()
        .route("/healthz", get(service::healthz))
        .route("/readyz", get(service::readyz))
        .fallback(not_found)
        .with_state(Arc::clone(app))
}

/// Notes when a request met the first code of ours, and sends clients away while the server goes down.
async fn note(State(app): State<App>, mut request: Request, next: Next) -> Response {
    request.extensions_mut().insert(Handled(Instant::now()));
    let mut response = next.run(request).await;
    // Sent away while there is still an answer to do it with, a client does not meet a closed connection.
    if app.draining() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn not_found(request: Request) -> Response {
    Failure(no_such_path(request.uri().path())).into_response()
}

async fn method_not_allowed(request: Request) -> Response {
    let message =
        format!("This path does not take {}. `/openapi.json` lists what it takes.", request.method());
    Failure(ApiError::new(ErrorCode::MethodNotAllowed, message)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routes_and_their_scopes_are_the_committed_ones() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api/routes.md");
        let mut text = "# Routes\n\nEvery route of the public listener and the scope that its caller's token needs. A test holds this page to the\ncode; `BRISQ_UPDATE_GOLDEN=1 cargo test -p brisq-server` writes it.\n\n| method | path | scope |\n|---|---|---|\n".to_owned();
        for (method, path, need) in all_routes(None).needs {
            let scope = match need {
                Need::Open => "none",
                Need::Scope(scope) => scope.name(),
            };
            text += &format!("| {method} | `{path}` | {scope} |\n");
        }
        if std::env::var_os("BRISQ_UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(text, committed, "look at it, then BRISQ_UPDATE_GOLDEN=1");
    }
}
