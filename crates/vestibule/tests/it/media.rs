//! Pictures and files over the sockets of the real binary: tickets, uploads that are cut and go on, content that is refused, and
//! what is shown.

mod amendment;
mod bucket;
mod device;
mod load;

use std::io::{Cursor, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use image::{DynamicImage, ImageFormat, RgbImage};
use serde_json::{Value, json};

use crate::support::{Listener, Platform, SecondDevice, minted, until};

const CODE: &str = "ABCDEF";

/// An answer, byte for byte.
struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.head))
    }

    #[track_caller]
    fn is(self, status: u16) -> Reply {
        assert_eq!(self.status, status, "{}\n{}", self.head, String::from_utf8_lossy(&self.body));
        self
    }

    #[track_caller]
    fn refused(self, status: u16, name: &str) {
        let reply = self.is(status);
        assert_eq!(reply.json()["type"], format!("urn:vestibule:media:{name}"));
    }
}

/// One request on a connection of its own. `sent` is how much of the body is sent before the connection is cut; an answer is
/// awaited only when all of it is.
fn ask(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: Option<&[u8]>,
    sent: usize,
) -> Option<Reply> {
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    let body = body.unwrap_or_default();
    // The platform may answer before it has all of the body.
    let _ = stream.write_all(&body[..sent.min(body.len())]);
    if sent < body.len() {
        stream.shutdown(Shutdown::Both).expect("cut");
        return None;
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(answer[..end].to_vec()).expect("text");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Some(Reply { status, head, body: answer.split_off(end + 4) })
}

/// A platform with one device, and what is asked of it.
struct Site {
    platform: Platform,
    serial: String,
    token: String,
}

impl Site {
    fn new() -> Site {
        Site::of(Platform::start())
    }

    fn of(platform: Platform) -> Site {
        let serial = minted("SN");
        platform.add(&serial, CODE);
        let token = std::fs::read_to_string(platform.token_file()).expect("a token");
        Site { platform, serial, token: format!("Bearer {}", token.trim()) }
    }

    fn address(&self) -> SocketAddr {
        self.platform.address(Listener::Http)
    }

    /// Id and path of a new ticket.
    fn ticket(&self, wish: &Value) -> (String, String) {
        let offer = self.platform.http().post(&format!("/v1/devices/{}/uploads", self.serial), wish).ok();
        let url = offer["url"].as_str().expect("an address");
        let path = url.strip_prefix(&format!("http://{}", self.address())).expect("the HTTP listener").to_owned();
        (offer["id"].as_str().expect("an id").to_owned(), path)
    }

    #[track_caller]
    fn put(&self, path: &str, content: &[u8]) -> Reply {
        let digest = repr_digest(content);
        let headers = [("repr-digest", digest.as_str()), ("content-type", "image/jpeg")];
        ask(self.address(), "PUT", path, &headers, Some(content), content.len()).expect("an answer")
    }

    #[track_caller]
    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        let headers = [&[("authorization", self.token.as_str())], headers].concat();
        ask(self.address(), "GET", path, &headers, None, 0).expect("an answer")
    }

    #[track_caller]
    fn call(&self, method: &str, path: &str, token: &str, body: &Value) -> Reply {
        let (headers, body) = ([("authorization", token), ("content-type", "application/json")], body.to_string());
        ask(self.address(), method, path, &headers, Some(body.as_bytes()), body.len()).expect("an answer")
    }

    /// Sends the rest of an upload from an offset; or says where it is instead.
    #[track_caller]
    fn go_on(&self, path: &str, content: &[u8], here: u64) -> Result<(), u64> {
        let (offset, length) = (here.to_string(), content.len().to_string());
        // Nothing of it may have come: then this begins it, and says how long it is.
        let headers =
            [("content-type", "application/partial-upload"), ("upload-offset", &*offset), ("upload-length", &*length)];
        let rest = &content[here as usize..];
        let end = ask(self.address(), "PATCH", path, &headers, Some(rest), rest.len()).expect("an answer");
        match end.status {
            409 => Err(end.header("upload-offset").and_then(|text| text.parse().ok()).expect("an offset")),
            _ => {
                end.is(201);
                Ok(())
            }
        }
    }

    fn offset(&self, path: &str) -> u64 {
        let reply = ask(self.address(), "HEAD", path, &[], None, 0).expect("an answer").is(204);
        reply.header("upload-offset").and_then(|text| text.parse().ok()).expect("an offset")
    }

    /// Bytes of memory the platform has now.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.platform.pid())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("kilobytes") * 1_024
    }
}

fn repr_digest(content: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(digest(&SHA256, content)))
}

