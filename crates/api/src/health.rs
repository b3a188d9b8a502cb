//! Whether the platform works: liveness, readiness, metrics.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Shared;
use crate::extract::{Nothing, Params};

/// Whether devices' reports are being stored and acknowledged.
#[derive(Serialize, ToSchema)]
pub(crate) struct Readiness {
    /// True when they are.
    ready: bool,
    /// One sentence for each problem: what happened and what to do.
    problems: Vec<String>,
}

/// Tell that the process answers
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "service",
    responses((status = 200, description = "It does", body = String, content_type = "text/plain")),
)]
pub(crate) async fn alive() -> &'static str {
    "ok\n"
}

/// Tell whether the platform does its work
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "service",
    responses(
        (status = 200, description = "Ready", body = Readiness),
        (status = 503, description = "Not ready", body = Readiness),
    ),
)]
pub(crate) async fn ready(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let health = shared.platform.health();
    let status = if health.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready: health.ready, problems: health.problems }))
}

/// Show metrics
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "service",
    responses((status = 200, description = "Prometheus text", body = String, content_type = "text/plain")),
)]
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>, _: Params<Nothing>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (shared.render_metrics)())
}
