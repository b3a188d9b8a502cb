//! Serials that have asked to be let in and that nobody has registered.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Shared;
use crate::extract::{Nothing, Params};
use crate::shapes::rfc3339;

/// A serial that nobody has registered.
#[derive(Serialize, ToSchema)]
#[schema(as = Stranger)]
pub(crate) struct StrangerShape {
    /// The serial, as it was said; it may be made up.
    #[schema(example = "SN-0001")]
    serial: String,
    /// From where it asked last.
    #[schema(example = "192.0.2.7")]
    address: String,
    /// The suite it asked by last.
    #[schema(example = "tls")]
    suite: &'static str,
    /// When it asked first.
    #[schema(format = DateTime)]
    first: String,
    /// When it asked last.
    #[schema(format = DateTime)]
    last: String,
    /// How often it has asked since the first time.
    count: u64,
}

/// Those who have asked lately.
#[derive(Serialize, ToSchema)]
pub(crate) struct StrangerList {
    /// The last one first; 256 at most are remembered, until the platform is stopped.
    items: Vec<StrangerShape>,
    /// Always null: there is one page.
    #[schema(required = true)]
    next: Option<String>,
}

/// List serials that have asked to be let in and that nobody has registered
///
/// Whoever installs a device finds it here. It is claimed by registering it with its code; devices ask again by themselves.
#[utoipa::path(
    get,
    path = "/v1/strangers",
    tag = "devices",
    responses((status = 200, description = "The list", body = StrangerList)),
)]
pub(crate) async fn list_strangers(State(shared): State<Arc<Shared>>, _: Params<Nothing>) -> Json<StrangerList> {
    let items = shared.platform.strangers().into_iter().map(|stranger| StrangerShape {
        serial: stranger.serial,
        address: stranger.address.to_string(),
        suite: stranger.suite,
        first: rfc3339(stranger.first),
        last: rfc3339(stranger.last),
        count: stranger.count,
    });
    Json(StrangerList { items: items.collect(), next: None })
}
