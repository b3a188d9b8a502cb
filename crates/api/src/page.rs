//! The live page: devices, their attributes and events as they happen, without dependencies.

use axum::http::{HeaderName, header};
use axum::response::{Html, IntoResponse};
use uuid::Uuid;

const PAGE: &str = include_str!("page/index.html");
/// How it looks.
const STYLE: &str = include_str!("page/style.css");
/// Stands in the page where that goes.
const STYLE_HERE: &str = "{{style}}";
/// What belongs to one device that is opened.
const DEVICE: &str = include_str!("page/device.js");
/// Stands in the page where that goes.
const DEVICE_HERE: &str = "{{device}}";
/// Stands in the page where the nonce of this answer goes.
const NONCE: &str = "{{nonce}}";

/// Show the live page
///
/// The page itself holds nothing; it asks for a token, or takes it from the address as `#token=…`.
#[utoipa::path(
    get,
    path = "/",
    tag = "service",
    responses((status = 200, description = "The page", body = String, content_type = "text/html")),
)]
pub(crate) async fn live_page() -> impl IntoResponse {
    let nonce = Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data: blob:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    );
    let headers: [(HeaderName, String); 3] = [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::REFERRER_POLICY, "no-referrer".to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    (headers, Html(PAGE.replace(NONCE, &nonce).replace(STYLE_HERE, STYLE).replace(DEVICE_HERE, DEVICE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_can_run_nothing_but_itself() {
        assert_eq!(PAGE.matches("<script").count(), PAGE.matches("<script nonce=\"{{nonce}}\">").count());
        assert_eq!(PAGE.matches("<style").count(), PAGE.matches("<style nonce=\"{{nonce}}\">").count());
        for unsafe_way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            " style=\"",
            "http://",
            "https://",
        ] {
            for part in [PAGE, STYLE, DEVICE] {
                assert!(!part.contains(unsafe_way), "{unsafe_way}");
            }
        }
        assert!(!DEVICE.contains("</script") && !STYLE.contains("</style"));
        assert!(PAGE.contains(DEVICE_HERE) && PAGE.contains(STYLE_HERE));
    }
}
