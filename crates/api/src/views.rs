//! Views: lists of devices that people come back to.

use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use vestibule_platform::{Caller, DeviceQuery, Platform, ViewError, ViewRow};

use crate::api::Shared;
use crate::extract::{Answer, JsonBody, Nothing, Params, TheCaller};
use crate::find::{self, Asked, FilterToApply};
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::shapes::rfc3339;

/// The longest view, in bytes of JSON.
const MAX_VIEW: usize = 8_192;

/// What a view shows.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ViewToKeep {
    /// Which devices; absent or null: all.
    filter: Option<FilterToApply>,
    /// In this order: `added`, `serial`, `name` or `seen`, from its end with a `-` before it; absent or null: `added`.
    #[schema(pattern = "^-?(added|serial|name|seen)$", example = "-seen")]
    order: Option<String>,
}

impl ViewToKeep {
    /// What it stands for, with what is asked for beside it: that counts before what the view says, and labels are wanted
    /// together.
    fn query(self, asked: Asked, order: Option<&str>, platform: &Platform, by: &Caller) -> Answer<DeviceQuery> {
        let mut all = self.filter.map(Asked::from).unwrap_or_default();
        all.presence = asked.presence.or(all.presence);
        all.suite = asked.suite.or(all.suite);
        all.product = asked.product.or(all.product);
        all.family = asked.family.or(all.family);
        all.disabled = asked.disabled.or(all.disabled);
        all.parent = asked.parent.or(all.parent);
        all.org = asked.org.or(all.org);
        all.text = asked.text.or(all.text);
        all.label.extend(asked.label);
        find::query(all.filter(platform, by)?, order.or(self.order.as_deref()))
    }
}

/// The query that a view and what is asked for beside it stand for.
pub(crate) async fn query(
    platform: &Platform,
    view: Option<&str>,
    asked: Asked,
    order: Option<&str>,
    by: &Caller,
) -> Answer<DeviceQuery> {
    let Some(name) = view else { return find::query(asked.filter(platform, by)?, order) };
    let row = platform.view(name, by).await?;
    kept(&row.ok_or_else(unknown)?)?.query(asked, order, platform, by)
}

/// A view as it was kept.
fn kept(row: &ViewRow) -> Answer<ViewToKeep> {
    let unread = || Problem::new(Kind::StoreUnavailable, "The view cannot be read. Remove it, or keep it anew.");
    serde_json::from_str(&row.query).map_err(|_| unread())
}

fn unknown() -> Problem {
    Problem::new(Kind::UnknownView, "There is no view of this name at the place you are bound to.")
}

/// A view.
#[derive(Serialize, ToSchema)]
#[schema(as = View)]
pub(crate) struct ViewShape {
    /// Its name.
    name: String,
    /// Which devices; null: all.
    #[schema(required = true)]
    filter: Option<FilterToApply>,
    /// In which order; null: in that of their registration.
    #[schema(required = true, example = "-seen")]
    order: Option<String>,
    /// Who changed it last.
    changed_by: String,
    /// When.
    #[schema(format = DateTime)]
    changed: String,
}

impl ViewShape {
    fn of(row: ViewRow) -> Answer<ViewShape> {
        let ViewToKeep { filter, order } = kept(&row)?;
        Ok(ViewShape { name: row.name, filter, order, changed_by: row.actor, changed: rfc3339(row.changed) })
    }
}

/// The views of the place you are bound to, by name; there are 100 at most.
#[derive(Serialize, ToSchema)]
pub(crate) struct ViewList {
    /// The views.
    items: Vec<ViewShape>,
    /// Null: there is one page.
    #[schema(required = true)]
    next: Option<String>,
}

/// A view in a path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct ViewInPath {
    /// Name of the view.
    #[param(min_length = 1, max_length = 64)]
    name: String,
}

/// The name of a view that the path has.
pub(crate) struct TheName(String);

impl FromRequestParts<Arc<Shared>> for TheName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let path = Path::<ViewInPath>::from_request_parts(parts, shared).await;
        path.map(|Path(ViewInPath { name })| TheName(name)).map_err(|_| unknown())
    }
}

impl From<ViewError> for Problem {
    fn from(error: ViewError) -> Problem {
        match error {
            ViewError::Invalid { field, reason } => {
                Problem::field(Kind::InvalidValue, field, format!("{field} {reason}."))
            }
            ViewError::Full(most) => {
                let detail = format!("There are {most} views of your place, as many as may. Remove one first.");
                Problem::new(Kind::TooManyViews, detail)
            }
            ViewError::Store(error) => error.into(),
            _ => Problem::new(Kind::StoreUnavailable, "The view was not kept."),
        }
    }
}

/// List views
///
/// Those of the place in the organisation that you are bound to: who is bound to the same one shares them.
#[utoipa::path(
    get,
    path = "/v1/views",
    tag = "devices",
    responses(
        (status = 200, description = "The views", body = ViewList),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_views(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    _: Params<Nothing>,
) -> Answer<Json<ViewList>> {
    let rows = shared.platform.views(&caller).await?;
    let items = rows.into_iter().map(ViewShape::of).collect::<Answer<_>>()?;
    Ok(Json(ViewList { items, next: None }))
}

/// Show a view
#[utoipa::path(
    get,
    path = "/v1/views/{name}",
    tag = "devices",
    params(ViewInPath),
    responses(
        (status = 200, description = "The view", body = ViewShape),
        (status = 404, description = "There is no such view",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn show_view(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheName(name): TheName,
    _: Params<Nothing>,
) -> Answer<Json<ViewShape>> {
    let row = shared.platform.view(&name, &caller).await?;
    ViewShape::of(row.ok_or_else(unknown)?).map(Json)
}

/// Keep a view
///
/// A list of devices to come back to: a filter and an order under a name, in place of what is kept under it. The list of devices
/// shows it with `view=NAME`.
#[utoipa::path(
    put,
    path = "/v1/views/{name}",
    tag = "devices",
    params(ViewInPath),
    request_body = ViewToKeep,
    responses(
        (status = 200, description = "It is kept, durably", body = ViewShape),
        (status = 404, description = "No device has the id or serial of `parent`",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, description = "There are as many views as may be",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn put_view(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheName(name): TheName,
    _: Params<Nothing>,
    JsonBody(view): JsonBody<ViewToKeep>,
) -> Answer<Json<ViewShape>> {
    // Strings, booleans and lists of them always have a JSON text.
    let text = serde_json::to_string(&view).unwrap_or_default();
    if text.len() > MAX_VIEW {
        return Err(Problem::new(Kind::BodyTooLarge, "A view has at most 8192 bytes of JSON."));
    }
    // What it says must be something.
    view.query(Asked::default(), None, &shared.platform, &caller)?;
    ViewShape::of(shared.platform.put_view(&name, text, &caller).await?).map(Json)
}

/// Remove a view
#[utoipa::path(
    delete,
    path = "/v1/views/{name}",
    tag = "devices",
    params(ViewInPath),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "There is no such view",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn remove_view(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheName(name): TheName,
    _: Params<Nothing>,
) -> Answer<StatusCode> {
    if shared.platform.remove_view(&name, &caller).await? { Ok(StatusCode::NO_CONTENT) } else { Err(unknown()) }
}