fn hex(content: &[u8]) -> String {
    digest(&SHA256, content).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A picture that differs from others of another number.
fn picture(format: ImageFormat, width: u32, height: u32, number: u8) -> Vec<u8> {
    let whole = RgbImage::from_fn(width, height, |x, y| image::Rgb([x as u8 ^ number, y as u8, (x * y) as u8]));
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(whole).write_to(&mut bytes, format).expect("encoded");
    bytes.into_inner()
}

#[test]
fn a_picture_is_sent_once_and_shown() {
    let site = Site::new();
    let content = picture(ImageFormat::Jpeg, 800, 600, 1);
    let (id, path) = site.ticket(&json!({"name": "door.jpg"}));
    assert_eq!(site.get(&format!("/media/v1/picture/{id}"), &[]).status, 404, "it has not arrived");
    let stored = site.put(&path, &content).is(201).json();
    assert_eq!(stored, json!({"id": id, "sha256": hex(&content), "bytes": content.len()}));
    assert_eq!(site.put(&path, &content).is(200).json(), stored, "a repetition");
    site.put(&path, &picture(ImageFormat::Jpeg, 800, 600, 2)).refused(409, "conflict");
    site.put(&path, &[&content[..], b"more"].concat()).refused(409, "conflict");

    let shown = format!("/media/v1/picture/{id}");
    let whole = site.get(&shown, &[]).is(200);
    assert!(whole.body == content);
    let etag = format!("\"{}\"", hex(&content));
    for (name, value) in [
        ("etag", etag.as_str()),
        ("content-type", "image/jpeg"),
        ("cache-control", "private, immutable, max-age=31536000"),
        ("x-content-type-options", "nosniff"),
        ("content-security-policy", "sandbox"),
        ("referrer-policy", "no-referrer"),
        ("accept-ranges", "bytes"),
    ] {
        assert_eq!(whole.header(name), Some(value), "{name}");
    }
    let part = site.get(&shown, &[("range", "bytes=10-19")]).is(206);
    assert_eq!(part.body, content[10..20]);
    assert_eq!(part.header("content-range"), Some(format!("bytes 10-19/{}", content.len()).as_str()));
    let beyond = site.get(&shown, &[("range", "bytes=99999999-")]).is(416);
    assert_eq!(beyond.header("content-range"), Some(format!("bytes */{}", content.len()).as_str()));
    assert!(site.get(&shown, &[("if-none-match", &etag)]).is(304).body.is_empty());

    for (width, height) in [(160, 120), (320, 240), (640, 480)] {
        for _ in 0..2 {
            let small = site.get(&format!("{shown}?w={width}"), &[]).is(200);
            let small = image::load_from_memory_with_format(&small.body, ImageFormat::Jpeg).expect("a JPEG");
            assert_eq!((small.width(), small.height()), (width, height));
        }
    }
    site.get(&format!("{shown}?w=161"), &[]).refused(400, "request");

    // Without a token, by a ticket for it.
    let offer = site.platform.http().post(&format!("/v1/devices/{}/downloads", site.serial), &json!({"id": id})).ok();
    let url = offer["url"].as_str().expect("an address").to_owned();
    let by_ticket = url.strip_prefix(&format!("http://{}", site.address())).expect("the HTTP listener");
    let fetched = ask(site.address(), "GET", &format!("{by_ticket}&w=160"), &[], None, 0).expect("an answer");
    assert_eq!(fetched.is(200).header("content-type"), Some("image/jpeg"));
    ask(site.address(), "GET", &shown, &[], None, 0).expect("an answer").refused(401, "ticket");
    // The log has no ticket, and the audit has who asked.
    assert!(!site.platform.log().contains("mt1."));
    let audit = site.platform.http().get("/v1/audit?action=media.offer").ok();
    assert_eq!(audit["items"][0]["detail"], json!({"id": id, "kind": "picture"}));
    site.platform.assert_no_panic();
}

#[test]
fn a_wrong_ticket_is_told_nothing() {
    let site = Site::new();
    let content = picture(ImageFormat::Png, 20, 20, 1);
    let (id, path) = site.ticket(&json!({}));
    let (other, other_path) = site.ticket(&json!({}));
    let (_, ticket) = path.split_once("ticket=").expect("a ticket");
    let mut forged = ticket.to_owned();
    forged.replace_range(20..21, if &ticket[20..21] == "A" { "B" } else { "A" });
    let mut bodies = Vec::new();
    for wrong in [
        format!("/media/v1/upload/{id}"),
        format!("/media/v1/upload/{id}?ticket="),
        format!("/media/v1/upload/{id}?ticket={forged}"),
        format!("/media/v1/upload/{other}?ticket={ticket}"),
        format!("/media/v1/upload/{id}?ticket={ticket}&ticket={ticket}"),
        format!("/media/v1/upload/{}?ticket={ticket}", id.to_uppercase().replace('-', "")),
        format!("/media/v1/upload/..%2f..%2ftoken?ticket={ticket}"),
        format!("/media/v1/picture/{id}?ticket={ticket}"),
    ] {
        let method = if wrong.contains("picture") { "GET" } else { "PUT" };
        let headers = [("repr-digest", repr_digest(&content))];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = (method == "PUT").then_some(&content[..]);
        let refused = ask(site.address(), method, &wrong, &headers, body, content.len()).expect("an answer").is(401);
        bodies.push(refused.body);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]), "one answer for all");
    for path in ["/media/v1/picture/..%2f..%2f..%2ftoken", "/media/v1/picture/%2e%2e", "/media/v1/file/x%00y"] {
        site.get(path, &[]).refused(404, "not-found");
    }
    site.put(&other_path, &content).is(201);
    // An object is fetched as what it was sent as.
    site.get(&format!("/media/v1/file/{other}"), &[]).refused(404, "not-found");
    site.platform.assert_no_panic();
}

