//! Slow, silent and too many clients.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use vestibule_api::ApiConfig;

use crate::site::{Site, read_answer};

fn impatient() -> ApiConfig {
    ApiConfig {
        head_timeout: Duration::from_millis(300),
        body_timeout: Duration::from_millis(300),
        ..ApiConfig::default()
    }
}

#[test]
fn a_silent_connection_is_closed_without_a_word() {
    let site = Site::with(impatient());
    let mut words = Vec::new();
    site.connect().read_to_end(&mut words).expect("closed");
    assert!(words.is_empty());
}

#[test]
fn a_connection_silent_after_an_answer_is_closed() {
    let site = Site::with(impatient());
    let mut stream = site.connect();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
    let answer = read_answer(stream);
    assert_eq!((answer.status, answer.body.as_str()), (200, "ok\n"));
}

#[test]
fn headers_that_never_end_are_answered_408() {
    let site = Site::with(impatient());
    let mut stream = site.connect();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: ").expect("sent");
    read_answer(stream).problem(408, "timeout");
}

#[test]
fn headers_that_trickle_do_not_win_time() {
    let site = Site::with(impatient());
    let mut stream = site.connect();
    let mut writer = stream.try_clone().expect("cloned");
    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("set");
    let began = Instant::now();
    writer.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n").expect("sent");
    // The read's own timeout paces the trickle; the server's end of the connection ends it.
    let mut byte = [0];
    let answered = loop {
        let _ = writer.write_all(b"x: y\r\n");
        match stream.read(&mut byte) {
            Ok(count) => break count == 1,
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break false,
        }
        assert!(began.elapsed() < Duration::from_secs(20), "the connection lives on");
    };
    assert!(answered, "408 comes before the end");
}

#[test]
fn a_body_that_never_ends_is_answered_408() {
    let site = Site::with(impatient());
    let head = format!(
        "POST /v1/devices HTTP/1.1\r\nhost: x\r\n{}content-type: application/json\r\ncontent-length: 100\r\n\r\n{{\"serial\":",
        site.bearer()
    );
    let mut stream = site.connect();
    stream.write_all(head.as_bytes()).expect("sent");
    read_answer(stream).problem(408, "timeout");
}

#[test]
fn a_body_that_breaks_off_costs_nothing() {
    let site = Site::new();
    let head = format!(
        "POST /v1/devices HTTP/1.1\r\nhost: x\r\n{}content-type: application/json\r\ncontent-length: 100\r\n\r\n{{\"serial\":",
        site.bearer()
    );
    let mut stream = site.connect();
    stream.write_all(head.as_bytes()).expect("sent");
    stream.shutdown(Shutdown::Write).expect("closed");
    let mut words = Vec::new();
    let _ = stream.read_to_end(&mut words);
    assert_eq!(site.get("/v1/devices").json()["items"].as_array().map(Vec::len), Some(0));
}

#[test]
fn connections_over_the_limit_are_told_so() {
    let site = Site::with(ApiConfig { max_connections: 2, ..ApiConfig::default() });
    let mut held: Vec<_> = (0..2).map(|_| site.connect()).collect();
    for stream in &mut held {
        // An answer shows that the server has the connection.
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").expect("sent");
        stream.read_exact(&mut [0; 12]).expect("answered");
    }
    let refused = site.get("/v1/devices");
    refused.problem(503, "too-many-connections");
    assert_eq!(refused.header("retry-after"), Some("5"));
    drop(held);
    let began = Instant::now();
    while site.get("/v1/devices").status != 200 {
        assert!(began.elapsed() < Duration::from_secs(20), "the places are free again");
    }
}

#[test]
fn a_client_that_takes_nothing_is_cut() {
    let site =
        Site::with(ApiConfig { write_timeout: Duration::from_millis(300), max_streams: 1, ..ApiConfig::default() });
    let device = site.add("A");
    let mut stalled = site.connect();
    let head = format!("GET /v1/events/stream HTTP/1.1\r\nhost: x\r\n{}\r\n", site.bearer());
    stalled.write_all(head.as_bytes()).expect("sent");
    stalled.read_exact(&mut [0; 12]).expect("begun");
    let data = format!("\"{}\"", "x".repeat(60_000));
    let mut last = vestibule_platform::Position::START;
    for _ in 0..400 {
        last = site.append(&device, "Fire", "Smoke", None, crate::site::NOW, &data);
    }
    site.durable(last);
    // The one place for a stream is free again once the stalled client is cut.
    let began = Instant::now();
    loop {
        let mut next = site.connect();
        next.write_all(head.as_bytes()).expect("sent");
        let mut status = [0; 12];
        next.read_exact(&mut status).expect("answered");
        if &status == b"HTTP/1.1 200" {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "the stalled client lives on");
    }
    drop(stalled);
}
