//! All routes in one list, each with the scope it needs; the OpenAPI document comes from the same list.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use brisq_api::{ApiError, ErrorCode};
use hyper::header::{AUTHORIZATION, CONNECTION, HeaderValue};
use hyper::{Method, Version};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::Scope;
use crate::error::{Failure, no_such_path};
use crate::routes::leases::Handled;
use crate::routes::{leases, queues, service, tasks};
use crate::state::App;

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: probes and the contract.
    Open,
    /// A known token with this scope.
    Scope(Scope),
}

/// The one path of claims.
pub const CLAIMS: &str = "/v1/queues/{queue}/claims";

/// Every route. One that is missing here is refused, so a new one cannot be open by oversight.
pub const NEEDS: &[(Method, &str, Need)] = &[
    (Method::POST, "/v1/queues/{queue}/tasks", Need::Scope(Scope::TasksWrite)),
    (Method::GET, "/v1/tasks/{id}", Need::Scope(Scope::TasksRead)),
    (Method::GET, "/v1/tasks/{id}/result", Need::Scope(Scope::TasksRead)),
    (Method::DELETE, "/v1/tasks/{id}", Need::Scope(Scope::TasksWrite)),
    (Method::POST, CLAIMS, Need::Scope(Scope::Work)),
    (Method::POST, "/v1/tasks/{id}/complete", Need::Scope(Scope::Work)),
    (Method::POST, "/v1/tasks/{id}/fail", Need::Scope(Scope::Work)),
    (Method::POST, "/v1/tasks/{id}/release", Need::Scope(Scope::Work)),
    (Method::POST, "/v1/tasks/{id}/heartbeat", Need::Scope(Scope::Work)),
    (Method::POST, "/v1/leases/complete", Need::Scope(Scope::Work)),
    (Method::POST, "/v1/leases/fail", Need::Scope(Scope::Work)),
    (Method::POST, "/v1/leases/release", Need::Scope(Scope::Work)),
    (Method::POST, "/v1/leases/heartbeat", Need::Scope(Scope::Work)),
    (Method::GET, "/v1/queues", Need::Scope(Scope::TasksRead)),
    (Method::GET, "/v1/queues/{queue}", Need::Scope(Scope::TasksRead)),
    (Method::GET, "/", Need::Scope(Scope::TasksRead)),
    (Method::GET, "/console/events", Need::Scope(Scope::TasksRead)),
    (Method::GET, "/captures/{*path}", Need::Scope(Scope::TasksRead)),
    (Method::GET, "/healthz", Need::Open),
    (Method::GET, "/readyz", Need::Open),
    (Method::GET, "/openapi.json", Need::Open),
];

#[derive(OpenApi)]
#[openapi(info(
    title = "Brisq",
    description = "A task queue that tells you why it got slow.",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct Document;

fn contract() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(tasks::enqueue))
        .routes(routes!(tasks::get, tasks::cancel))
        .routes(routes!(tasks::result))
        .routes(routes!(leases::claim))
        .routes(routes!(leases::complete))
        .routes(routes!(leases::fail))
        .routes(routes!(leases::release))
        .routes(routes!(leases::heartbeat))
        .routes(routes!(leases::complete_batch))
        .routes(routes!(leases::fail_batch))
        .routes(routes!(leases::release_batch))
        .routes(routes!(leases::heartbeat_batch))
        .routes(routes!(queues::list))
        .routes(routes!(queues::get))
        .routes(routes!(service::healthz))
        .routes(routes!(service::readyz))
        .routes(routes!(service::openapi))
}

/// The OpenAPI document, pretty-printed.
pub fn openapi_document() -> String {
    let document = contract().into_openapi();
    document.to_pretty_json().expect("invariant: the document is made of strings and numbers") + "\n"
}

/// Called in every claim, on the runtime's worker, before the answer is sent: the demo's slowdown.
pub type InClaim = fn();

/// The public routes over `app`.
pub fn router(app: &App, in_claim: Option<InClaim>) -> Router {
    let (routes, _) = contract().split_for_parts();
    let routes = routes.merge(crate::console::routes()).method_not_allowed_fallback(method_not_allowed);
    let mut routes = routes.with_state(Arc::clone(app));
    if let Some(in_claim) = in_claim {
        routes = routes.route_layer(from_fn_with_state(in_claim, slow_claim));
    }
    #[cfg(feature = "faults")]
    {
        routes = routes.route_layer(axum::middleware::from_fn(crate::faults::in_claim));
    }
    routes.route_layer(from_fn_with_state(Arc::clone(app), admit)).fallback(not_found)
}

async fn slow_claim(
    State(in_claim): State<InClaim>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    if matched.is_some_and(|path| path.as_str() == CLAIMS) {
        in_claim();
    }
    response
}

/// Lets a request in whose caller may make it.
async fn admit(
    State(app): State<App>,
    matched: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let handled = Instant::now();
    let need = matched.as_ref().and_then(|path| need_of(request.method(), path.as_str()));
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    match need {
        Some(Need::Open) => {}
        Some(Need::Scope(scope)) => {
            let caller = match app.auth.caller(header) {
                Ok(caller) => caller,
                Err(error) => return Failure(error).into_response(),
            };
            if let Err(error) = caller.check_scope(scope) {
                return Failure(error).into_response();
            }
            request.extensions_mut().insert(caller);
        }
        // Reached by known paths with another method only: those answer 405 by themselves.
        None => {}
    }
    request.extensions_mut().insert(Handled(handled));
    let persistent = request.version() < Version::HTTP_2;
    let mut response = next.run(request).await;
    // Sent away while there is still an answer to do it with, a client does not meet a closed connection.
    if persistent && app.draining() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn need_of(method: &Method, path: &str) -> Option<Need> {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    NEEDS.iter().find(|(m, p, _)| m == method && *p == path).map(|(.., need)| *need)
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
    fn every_route_of_the_contract_has_its_need() {
        let document = contract().into_openapi();
        let mut routes: Vec<String> = Vec::new();
        for (path, item) in &document.paths.paths {
            for (method, operation) in
                [("GET", &item.get), ("POST", &item.post), ("PUT", &item.put), ("DELETE", &item.delete)]
            {
                if operation.is_some() {
                    let method: Method = method.parse().unwrap();
                    assert!(need_of(&method, path).is_some(), "{method} {path} has no need");
                    routes.push(format!("{method} {path}"));
                }
            }
        }
        assert_eq!(routes.len(), NEEDS.len() - 3, "all but the console's three: {routes:#?}");
    }
}