#[test]
fn what_belongs_elsewhere_is_not_there() {
    let site = Site::new();
    let content = picture(ImageFormat::Png, 20, 20, 1);
    let (id, path) = site.ticket(&json!({}));
    site.put(&path, &content).is(201);
    let device = format!("/v1/devices/{}", site.serial);
    site.call("PATCH", &device, &site.token, &json!({"org": "/plant-1/hall-2"})).is(200);
    let token = |name: &str, role: &str, subtree: &str| {
        let wish = json!({"name": name, "role": role, "subtree": subtree});
        let made = site.call("POST", "/v1/tokens", &site.token, &wish).is(201).json();
        format!("Bearer {}", made["token"].as_str().expect("a token"))
    };
    let here = token("here", "viewer", "/plant-1");
    let elsewhere = token("elsewhere", "admin", "/plant-2");
    let shown = format!("/media/v1/picture/{id}");
    for (token, status) in [(&here, 200), (&elsewhere, 404)] {
        for target in [shown.clone(), format!("{shown}?w=160")] {
            let answer = ask(site.address(), "GET", &target, &[("authorization", token)], None, 0);
            answer.expect("an answer").is(status);
        }
    }
    // As if there were none.
    let unknown = format!("/media/v1/picture/{}", uuid::Uuid::now_v7());
    let answer = |target: &str| ask(site.address(), "GET", target, &[("authorization", &elsewhere)], None, 0);
    assert_eq!(answer(&shown).expect("an answer").body, answer(&unknown).expect("an answer").body);
    for (token, download, upload) in [(&here, 201, 403), (&elsewhere, 404, 404)] {
        for (end, body, status) in [("downloads", json!({"id": id}), download), ("uploads", json!({}), upload)] {
            site.call("POST", &format!("{device}/{end}"), token, &body).is(status);
        }
    }
    // Of a removed device its pictures are seen by who sees everything.
    let removed = ask(site.address(), "DELETE", &device, &[("authorization", &site.token)], None, 0);
    removed.expect("an answer").is(204);
    site.get(&shown, &[]).is(200);
    for token in [here, elsewhere] {
        ask(site.address(), "GET", &shown, &[("authorization", &token)], None, 0).expect("an answer").is(404);
    }
    site.platform.assert_no_panic();
}

