use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::mpsc;
use std::thread;

use serde_json::json;

use super::super::http::Token;
use super::*;

/// What the far side does with one connection: the answer it gives before it closes.
fn answer(status: &str, mime: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-type: {mime}\r\nconnection: close\r\n\r\n{body}")
}

fn stream(body: &str) -> String {
    answer("200 OK", "text/event-stream", body)
}

/// Serves the answers in order, one a connection, and hands out what was asked: the request line and the `last-event-id`.
fn platform(answers: Vec<String>) -> (String, mpsc::Receiver<(String, Option<String>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (asked, requests) = mpsc::channel();
    thread::spawn(move || {
        for answer in answers {
            let (socket, _) = listener.accept().expect("a connection");
            let mut lines = BufReader::new(&socket).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            let headers: Vec<String> =
                lines.take_while(|line| !line.is_empty()).map(|line| line.to_ascii_lowercase()).collect();
            assert!(headers.iter().any(|header| header == "authorization: bearer secret"));
            let last = headers.iter().find_map(|header| header.strip_prefix("last-event-id: ").map(str::to_owned));
            // The receiver is gone once its test has ended; what is left to serve is of no interest then.
            let _ = asked.send((first, last));
            let _ = (&socket).write_all(answer.as_bytes());
        }
    });
    (url, requests)
}

fn client(url: &str) -> Client {
    Client::new(url, Token::new("secret").expect("a token")).expect("an address")
}

fn open(client: &Client, after: Option<i64>) -> Result<Follow<'_>, ClientError> {
    let route = Route::new("/v1/events/stream").query("device", "SN-1");
    let mut follow = Follow::open(client, route, after)?;
    follow.first_pause = Duration::ZERO;
    follow.pause = Duration::ZERO;
    Ok(follow)
}

#[test]
fn a_lost_stream_goes_on_after_the_last_event_seen() {
    let (url, requests) = platform(vec![
        stream("retry: 2000\nid: 41\n\n"),
        stream(
            ": hello\n\nid: 42\nevent: event\ndata: {\"position\":42}\n\nevent: presence\ndata: {\"id\":\"d\"}\n\nid: 43\nevent: event\ndata: {\"posi",
        ),
        stream("id: 43\nevent: event\ndata: {\"position\":43}\n\n"),
    ]);
    let client = client(&url);
    let mut follow = open(&client, None).expect("open");
    assert!(matches!(follow.wait().expect("lost"), Followed::Lost { .. }));
    assert_eq!(follow.wait().expect("back"), Followed::Reconnected);
    assert_eq!(follow.wait().expect("an event"), Followed::Event(json!({"position": 42})));
    assert_eq!(follow.wait().expect("a presence"), Followed::Presence(json!({"id": "d"})));
    assert!(matches!(follow.wait().expect("lost"), Followed::Lost { .. }));
    assert_eq!(follow.wait().expect("back"), Followed::Reconnected);
    assert_eq!(follow.wait().expect("an event"), Followed::Event(json!({"position": 43})));
    let asked: Vec<_> = requests.iter().take(3).collect();
    assert_eq!(asked[0], ("GET /v1/events/stream?device=SN-1 HTTP/1.1".to_owned(), None));
    assert_eq!(asked[1], ("GET /v1/events/stream?device=SN-1 HTTP/1.1".to_owned(), Some("41".to_owned())));
    assert_eq!(asked[2].1, Some("42".to_owned()), "not 43: that event was cut off");
}

