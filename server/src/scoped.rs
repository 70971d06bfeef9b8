//! Routes that cannot be open by oversight: a handler gets in only together with what it needs of its caller.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use axum::{Extension, Router};
use hyper::Method;
use hyper::header::AUTHORIZATION;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ContentBuilder, OpenApi, PathItem, Ref, Response as Described, ResponseBuilder};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use crate::auth::{Auth, Scope};
use crate::connection::Connection;
use crate::error::Failure;
use crate::state::App;

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing: probes and the contract.
    Open,
    /// A known token with this scope.
    Scope(Scope),
}

/// Methods that routes have.
const METHODS: [Method; 4] = [Method::GET, Method::POST, Method::PUT, Method::DELETE];
/// How the document calls the caller's token.
const TOKEN: &str = "token";
/// What any operation may answer beside what it says itself.
const ERRORS: [(&str, &str); 2] = [("4XX", "Refused"), ("5XX", "Not carried out, or not known")];

fn operation<'a>(item: &'a mut PathItem, method: &Method) -> Option<&'a mut Operation> {
    match *method {
        Method::GET => item.get.as_mut(),
        Method::POST => item.post.as_mut(),
        Method::PUT => item.put.as_mut(),
        Method::DELETE => item.delete.as_mut(),
        _ => None,
    }
}

fn error(description: &str) -> Described {
    let schema = Ref::from_schema_name("ErrorEnvelope");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    ResponseBuilder::new().description(description).content("application/json", content).build()
}

/// A router whose every route has its need.
pub struct ScopedRouter {
    router: OpenApiRouter<App>,
    /// `None` where only the list is wanted, and nobody calls.
    auth: Option<Auth>,
    /// Every route with its need, in the order in which they came.
    pub needs: Vec<(Method, String, Need)>,
}

impl ScopedRouter {
    /// Without routes.
    pub fn new(app: Option<&App>, document: OpenApi) -> Self {
        let auth = app.map(|app| app.auth.clone());
        Self { router: OpenApiRouter::with_openapi(document), auth, needs: Vec::new() }
    }

    /// Handlers that are in the document.
    pub fn routes(mut self, need: Need, (schemas, mut paths, handlers): UtoipaMethodRouter<App>) -> Self {
        for (path, item) in &mut paths.paths {
            let named = METHODS.into_iter().filter(|method| operation(item, method).is_some());
            self.needs.extend(named.map(|method| (method, path.clone(), need)));
        }
        let handlers = self.guarded(need, handlers);
        self.router = self.router.routes((schemas, paths, handlers));
        self
    }

    /// Handlers that are in the document and carry out what came whole, though its client leaves before the answer.
    pub fn acts(self, need: Need, (schemas, paths, handlers): UtoipaMethodRouter<App>) -> Self {
        self.routes(need, (schemas, paths, handlers.route_layer(from_fn(carry_out))))
    }

    /// A handler of `GET` for people, which no document promises.
    pub fn page(mut self, need: Need, path: &str, handler: MethodRouter<App>) -> Self {
        self.needs.push((Method::GET, path.to_owned(), need));
        let handler = self.guarded(need, handler);
        self.router = self.router.route(path, handler);
        self
    }

    fn guarded(&self, need: Need, handlers: MethodRouter<App>) -> MethodRouter<App> {
        match (need, &self.auth) {
            (Need::Open, _) | (_, None) => handlers,
            (Need::Scope(scope), Some(auth)) => {
                handlers.route_layer(from_fn_with_state((auth.clone(), scope), admit))
            }
        }
    }

    /// The document, which says of each operation that needs a token what it needs, and that it may answer an error.
    pub fn into_openapi(self) -> OpenApi {
        let mut document = self.router.into_openapi();
        let scheme = Http::builder().scheme(HttpAuthScheme::Bearer).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(TOKEN, SecurityScheme::Http(scheme));
        for (method, path, need) in &self.needs {
            let (Need::Scope(scope), Some(item)) = (need, document.paths.paths.get_mut(path)) else {
                continue;
            };
            if let Some(operation) = operation(item, method) {
                operation.security = Some(vec![SecurityRequirement::new(TOKEN, [scope.name()])]);
                let responses = &mut operation.responses.responses;
                for (status, description) in ERRORS {
                    responses.entry(status.to_owned()).or_insert_with(|| error(description).into());
                }
            }
        }
        document
    }

    pub fn into_router(self) -> Router<App> {
        self.router.split_for_parts().0
    }
}

async fn carry_out(Extension(connection): Extension<Connection>, request: Request, next: Next) -> Response {
    let _carrying_out = connection.carry_out();
    next.run(request).await
}

/// Lets a request in whose caller may make it, and says who that is.
async fn admit(State((auth, scope)): State<(Auth, Scope)>, mut request: Request, next: Next) -> Response {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let admitted = auth.caller(header).and_then(|caller| caller.check_scope(scope).map(|()| caller));
    match admitted {
        Ok(caller) => {
            request.extensions_mut().insert(Arc::clone(&caller));
            next.run(request).await
        }
        Err(error) => Failure(error).into_response(),
    }
}
