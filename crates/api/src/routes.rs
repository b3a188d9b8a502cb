//! Adds routes, each with the permission it asks for.
//!
//! [`Routes`] is the only way a handler gets into the API. It takes the permission, guards the route with it,
//! and writes it into the OpenAPI document together with the answers every such route may give.

use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::{Operation, ParameterIn, PathItem};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use vestibule_platform::Permission;

use crate::access::Gate;
use crate::problem::{Kind, PROBLEM_JSON};

/// Name of the permission in an operation of the OpenAPI document.
pub(crate) const PERMISSION: &str = "x-permission";
/// What stands there for an operation that asks for no token.
pub(crate) const OPEN: &str = "open";
/// What stands there for an operation that asks for a token, whatever it may do.
pub(crate) const ANY: &str = "any";
/// Name of the security scheme.
pub(crate) const BEARER: &str = "bearer";

/// Routes in the making.
pub(crate) struct Routes<S: Send + Sync + Clone + 'static> {
    router: OpenApiRouter<S>,
    gate: Gate,
}

impl<S: Send + Sync + Clone + 'static> Routes<S> {
    pub(crate) fn new(document: OpenApi, gate: Gate) -> Routes<S> {
        Routes { router: OpenApiRouter::with_openapi(document), gate }
    }

    /// Adds a route for callers with this permission.
    pub(crate) fn needs(self, permission: Permission, route: UtoipaMethodRouter<S>) -> Routes<S> {
        self.guarded(Some(permission), route)
    }

    /// Adds a route for whoever has a token, about themselves only.
    pub(crate) fn known(self, route: UtoipaMethodRouter<S>) -> Routes<S> {
        self.guarded(None, route)
    }

    fn guarded(self, permission: Option<Permission>, route: UtoipaMethodRouter<S>) -> Routes<S> {
        let gate = self.gate.clone();
        let guard = middleware::from_fn(move |mut request: axum::extract::Request, next: Next| {
            let checked = gate.check(&request, permission);
            async move {
                match checked {
                    Ok(caller) => {
                        request.extensions_mut().insert(caller);
                        next.run(request).await
                    }
                    Err(problem) => problem.into_response(),
                }
            }
        });
        let (schemas, mut paths, methods) = route;
        for operation in paths.paths.values_mut().flat_map(operations) {
            describe(operation, permission.map_or(ANY, Permission::as_str));
            operation.security = Some(vec![SecurityRequirement::new(BEARER, Vec::<String>::new())]);
            may_answer(operation, &[Kind::Unauthenticated, Kind::Forbidden, Kind::TooManyRequests]);
        }
        let methods = methods.route_layer(guard);
        Routes { router: self.router.routes((schemas, paths, methods)), gate: self.gate }
    }

    /// Adds a route for everybody, without a token.
    pub(crate) fn open(self, route: UtoipaMethodRouter<S>) -> Routes<S> {
        let (schemas, mut paths, methods) = route;
        for operation in paths.paths.values_mut().flat_map(operations) {
            describe(operation, OPEN);
            operation.security = Some(Vec::new());
        }
        Routes { router: self.router.routes((schemas, paths, methods)), gate: self.gate }
    }

    /// The router and its document.
    pub(crate) fn finish(self) -> (axum::Router<S>, OpenApi) {
        self.router.split_for_parts()
    }
}

/// The operations of a path.
pub(crate) fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch].into_iter().flatten()
}

/// Notes the permission and the answers that follow from what an operation takes.
fn describe(operation: &mut Operation, permission: &str) {
    operation.extensions = Some(Extensions::from_iter([(PERMISSION, permission)]));
    may_answer(operation, &[Kind::MalformedRequest, Kind::WrongHost, Kind::HeadTooLarge, Kind::Overloaded]);
    if operation.request_body.is_some() {
        may_answer(operation, &[Kind::Timeout, Kind::BodyTooLarge, Kind::UnsupportedMediaType, Kind::InvalidValue]);
    }
    let takes_query = operation.parameters.iter().flatten().any(|parameter| match parameter {
        RefOr::T(parameter) => parameter.parameter_in == ParameterIn::Query,
        RefOr::Ref(_) => false,
    });
    if takes_query {
        may_answer(operation, &[Kind::InvalidValue]);
    }
}

/// Adds answers that are problem documents, where the handler has not described them itself.
fn may_answer(operation: &mut Operation, kinds: &[Kind]) {
    for kind in kinds {
        let status = kind.status().as_u16().to_string();
        operation.responses.responses.entry(status).or_insert_with(|| {
            let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
            RefOr::T(ResponseBuilder::new().description(kind.title()).content(PROBLEM_JSON, content).build())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Access, Shown};
    use axum::body::Body;
    use axum::http::{Request, StatusCode, header};
    use tower::ServiceExt as _;
    use utoipa_axum::routes;
    use vestibule_platform::Caller;

    /// Guarded
    #[utoipa::path(get, path = "/guarded", responses((status = 200, description = "In")))]
    async fn guarded() -> &'static str {
        "in"
    }

    /// Free
    #[utoipa::path(get, path = "/free", responses((status = 200, description = "In")))]
    async fn free() -> &'static str {
        "in"
    }

    #[tokio::test]
    async fn a_route_is_guarded_by_the_permission_it_was_added_with() {
        let gate = Gate::new(|shown, permission| match shown {
            Shown::Token("writer") if permission == Some(Permission::DevicesWrite) => {
                Access::Granted(Caller::program())
            }
            Shown::Token("writer" | "reader") => Access::Denied,
            _ => Access::Unknown,
        });
        let routes = Routes::<()>::new(crate::openapi::base(), gate);
        let routes = routes.needs(Permission::DevicesWrite, routes!(guarded)).open(routes!(free));
        let (router, document) = routes.finish();
        for (path, token, status) in [
            ("/guarded", "writer", StatusCode::OK),
            ("/guarded", "reader", StatusCode::FORBIDDEN),
            ("/guarded", "nobody", StatusCode::UNAUTHORIZED),
            ("/free", "nobody", StatusCode::OK),
        ] {
            let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
            let answer = router.clone().oneshot(request.body(Body::empty()).expect("a request")).await;
            assert_eq!(answer.expect("an answer").status(), status, "{path} {token}");
        }
        let document = serde_json::to_value(&document).expect("JSON");
        assert_eq!(document["paths"]["/guarded"]["get"][PERMISSION], "devices_write");
        assert_eq!(document["paths"]["/free"]["get"][PERMISSION], OPEN);
    }
}
