//! Lists that come in pages.

use serde::Deserialize;
use serde_json::{Value, json};

use super::progress::Progress;
use crate::client::{Client, ClientError, Route};

/// Items asked for at once.
const PAGE: usize = 200;

/// Items and where the list goes on, the shape of every list of the API.
#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) items: Vec<Value>,
    next: Option<String>,
    /// The moment of the past that the items are shown at.
    #[serde(default)]
    pub(super) past: Option<Value>,
}

impl Page {
    /// The shape of the API again.
    pub(super) fn into_json(self) -> Value {
        let mut page = json!({ "items": self.items, "next": self.next });
        if let Some(past) = self.past {
            page["past"] = past;
        }
        page
    }
}

/// Gathers up to `limit` items of the list at `route`; `what` names them for the one who waits.
///
/// # Errors
/// As the client says.
pub(super) fn all(client: &Client, route: &Route, limit: usize, what: &'static str) -> Result<Page, ClientError> {
    let mut progress = Progress::new(what);
    let mut gathered = Page { items: Vec::new(), next: None, past: None };
    loop {
        let wanted = (limit - gathered.items.len()).min(PAGE);
        let route = route.clone().query("limit", &wanted.to_string()).query_if("cursor", gathered.next.as_deref());
        let page: Page = client.get(&route)?;
        // A page may bring nothing and promise more: so much did not match. One that leads nowhere would be asked for for ever.
        let ended = page.next.is_none() || page.items.is_empty() && page.next == gathered.next;
        gathered.items.extend(page.items);
        gathered.items.truncate(limit);
        gathered.next = page.next;
        gathered.past = page.past;
        progress.reached(gathered.items.len());
        if ended || gathered.items.len() >= limit {
            return Ok(gathered);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    use super::*;
    use crate::client::Token;

    /// Serves these pages in order and answers with the request lines it saw.
    fn platform(pages: Vec<Value>) -> (Client, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let served = thread::spawn(move || {
            let serve = |page: Value| {
                let (socket, _) = listener.accept().expect("a connection");
                let lines: Vec<String> =
                    BufReader::new(&socket).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
                let answer =
                    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{page}");
                (&socket).write_all(answer.as_bytes()).expect("answered");
                lines.into_iter().next().unwrap_or_default()
            };
            pages.into_iter().map(serve).collect()
        });
        let token = Token::new("secret").expect("a token");
        (Client::new(&url, token).expect("an address"), served)
    }

    #[test]
    fn pages_are_gathered_until_the_list_ends() {
        let (client, served) =
            platform(vec![json!({"items": [1, 2], "next": "c&1"}), json!({"items": [3], "next": null})]);
        let page = all(&client, &Route::new("/v1/devices"), usize::MAX, "devices").expect("two pages");
        assert_eq!(page.into_json(), json!({"items": [1, 2, 3], "next": null}));
        let asked = served.join().expect("served");
        assert_eq!(asked, ["GET /v1/devices?limit=200 HTTP/1.1", "GET /v1/devices?limit=200&cursor=c%261 HTTP/1.1"]);
    }

    #[test]
    fn a_limit_ends_the_list_early_and_says_where_it_goes_on() {
        let (client, served) =
            platform(vec![json!({"items": [1, 2], "next": "a"}), json!({"items": [3], "next": "b"})]);
        let page = all(&client, &Route::new("/v1/events").query("type", "t"), 3, "events").expect("two pages");
        assert_eq!(page.into_json(), json!({"items": [1, 2, 3], "next": "b"}));
        let asked = served.join().expect("served");
        assert_eq!(asked[1], "GET /v1/events?type=t&limit=1&cursor=a HTTP/1.1");
    }

    #[test]
    fn an_empty_page_does_not_end_the_list_unless_it_leads_nowhere() {
        let empty = |next: &str| json!({"items": [], "next": next});
        let found = json!({"items": [1], "next": "c"});
        let (client, served) = platform(vec![empty("a"), empty("b"), found, empty("c")]);
        let page = all(&client, &Route::new("/v1/events"), usize::MAX, "events").expect("four pages");
        assert_eq!(page.items, [json!(1)]);
        assert_eq!(served.join().expect("served").len(), 4);
    }
}
