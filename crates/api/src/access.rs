//! Who may call what: bearer tokens against the permission a route asks for.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::{HeaderMap, header};
use vestibule_platform::{Caller, Permission, Platform};

use crate::problem::{Kind, Problem};

pub(crate) const NOBODYS: &str = "Nobody has this token, or its time is over.";

/// What a token gets its holder at one route.
#[derive(Debug)]
pub(crate) enum Access {
    /// Come in, as this one.
    Granted(Caller),
    /// Nobody's token.
    Unknown,
    /// Somebody's token, without the permission.
    Denied,
    /// Somebody who asks too often, and may again after a while.
    TooOften(Duration),
}

/// Decides about tokens.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Decide>);

type Decide = dyn Fn(Shown<'_>, Option<Permission>) -> Access + Send + Sync;

/// By what somebody is recognised.
pub(crate) enum Shown<'a> {
    Token(&'a str),
    /// Recognised before, on another way in: no request that came over HTTP has one.
    Caller(&'a Caller),
}

impl Gate {
    pub(crate) fn new(decide: impl Fn(Shown<'_>, Option<Permission>) -> Access + Send + Sync + 'static) -> Gate {
        Gate(Arc::new(decide))
    }

    /// The platform's own tokens.
    pub(crate) fn of(platform: Arc<Platform>) -> Gate {
        Gate::new(move |shown, permission| {
            let caller = match shown {
                Shown::Token(token) => platform.authorize(token),
                Shown::Caller(caller) => Some(caller.clone()).filter(|by| by.is_current(platform.clock().now_ms())),
            };
            let Some(caller) = caller else { return Access::Unknown };
            if let Err(after) = platform.count_request(&caller) {
                return Access::TooOften(after);
            }
            match permission.filter(|permission| !caller.may(*permission)) {
                None => Access::Granted(caller),
                Some(permission) => {
                    platform.denied(&caller, permission);
                    Access::Denied
                }
            }
        })
    }

    /// Lets nobody in; for routes that are only looked at.
    pub(crate) fn closed() -> Gate {
        Gate::new(|_, _| Access::Unknown)
    }

    /// Whether this request may go on, and whose it is; without a permission anybody's may that is known.
    pub(crate) fn check(&self, request: &Request, permission: Option<Permission>) -> Result<Caller, Problem> {
        let shown = match (request.extensions().get::<Caller>(), bearer(request.headers())) {
            (Some(caller), _) => Shown::Caller(caller),
            (None, Some(token)) => Shown::Token(token),
            (None, None) => {
                let detail = "Send the header \"Authorization: Bearer <token>\".";
                return Err(Problem::new(Kind::Unauthenticated, detail));
            }
        };
        match (self.0)(shown, permission) {
            Access::Granted(caller) => Ok(caller),
            Access::Unknown => Err(Problem::new(Kind::Unauthenticated, NOBODYS)),
            Access::TooOften(after) => Err(Problem::new(
                Kind::TooManyRequests,
                "This token is used too often. Wait, or ask for what is needed in fewer requests.",
            )
            .after(after)),
            Access::Denied => Err(Problem::new(
                Kind::Forbidden,
                format!(
                    "This token does not have the permission {}. Ask an administrator for one with a role that has it.",
                    permission.map_or("", Permission::as_str)
                ),
            )),
        }
    }
}

/// The token of the one Authorization header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn outcome(authorization: &[&str]) -> Result<(), Kind> {
        let gate = Gate::new(|shown, permission| match (shown, permission) {
            (Shown::Token("reader"), Some(Permission::EventsRead)) | (Shown::Token("all"), _) => {
                Access::Granted(Caller::program())
            }
            (Shown::Token("reader"), _) => Access::Denied,
            _ => Access::Unknown,
        });
        let mut request = Request::new(Body::empty());
        for value in authorization {
            request.headers_mut().append(header::AUTHORIZATION, value.parse().expect("a value"));
        }
        gate.check(&request, Some(Permission::DevicesWrite)).map(drop).map_err(|problem| problem.kind)
    }

    #[test]
    fn only_the_right_token_with_the_right_permission_comes_in() {
        assert_eq!(outcome(&["Bearer all"]), Ok(()));
        assert_eq!(outcome(&["bearer all"]), Ok(()));
        assert_eq!(outcome(&["Bearer reader"]), Err(Kind::Forbidden));
        for refused in
            [&[][..], &["Bearer other"], &["Bearer "], &["Basic all"], &["all"], &["Bearer all", "Bearer all"]]
        {
            assert_eq!(outcome(refused), Err(Kind::Unauthenticated), "{refused:?}");
        }
    }

    #[test]
    fn every_permission_has_a_name() {
        for permission in Permission::ALL {
            assert!(!permission.as_str().is_empty());
        }
    }
}
