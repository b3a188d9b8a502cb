//! A device of ours that sends a picture with its event, over a line that is cut.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use vestibule_device::{Anchor, Device, MemoryStorage, Picture, UploadError};

use super::*;

/// Stands before the platform's HTTP listener: holds everything back until it is opened, and cuts the first uploads.
struct Line {
    address: SocketAddr,
    platform: Arc<Mutex<Option<SocketAddr>>>,
    is_open: Arc<AtomicBool>,
    /// Method of each request that came.
    seen: Arc<Mutex<Vec<String>>>,
}

impl Line {
    /// Cuts so many `PUT`s and `PATCH`es after so many bytes.
    fn cutting(cuts: usize, after: usize) -> Line {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let line = Line {
            address: listener.local_addr().expect("an address"),
            platform: Arc::default(),
            is_open: Arc::default(),
            seen: Arc::default(),
        };
        let (platform, is_open, seen) = (Arc::clone(&line.platform), Arc::clone(&line.is_open), Arc::clone(&line.seen));
        let cuts = Arc::new(AtomicUsize::new(cuts));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Some(server) = platform.lock().expect("unpoisoned").filter(|_| is_open.load(Ordering::SeqCst))
                else {
                    // Closed: the device meets a line that takes it and says nothing.
                    continue;
                };
                let (seen, cuts) = (Arc::clone(&seen), Arc::clone(&cuts));
                std::thread::spawn(move || pass(client, server, &seen, &cuts, after));
            }
        });
        line
    }

    fn seen(&self, method: &str) -> usize {
        self.seen.lock().expect("unpoisoned").iter().filter(|seen| *seen == method).count()
    }
}