#[test]
fn an_upload_goes_on_where_it_was_cut() {
    let mut site = Site::new();
    let content = picture(ImageFormat::Png, 400, 400, 3);
    assert!(content.len() > 100_000);
    for (content_type, extra) in
        [("application/partial-upload", None), ("application/offset+octet-stream", Some(("tus-resumable", "1.0.0")))]
    {
        let (id, path) = site.ticket(&json!({"bytes": content.len(), "sha256": hex(&content)}));
        assert_eq!(site.offset(&path), 0);
        ask(site.address(), "PUT", &path, &[], Some(&content), 60_000);
        let here = until("what was sent", || Some(site.offset(&path)).filter(|offset| *offset > 0));
        assert!(here <= 60_000);
        // A crash of the platform costs nothing of it either.
        site.platform.kill();
        site.platform.restart();
        let here = site.offset(&path);
        assert!(here > 0);
        site.get(&format!("/media/v1/picture/{id}"), &[]).refused(404, "not-found");
        let piece = |offset: u64, bytes: &[u8]| {
            let offset = offset.to_string();
            let mut headers = vec![("content-type", content_type), ("upload-offset", &*offset)];
            headers.extend(extra);
            ask(site.address(), "PATCH", &path, &headers, Some(bytes), bytes.len()).expect("an answer")
        };
        let conflict = piece(here + 1, b"x").is(409);
        assert_eq!(conflict.header("upload-offset"), Some(here.to_string().as_str()));
        let at = here as usize;
        piece(here, &content[at..at + 100]).is(204);
        assert_eq!(site.offset(&path), here + 100);
        let end = piece(here + 100, &content[at + 100..]);
        assert_eq!(end.header("upload-offset"), Some(content.len().to_string().as_str()));
        assert_eq!(end.status, if extra.is_some() { 204 } else { 201 });
        assert_eq!(site.offset(&path), content.len() as u64, "it can be asked whether it was complete");
        assert!(site.get(&format!("/media/v1/picture/{id}"), &[]).is(200).body == content);
        piece(content.len() as u64, b"").refused(401, "ticket");
    }
    let (_, path) = site.ticket(&json!({}));
    let old = [("content-type", "application/offset+octet-stream"), ("upload-offset", "0"), ("tus-resumable", "0.2.2")];
    ask(site.address(), "PATCH", &path, &old, Some(b"x"), 1).expect("an answer").is(412);
    site.platform.assert_no_panic();
}