#[test]
fn what_is_gone_is_told_and_not_asked_for_again() {
    let (url, requests) = platform(vec![
        stream(
            "id: 9\nevent: lagged\ndata: {\"resume\":9}\n\nid: 10\nevent: event\ndata: 10\n\nid: 20\nevent: lagged\ndata: {\"resume\":20}\n\n",
        ),
        stream(
            "event: presence_lagged\ndata: {\"missed\":3}\n\nevent: removed\ndata: {\"id\":\"d\"}\n\nevent: weather\ndata: fine\n\n",
        ),
    ]);
    let client = client(&url);
    let mut follow = open(&client, Some(6)).expect("open");
    assert_eq!(follow.wait().expect("a gap"), Followed::Missed { resume: 9 });
    assert_eq!(follow.wait().expect("an event"), Followed::Event(json!(10)), "the stream goes on");
    assert_eq!(follow.wait().expect("a gap"), Followed::Missed { resume: 20 });
    assert!(matches!(follow.wait().expect("closed"), Followed::Lost { .. }));
    assert_eq!(follow.wait().expect("back"), Followed::Reconnected);
    assert_eq!(follow.wait().expect("a notice"), Followed::PresenceMissed);
    assert_eq!(follow.wait().expect("a removal"), Followed::Removed(json!({"id": "d"})));
    assert!(
        matches!(follow.wait().expect("closed"), Followed::Lost { .. }),
        "what a later version sends is passed over"
    );
    let asked: Vec<_> = requests.iter().take(2).collect();
    assert_eq!((asked[0].1.as_deref(), asked[1].1.as_deref()), (Some("6"), Some("20")));
}

#[test]
fn a_busy_platform_is_tried_again_and_a_refusing_one_is_not() {
    let problem =
        |status, title: &str| answer(status, "application/problem+json", &json!({ "title": title }).to_string());
    let (url, _requests) = platform(vec![
        stream(""),
        problem("503 Service Unavailable", "Starting"),
        problem("404 Not Found", "No such device"),
    ]);
    let client = client(&url);
    let mut follow = open(&client, Some(0)).expect("open");
    assert!(matches!(follow.wait().expect("closed"), Followed::Lost { .. }));
    match follow.wait().expect("busy") {
        Followed::Lost { reason, .. } => assert_eq!(reason, "Starting"),
        other => panic!("{other:?}"),
    }
    // A failed attempt doubles the pause; none may really pass here.
    follow.pause = Duration::ZERO;
    assert!(matches!(follow.wait(), Err(ClientError::Refused(refusal)) if refusal.status == 404));
}

#[test]
fn a_stream_that_never_says_where_it_begins_is_none() {
    let (url, _requests) = platform(vec![stream(": hello\n\n")]);
    let client = client(&url);
    let error = open(&client, None).err().expect("no beginning");
    assert!(error.to_string().contains("before it had begun"), "{error}");
}

#[test]
fn amendments_are_followed_with_the_events() {
    let (url, _requests) = platform(vec![stream("id: 7\nevent: amended\ndata: {\"position\":7}\n\n")]);
    let client = client(&url);
    let mut follow = open(&client, Some(6)).expect("open");
    assert_eq!(follow.wait().expect("an amendment"), Followed::Amended(json!({"position": 7})));
}

#[test]
fn attributes_are_followed_as_well() {
    let (url, _requests) = platform(vec![stream("id: 7\nevent: attribute\ndata: {\"value\":1}\n\n")]);
    let client = client(&url);
    let mut follow = open(&client, Some(6)).expect("open");
    assert_eq!(follow.wait().expect("an attribute"), Followed::Attribute(json!({"value": 1})));
}

#[test]
fn the_first_connection_must_succeed() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let client = client(&format!("http://{port}"));
    let error = Follow::open(&client, Route::new("/v1/events/stream"), Some(0)).err().expect("nobody answers");
    assert!(matches!(&error, ClientError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("vestibule up"), "{error}");
}

#[test]
fn an_answer_that_is_no_stream_is_no_stream() {
    let (url, _requests) = platform(vec![answer("200 OK", "text/html", "<html>")]);
    let client = client(&url);
    let error = open(&client, Some(0)).err().expect("no stream");
    assert!(matches!(&error, ClientError::Answer { .. }), "{error}");
}
