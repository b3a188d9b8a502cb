//! The OpenAPI document.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use utoipa::Modify;
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use crate::access::Gate;
use crate::api::{self, Shared};
use crate::problem::ProblemDocument;
use crate::routes::BEARER;

/// The OpenAPI document of this version as JSON text, as committed in `api/openapi.json`.
pub fn openapi_json() -> String {
    let (_, document) = api::routes(Gate::closed());
    to_json(&document)
}

pub(crate) fn to_json(document: &OpenApi) -> String {
    // A document made of strings, maps and lists always has a JSON text.
    let mut text = serde_json::to_string_pretty(document).unwrap_or_default();
    text.push('\n');
    text
}

/// The document without its routes.
pub(crate) fn base() -> OpenApi {
    Base::openapi()
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Vestibule",
        description = "Devices, their presence and what they report. A list is `{\"items\", \"next\"}`: `next` is the \
                       cursor of the next page. A device is addressed by its id or its serial. Moments are RFC 3339 in \
                       UTC with milliseconds. Every error is a problem document (RFC 9457). Each operation names the \
                       permission it asks for in `x-permission`; `open` asks for no token, `any` for one whatever it may do.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    tags(
        (name = "devices", description = "Registration, presence, connection facts"),
        (name = "events", description = "What devices report"),
        (name = "attributes", description = "What devices report of themselves, and what they are wished to be"),
        (name = "operations", description = "What devices are asked to do"),
        (name = "pass", description = "Messages in the devices' own formats, in both directions"),
        (name = "webhooks", description = "Programs elsewhere that are told what devices report, as CloudEvents"),
        (name = "media", description = "Pictures and files. The addresses that are offered here are outside this document: \
                                        docs/media.md says how something is sent to them"),
        (name = "audit", description = "Who did what"),
        (name = "rights", description = "Who may do what, and where"),
        (name = "service", description = "The platform itself"),
    ),
    components(schemas(ProblemDocument)),
    modifiers(&Bearer),
)]
struct Base;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The token from the data directory's token file, one made with `POST /v1/tokens`, or that of a session."))
            .build();
        document.components.get_or_insert_default().add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    }
}

/// This document
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    tag = "service",
    responses((status = 200, description = "The OpenAPI 3.1 document", body = serde_json::Value)),
)]
pub(crate) async fn document(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], shared.document.get().cloned().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::routes::{ANY, OPEN, PERMISSION, operations};
    use vestibule_platform::Permission;

    #[test]
    fn the_committed_document_is_this_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../api/openapi.json");
        let text = openapi_json();
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
            std::fs::write(&path, &text).expect("written");
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == text,
            "api/openapi.json is not what the code says; run: UPDATE_OPENAPI=1 cargo test -p vestibule-api"
        );
    }

    #[test]
    fn every_operation_names_its_permission_or_is_open_on_purpose() {
        let open = ["/", "/healthz", "/readyz", "/problems/{name}", "/v1/openapi.json", "/v1/sessions"];
        let (_, mut document) = api::routes(Gate::closed());
        let mut seen = 0;
        for (path, item) in &mut document.paths.paths {
            for operation in operations(item) {
                seen += 1;
                let named = operation.extensions.as_ref().and_then(|extensions| extensions.get(PERMISSION));
                let named =
                    named.and_then(|name| name.as_str()).unwrap_or_else(|| panic!("{path} names no permission"));
                let known = Permission::ALL.iter().any(|permission| permission.as_str() == named);
                assert!(known || named == OPEN || named == ANY && path.starts_with("/v1/sessions/"), "{path}: {named}");
                assert_eq!(named == OPEN, open.contains(&path.as_str()), "{path}");
                let guarded = operation.security.as_ref().is_some_and(|required| !required.is_empty());
                assert_eq!(guarded, named != OPEN, "{path}");
            }
        }
        assert_eq!(seen, 87, "operations in the document");
    }

    #[test]
    fn everything_in_the_document_is_described() {
        let (_, mut document) = api::routes(Gate::closed());
        for (path, item) in &mut document.paths.paths {
            for operation in operations(item) {
                assert!(operation.summary.is_some() && operation.operation_id.is_some(), "{path}");
                for parameter in operation.parameters.iter().flatten() {
                    let utoipa::openapi::RefOr::T(parameter) = parameter else { continue };
                    assert!(parameter.description.is_some(), "{path}: {}", parameter.name);
                }
                let mut texts = operation.responses.responses.values();
                assert!(
                    texts.all(|r| matches!(r, utoipa::openapi::RefOr::T(r) if !r.description.is_empty())),
                    "{path}"
                );
            }
        }
        let schemas = serde_json::to_value(&document.components).expect("JSON");
        for (name, schema) in schemas["schemas"].as_object().expect("schemas") {
            assert!(schema["description"].is_string(), "{name}");
            for (field, schema) in schema["properties"].as_object().into_iter().flatten() {
                let described = [&schema["description"], &schema["oneOf"][0]["description"]];
                assert!(described.iter().any(|text| text.is_string()), "{name}.{field}");
            }
        }
    }
}