#[test]
fn what_is_no_picture_is_refused_and_costs_nothing() {
    let site = Site::of(Platform::configured("[media]\npicture_max_bytes = \"1MiB\"\n"));
    let png = picture(ImageFormat::Png, 40, 40, 1);
    let mut bomb = png.clone();
    bomb[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
    let html = b"<!doctype html><script>alert(document.domain)</script>";
    let before = site.memory();
    for _ in 0..20 {
        let (_, path) = site.ticket(&json!({"name": "a.jpg"}));
        site.put(&path, &bomb).refused(422, "content");
        // What is wrong is not kept, and the ticket is used.
        site.put(&path, &png).refused(401, "ticket");
        let (_, path) = site.ticket(&json!({}));
        site.put(&path, html).refused(415, "type");
        let (_, path) = site.ticket(&json!({}));
        site.put(&path, &png[..png.len() - 20]).refused(422, "content");
        let (_, path) = site.ticket(&json!({}));
        let wrong = repr_digest(b"something else");
        let refused = ask(site.address(), "PUT", &path, &[("repr-digest", &wrong)], Some(&png), png.len());
        refused.expect("an answer").refused(422, "content");
        let (_, path) = site.ticket(&json!({"media_type": "image/jpeg"}));
        site.put(&path, &png).refused(415, "type");
    }
    assert!(site.memory() < before + (32 << 20), "memory went from {before} to {}", site.memory());
    let (_, path) = site.ticket(&json!({}));
    site.put(&path, &vec![0; (1 << 20) + 1]).refused(413, "too-large");
    let (_, path) = site.ticket(&json!({"bytes": 5}));
    site.put(&path, &png).refused(413, "too-large");
    let (_, path) = site.ticket(&json!({}));
    ask(site.address(), "PUT", &path, &[], Some(&png), png.len()).expect("an answer").refused(400, "request");
    ask(site.address(), "PUT", &path, &[], None, 0).expect("an answer").refused(411, "length");
    let uploads = format!("/v1/devices/{}/uploads", site.serial);
    for (wish, field) in [
        (json!({"bytes": 2 << 20}), "bytes"),
        (json!({"media_type": "text/html"}), "media_type"),
        (json!({"kind": "video"}), "kind"),
        (json!({"sha256": "00"}), "sha256"),
        (json!({"name": "a\u{7}b"}), "name"),
    ] {
        let refused = site.platform.http().post(&uploads, &wish);
        assert_eq!((refused.status, &refused.body["field"]), (422, &json!(field)));
    }
    // A PNG that is small and unpacks to much is stored, and unpacked within bounds when somebody wants it small.
    let flat = DynamicImage::ImageLuma8(image::GrayImage::new(7_000, 7_000));
    let mut packed = Cursor::new(Vec::new());
    flat.write_to(&mut packed, ImageFormat::Png).expect("encoded");
    let (id, path) = site.ticket(&json!({}));
    site.put(&path, &packed.into_inner()).is(201);
    site.get(&format!("/media/v1/picture/{id}?w=160"), &[]).is(200);
    site.platform.assert_no_panic();
}

#[test]
fn a_file_is_saved_and_not_shown() {
    let site = Site::new();
    let html = b"<!doctype html><script>alert(document.domain)</script>";
    let (id, path) = site.ticket(&json!({"kind": "file", "name": "log \"1\".html"}));
    site.put(&path, html).is(201);
    let saved = site.get(&format!("/media/v1/file/{id}"), &[]).is(200);
    assert_eq!(saved.body, html);
    assert_eq!(saved.header("content-type"), Some("application/octet-stream"));
    assert_eq!(saved.header("content-disposition"), Some("attachment; filename*=UTF-8''log%20%221%22.html"));
    site.get(&format!("/media/v1/picture/{id}"), &[]).refused(404, "not-found");
    site.platform.assert_no_panic();
}

#[test]
fn osap_10_7_a_device_asks_where_to_put_a_picture_and_puts_it_there() {
    let site = Site::new();
    let dir = tempfile::tempdir().expect("a directory");
    let (file, content) = (dir.path().join("door.png"), picture(ImageFormat::Png, 64, 48, 9));
    std::fs::write(&file, &content).expect("written");
    let file = file.to_str().expect("a path");
    let told = SecondDevice::run(&site.platform, &site.serial, CODE, &["--picture", file]).happened();
    let sent = told.one("picture");
    assert_eq!((&sent["status"], &sent["answer"]["sha256"]), (&json!(201), &json!(hex(&content))));
    let shown = format!("/media/v1/picture/{}", sent["answer"]["id"].as_str().expect("an id"));
    assert!(site.get(&shown, &[]).is(200).body == content);
    // What is not taken is refused before anything is sent.
    let other = minted("SN");
    site.platform.add(&other, CODE);
    let more = ["--picture", file, "--picture-type", "image/svg+xml"];
    let refused = SecondDevice::run(&site.platform, &other, CODE, &more).happened();
    assert_eq!(refused.one("picture")["code"], 415);
    let metrics = site.platform.http().text("/metrics");
    assert!(metrics.contains("vestibule_das_transfers_total{result=\"done\"} 1"), "{metrics}");
    site.platform.assert_no_panic();
}

#[test]
fn the_steps_of_an_upload_are_told_to_who_asks_why() {
    let site = Site::new();
    let content = picture(ImageFormat::Png, 400, 400, 3);
    let (id, path) = site.ticket(&json!({"name": "door.png", "bytes": content.len(), "sha256": hex(&content)}));
    ask(site.address(), "PUT", &path, &[], Some(&content), 60_000);
    let reasons = || site.platform.reasons(&site.serial);
    until("it was cut", || (reasons().last()? == "upload_cut").then_some(()));
    let here = site.offset(&path);
    site.go_on(&path, &content, here).expect("where it is");
    let (_, wrong) = site.ticket(&json!({"name": "page.html"}));
    site.put(&wrong, b"<!doctype html>").refused(415, "type");
    let uploads = format!("/v1/devices/{}/uploads", site.serial);
    assert_eq!(site.platform.http().post(&uploads, &json!({"bytes": 1_u64 << 40})).status, 422);
    let steps = [
        "upload_offered",
        "upload_begun",
        "upload_cut",
        "upload_resumed",
        "upload_arrived",
        "upload_offered",
        "upload_begun",
        "upload_refused",
        "upload_not_offered",
    ];
    assert_eq!(reasons(), steps);
    let why = site.platform.why(&site.serial);
    let facts = why["facts"].as_array().expect("facts");
    assert!(facts.iter().all(|fact| fact["step"] == "upload"), "{why}");
    let told = |at: usize| facts[at]["text"].as_str().expect("a sentence");
    let named = format!("picture \"door.png\" ({id})");
    assert_eq!(told(0), format!("An address was given to send {named} to."));
    assert_eq!(told(1), format!("The upload of {named} has begun ({} bytes).", content.len()));
    assert!(
        told(2).starts_with(&format!("The upload of {named} stopped at byte {here}: The connection broke")),
        "{}",
        told(2)
    );
    assert_eq!(told(3), format!("The upload of {named} goes on at byte {here}."));
    let arrived = format!("P{} has arrived: image/png, {} bytes, 400 by 400 pixels.", &named[1..], content.len());
    assert_eq!(told(4), arrived);
    assert!(told(7).ends_with("was refused: The content is not a JPEG, PNG, WebP or AVIF picture."), "{}", told(7));
    assert!(told(8).starts_with("No address was given to send a picture to: at most "), "{}", told(8));
    assert_eq!(why["last_failure"]["reason"], "upload_not_offered");
    let shown = site.platform.cli(&["device", "why", &site.serial]).expect(0).stdout;
    assert!(shown.contains(&arrived) && !shown.contains("mt1."), "{shown}");
    site.platform.assert_no_panic();
}
