//! What each kind of problem means: the address in its `type`, and docs/problems.md.

use axum::Json;
use axum::extract::Path;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::extract::{Answer, Nothing, Params};
use crate::problem::{Kind, Problem, ProblemDocument};

/// A kind of problem in a path.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct KindInPath {
    /// Last part of its `type`.
    #[param(example = "unknown-field")]
    name: String,
}

/// A kind of problem, explained.
#[derive(Serialize, ToSchema)]
#[schema(as = ProblemKind)]
pub(crate) struct KindShape {
    /// As in the documents.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference", example = "/problems/unknown-field")]
    uri: String,
    /// The kind of error in words.
    #[schema(value_type = String)]
    title: &'static str,
    /// The HTTP status of such answers.
    status: u16,
    /// Why it happens.
    #[schema(value_type = String)]
    cause: &'static str,
    /// What to do about it.
    #[schema(value_type = String)]
    cure: &'static str,
}

impl From<Kind> for KindShape {
    fn from(kind: Kind) -> KindShape {
        let (cause, cure) = kind.explained();
        KindShape { uri: kind.uri(), title: kind.title(), status: kind.status().as_u16(), cause, cure }
    }
}

/// Explain a kind of problem
///
/// At the address that problem documents have as their `type`.
#[utoipa::path(
    get,
    path = "/problems/{name}",
    tag = "service",
    params(KindInPath),
    responses(
        (status = 200, description = "What it means, and what to do", body = KindShape),
        (status = 404, description = "There is no such kind",
            body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub(crate) async fn explain_problem(path: Option<Path<KindInPath>>, _: Params<Nothing>) -> Answer<Json<KindShape>> {
    let kind = path.and_then(|Path(KindInPath { name })| Kind::ALL.iter().find(|kind| kind.name() == name));
    let kind = kind.ok_or_else(|| Problem::new(Kind::UnknownRoute, "There is no such kind of problem."))?;
    Ok(Json(KindShape::from(*kind)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fmt::Write as _;
    use std::path::Path;

    use super::*;

    const HEAD: &str = "# Problems

Every refusal is a problem document (RFC 9457, `application/problem+json`): `type` names the kind and never changes, `detail` says what is wrong
with this request, `field` which part of it. The platform explains each kind at the address that is its `type`. Uploads and downloads of
pictures and files have kinds of their own, in [media.md](media.md). This page is made by the tests from the same table.

| `type` | status | why | what to do |
| --- | --- | --- | --- |
";

    #[test]
    fn each_kind_has_a_name_of_its_own_and_an_explanation() {
        let names: HashSet<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
        for kind in Kind::ALL {
            let (cause, cure) = kind.explained();
            assert!(cause.ends_with('.') && cure.ends_with('.') && !cause.contains('|'), "{}", kind.name());
            assert!(kind.status().is_client_error() || kind.status().is_server_error(), "{}", kind.name());
        }
    }

    #[test]
    fn the_page_about_problems_is_true() {
        let mut page = HEAD.to_owned();
        for kind in Kind::ALL {
            let (cause, cure) = kind.explained();
            writeln!(page, "| `{}` | {} | {cause} | {cure} |", kind.uri(), kind.status().as_u16()).expect("a String");
        }
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/problems.md");
        if std::env::var_os("UPDATE_PROBLEMS").is_some() {
            std::fs::write(&file, &page).expect("docs/problems.md");
        }
        let kept = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(kept, page, "run UPDATE_PROBLEMS=1 cargo test -p vestibule-api --lib problems");
    }
}
