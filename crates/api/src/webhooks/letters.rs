//! Dead letters: what webhooks could not be told.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use vestibule_platform::{DeadLetter, Position};

use super::{TheWebhook, WebhookInPath};
use crate::api::Shared;
use crate::events::position;
use crate::extract::{Answer, JsonBody, LARGEST_PAGE, Nothing, Params, TheCaller, cut, page_size};
use crate::problem::{Kind, Problem, ProblemDocument};
use crate::shapes::{DeviceRef, rfc3339};

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LetterParams {
    /// Most letters on the page.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<u64>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A record that a webhook could not be told.
#[derive(Serialize, ToSchema)]
#[schema(as = DeadLetter)]
pub(crate) struct LetterShape<'a> {
    /// Where the record stands in the journal; names the letter.
    #[schema(minimum = 1)]
    position: i64,
    /// The device it is of.
    device: DeviceRef<'a>,
    /// What it is.
    #[schema(example = "event")]
    kind: &'a str,
    /// When it was given up.
    #[schema(format = DateTime)]
    died: String,
    /// How often it was tried.
    #[schema(minimum = 0)]
    attempts: i64,
    /// The last HTTP status, when there was an answer.
    #[schema(required = true)]
    status: Option<i64>,
    /// Why it was given up, for people.
    reason: &'a str,
    /// Whether it waits to be told once more.
    replay: bool,
}

impl<'a> From<&'a DeadLetter> for LetterShape<'a> {
    fn from(letter: &'a DeadLetter) -> LetterShape<'a> {
        LetterShape {
            position: letter.position.get(),
            device: DeviceRef::new(letter.device, &letter.serial),
            kind: &letter.kind,
            died: rfc3339(letter.died),
            attempts: letter.attempts,
            status: letter.status,
            reason: &letter.reason,
            replay: letter.replay,
        }
    }
}

/// One page of dead letters, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct LetterList<'a> {
    /// The letters.
    items: Vec<LetterShape<'a>>,
    /// The cursor of the next page; null on the last.
    #[schema(required = true)]
    next: Option<String>,
}

/// List what a webhook could not be told, newest first
#[utoipa::path(
    get,
    path = "/v1/webhooks/{id}/dead-letters",
    tag = "webhooks",
    params(WebhookInPath, LetterParams),
    responses(
        (status = 200, description = "One page of dead letters", body = LetterList),
        (status = 404, description = "No webhook has this id",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn list_dead_letters(
    State(shared): State<Arc<Shared>>,
    TheWebhook(id): TheWebhook,
    Params(params): Params<LetterParams>,
) -> Answer<axum::response::Response> {
    use axum::response::IntoResponse as _;
    let size = page_size(params.limit)?;
    let before = params.cursor.map(|cursor| position("cursor", &cursor)).transpose()?;
    shared.platform.webhook(id).await?;
    let mut letters = shared.platform.dead_letters(id, before, false, size + 1).await?;
    let more = cut(&mut letters, size) || letters.len() == LARGEST_PAGE;
    let next = letters.last().filter(|_| more).map(|letter| letter.position.get().to_string());
    Ok(Json(LetterList { items: letters.iter().map(LetterShape::from).collect(), next }).into_response())
}

/// Which letters are told once more.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LettersToReplay {
    /// Those at these positions of the journal; all when absent.
    #[schema(min_items = 1, max_items = 1000)]
    positions: Option<Vec<u64>>,
}

/// How many letters are told once more.
#[derive(Serialize, ToSchema)]
pub(crate) struct Replayed {
    /// Those that were found.
    #[schema(minimum = 0)]
    replayed: u64,
}

/// Have a webhook told once more what it could not be told
///
/// Letters go out beside what comes from the journal, with the `id` they had. One that is delivered is gone; one that is
/// not stays, and can be told once more again. It takes a webhook that is enabled.
#[utoipa::path(
    post,
    path = "/v1/webhooks/{id}/dead-letters/replay",
    tag = "webhooks",
    params(WebhookInPath),
    request_body = LettersToReplay,
    responses(
        (status = 200, description = "They are told once more, durably", body = Replayed),
        (status = 404, description = "No webhook has this id",
            body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "The store does not answer",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn replay_dead_letters(
    State(shared): State<Arc<Shared>>,
    TheCaller(caller): TheCaller,
    TheWebhook(id): TheWebhook,
    _: Params<Nothing>,
    JsonBody(which): JsonBody<LettersToReplay>,
) -> Answer<Json<Replayed>> {
    let wrong = |detail| Problem::field(Kind::InvalidValue, "positions", detail);
    let positions = match which.positions {
        None => None,
        Some(positions) if positions.is_empty() || positions.len() > LARGEST_PAGE => {
            return Err(wrong("positions must hold 1 to 1000 positions."));
        }
        Some(positions) => {
            let read = |position| i64::try_from(position).ok().filter(|position| *position > 0).map(Position::new);
            let read: Option<Vec<Position>> = positions.into_iter().map(read).collect();
            Some(read.ok_or_else(|| wrong("positions must be positions of the journal."))?)
        }
    };
    let replayed = shared.platform.replay_letters(id, positions, &caller).await?;
    Ok(Json(Replayed { replayed }))
}