fn pass(mut client: TcpStream, server: SocketAddr, seen: &Mutex<Vec<String>>, cuts: &AtomicUsize, after: usize) {
    let mut server = TcpStream::connect(server).expect("the platform");
    let mut back = (server.try_clone().expect("a socket"), client.try_clone().expect("a socket"));
    let answers = std::thread::spawn(move || {
        let _ = std::io::copy(&mut back.0, &mut back.1);
        let _ = back.1.shutdown(Shutdown::Both);
    });
    let (mut buffer, mut passed, mut is_cut) = ([0; 4_096], 0, false);
    while let Ok(count @ 1..) = client.read(&mut buffer) {
        if passed == 0 {
            let method = String::from_utf8_lossy(&buffer[..count]).split(' ').next().unwrap_or_default().to_owned();
            is_cut = method.starts_with('P')
                && cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
            seen.lock().expect("unpoisoned").push(method);
        }
        passed += count;
        if server.write_all(&buffer[..count]).is_err() || is_cut && passed > after {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
    let _ = answers.join();
}

/// The messages of the event stream: kind and data.
pub(super) fn follow(site: &Site) -> mpsc::Receiver<(String, Value)> {
    let mut stream = TcpStream::connect(site.address()).expect("a connection");
    let head = format!(
        "GET /v1/events/stream?after=0&device={} HTTP/1.1\r\nhost: {}\r\nauthorization: {}\r\n\r\n",
        site.serial,
        site.address(),
        site.token
    );
    stream.write_all(head.as_bytes()).expect("sent");
    let (sender, messages) = mpsc::channel();
    std::thread::spawn(move || {
        let mut kind = String::new();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some(name) = line.strip_prefix("event: ") {
                name.clone_into(&mut kind);
            } else if let Some(data) = line.strip_prefix("data: ")
                && sender.send((kind.clone(), serde_json::from_str(data).expect("JSON"))).is_err()
            {
                return;
            }
        }
    });
    messages
}

/// The next message of this kind.
pub(super) fn next(messages: &mpsc::Receiver<(String, Value)>, kind: &str) -> Value {
    loop {
        let (found, data) = messages.recv_timeout(Duration::from_secs(60)).expect("a message");
        if found == kind {
            return data;
        }
    }
}

pub(super) fn started(site: &Site) -> Device {
    let lbs = site.platform.address(Listener::Lbs).to_string();
    let builder =
        Device::builder(&site.serial, CODE).lbs(&lbs).legacy().storage(MemoryStorage::new()).device_type("Camera");
    builder.start().expect("a device")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_there_at_once_and_its_picture_follows_over_a_line_that_is_cut() {
    let line = Line::cutting(2, 30_000);
    let site = Site::of(Platform::configured(&format!("[media]\nurl = \"http://{}\"\n", line.address)));
    *line.platform.lock().expect("unpoisoned") = Some(site.address());
    let messages = follow(&site);
    let device = started(&site);
    let content = picture(ImageFormat::Png, 400, 400, 9);
    let shot = Picture::new("image/png", content.clone());
    let id = shot.id().to_string();
    let motion = device.event("Camera", 0, "Detection", "Motion").picture("shot", shot);
    let receipt = motion.report(&json!({"level": 3})).await.expect("stored");
    let event = receipt.id.clone();

    // The picture cannot come yet; the event is there all the same, and says so.
    let listed = || {
        let events = site.platform.events(Some(&site.serial));
        events.into_iter().find(|listed| listed["id"] == *event).expect("the event")
    };
    let pending = json!({"id": id, "pending": true});
    assert_eq!((&listed()["data"]["level"], &listed()["data"]["shot"]), (&json!(3), &pending));
    let told = next(&messages, "event");
    assert_eq!((&told["id"], &told["data"]["shot"]), (&json!(event), &pending));

    line.is_open.store(true, Ordering::SeqCst);
    receipt.pictures().await.expect("sent");
    assert!(site.get(&format!("/media/v1/picture/{id}"), &[]).is(200).body == content);
    assert_eq!(line.seen("PUT"), 1, "what had come was not sent again");
    assert_eq!(line.seen("PATCH"), 2, "the first of which was cut as well");

    let amended = next(&messages, "amended");
    assert_eq!(amended["data"]["amends"], json!({"position": told["position"], "id": event}));
    let url = format!("/media/v1/picture/{id}");
    assert_eq!(
        amended["data"]["picture"],
        json!({"id": id, "url": url, "type": "image/png", "bytes": content.len(), "w": 400, "h": 400})
    );
    assert!(amended["position"].as_i64() > told["position"].as_i64(), "it has a place of its own");
    assert_eq!((&amended["name"], &amended["area"]), (&json!("Motion"), &json!("Detection")));
    assert_eq!(listed()["data"]["shot"], json!({"id": id, "url": url, "w": 400, "h": 400}));
    // Who comes later sees the event as it is now, and is told of the amendment as well.
    let late = follow(&site);
    assert_eq!(next(&late, "event")["data"]["shot"]["w"], 400);
    assert_eq!(next(&late, "amended")["position"], amended["position"]);
    assert_eq!(site.platform.events(Some(&site.serial)).iter().filter(|listed| listed["id"] == *event).count(), 1);
    let exported = site.get(&format!("/v1/events/export?device={}", site.serial), &[]).is(200);
    assert!(String::from_utf8_lossy(&exported.body).contains(&url));
    device.stop().await.expect("in order");
    site.platform.assert_no_panic();
}

/// What speaks TLS is told HTTPS, and what does not is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_of_a_device_that_comes_in_over_tls_goes_over_tls() {
    let site = Site::new();
    let serial = minted("SN");
    site.platform.add(&serial, "ABCDEFGHJKMNP");
    let lbs = format!("osaps://{}", site.platform.address(Listener::LbsTls));
    let roots = Anchor::from_pem(&std::fs::read(site.platform.ca_file()).expect("a root")).expect("certificates");
    let builder = Device::builder(&serial, "ABCDEFGHJKMNP").lbs(lbs).anchors(roots).storage(MemoryStorage::new());
    let device = builder.start().expect("a device");
    let over_tls =
        || site.platform.metric("vestibule_tls_handshakes_total", &[("listener", "https"), ("result", "ok")]);
    let before = over_tls();
    let shot = Picture::jpeg(picture(ImageFormat::Jpeg, 64, 64, 1));
    device.upload_picture(&shot).await.expect("sent");
    assert_eq!(over_tls() - before, 1.0);
    device.stop().await.expect("in order");

    let https = site.platform.address(Listener::Https);
    let wish = json!({"kind": "file"});
    let path = format!("/v1/devices/{serial}/uploads");
    let offer = site.platform.http().post(&path, &wish).ok();
    assert!(
        offer["url"].as_str().is_some_and(|url| url.starts_with(&format!("http://{}/", site.address()))),
        "{offer}"
    );
    let mut curl = std::process::Command::new("curl");
    curl.args(["--silent", "--noproxy", "*", "--cacert"]).arg(site.platform.ca_file());
    curl.args(["-H", &format!("authorization: {}", site.token), "--json", &wish.to_string()]);
    let answer = curl.arg(format!("https://{https}{path}")).output().expect("curl runs");
    let offer: Value = serde_json::from_slice(&answer.stdout).expect("JSON");
    assert!(offer["url"].as_str().is_some_and(|url| url.starts_with(&format!("https://{https}/"))), "{offer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_by_itself_is_sent_or_refused() {
    let mut site = Site::of(Platform::configured("[media]\npicture_max_bytes = \"64KiB\"\n"));
    let device = started(&site);
    let content = picture(ImageFormat::Jpeg, 64, 64, 1);
    let shot = Picture::jpeg(content.clone());
    device.upload_picture(&shot).await.expect("sent");
    device.upload_picture(&shot).await.expect("the same again is there");
    assert!(site.get(&format!("/media/v1/picture/{}", shot.id()), &[]).is(200).body == content);
    let html = Picture::jpeg(*b"<!doctype html><script>alert(document.domain)</script>");
    assert_eq!(device.upload_picture(&html).await, Err(UploadError::Refused(415)));
    let long = Picture::jpeg(vec![0; 65 << 10]);
    assert_eq!(device.upload_picture(&long).await, Err(UploadError::Refused(413)));
    // An event that names a picture which is there is not pending, and nobody is told of it once more.
    let named = device.event("Camera", 0, "Detection", "Motion").report(&json!({"shot": shot})).await.expect("stored");
    let shown = |site: &Site| {
        let events = site.platform.events(Some(&site.serial));
        events.into_iter().find(|event| event["id"] == *named.id).expect("the event")["data"]["shot"].clone()
    };
    assert_eq!(shown(&site)["w"], 64);
    // Nor is it after a crash.
    site.platform.kill();
    site.platform.restart();
    assert_eq!(shown(&site)["w"], 64);
    site.platform.assert_no_panic();
}
