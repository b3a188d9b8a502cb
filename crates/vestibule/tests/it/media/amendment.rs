//! What is told when a picture arrives after its event: once, whatever becomes of the platform in between, and to everybody.

use super::device::{follow, next, started};
use super::*;
use crate::webhook::{ALLOWING, Receiver, add};

/// Reports an event that names a picture, and answers with its id.
async fn report(device: &vestibule_device::Device, picture: &str) -> String {
    let event = device.event("Camera", 0, "Detection", "Motion");
    let receipt = event.report(&json!({"level": 3, "shot": {"id": picture}})).await.expect("stored");
    receipt.id.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_between_the_arrival_of_a_picture_and_its_amendment_amends_once() {
    // A journal that is full takes no amendment, and the list of pictures takes the picture all the same.
    let mut site = Site::of(Platform::configured("[store]\nmax_bytes = \"1MiB\"\n"));
    let device = started(&site);
    let content = picture(ImageFormat::Png, 64, 48, 3);
    let (id, path) = site.ticket(&json!({"name": "door.png"}));
    let event = report(&device, &id).await;
    let filling = "x".repeat(4_000);
    for _ in 0..2_000 {
        let event = device.event("Camera", 0, "Log", "Filling");
        let filling = json!({"text": filling});
        if tokio::time::timeout(Duration::from_secs(2), event.report(&filling)).await.is_err() {
            break;
        }
    }
    let is_full = || {
        let ready = site.platform.http().get("/readyz");
        (ready.status == 503 && ready.body.to_string().contains("takes no more")).then_some(())
    };
    until("the journal is full", is_full);
    site.put(&path, &content).is(201);
    // Whoever tells of it has begun, and waits for the journal.
    site.platform.kill();
    let journal = site.platform.data().join("journal");
    assert!(!holds(&journal, "\"amends\""), "the amendment was not stored before the end");

    let config = site.platform.data().parent().expect("a home").join("vestibule.toml");
    std::fs::write(config, "[store]\nmax_bytes = \"1GiB\"\n").expect("written");
    for _ in 0..2 {
        site.platform.restart();
        let messages = follow(&site);
        let amended = next(&messages, "amended");
        assert_eq!((&amended["data"]["amends"]["id"], &amended["data"]["picture"]["id"]), (&json!(event), &json!(id)));
        assert_eq!(amended["id"], Value::Null, "it is no event of the device");
        // What the device reports when it is back comes behind all of it.
        let (last, nothing) = (device.event("Camera", 0, "Log", "End"), json!({}));
        let end = tokio::time::timeout(Duration::from_secs(60), last.report(&nothing)).await.expect("in time");
        let end = end.expect("stored");
        loop {
            let (kind, data) = messages.recv_timeout(Duration::from_secs(60)).expect("a message");
            assert_ne!(kind, "amended", "once more: {data}");
            if kind == "event" && data["id"] == *end.id {
                break;
            }
        }
        site.platform.kill();
    }
    drop(device);
}

/// Whether a file of this directory has these bytes.
fn holds(dir: &std::path::Path, text: &str) -> bool {
    let files = std::fs::read_dir(dir).expect("a directory").flatten().filter(|entry| entry.path().is_file());
    files
        .map(|entry| std::fs::read(entry.path()).expect("a file"))
        .any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_and_the_command_line_are_told_that_a_picture_has_arrived() {
    let site = Site::of(Platform::configured(ALLOWING));
    let mut receiver = Receiver::start();
    add(&site.platform, &receiver.url("/in"), json!({}));
    let mut shown = site.platform.command(&["event", "follow", "--after", "0"]);
    let mut programs = site.platform.command(&["event", "follow", "--after", "0", "--json"]);
    let device = started(&site);
    let content = picture(ImageFormat::Png, 64, 48, 4);
    let (id, path) = site.ticket(&json!({"name": "door.png"}));
    let event = report(&device, &id).await;
    let told = receiver.told()["event"].clone();
    assert_eq!((&told["type"], &told["data"]["id"]), (&json!("vestibule.device.event"), &json!(event)));
    assert_eq!(told["data"]["data"]["shot"], json!({"id": id, "pending": true}));
    assert!(shown.line().expect("the event").contains("Camera/0/Detection/Motion  {"));
    assert_eq!(serde_json::from_str::<Value>(&programs.line().expect("the event")).expect("JSON")["id"], json!(event));

    site.put(&path, &content).is(201);
    let amendment = receiver.told()["event"].clone();
    let position = amendment["data"]["position"].as_i64().expect("a position");
    assert_eq!(
        (&amendment["type"], &amendment["id"]),
        (&json!("vestibule.device.amendment"), &json!(position.to_string()))
    );
    assert_eq!(amendment["data"]["data"]["amends"], json!({"position": told["data"]["position"], "id": event}));
    let url = format!("/media/v1/picture/{id}");
    assert_eq!((&amendment["data"]["data"]["picture"]["url"], &amendment["subject"]), (&json!(url), &told["subject"]));
    let line = shown.line().expect("the amendment");
    let expected = format!(
        "event {event} (position {}): picture {id} has arrived, image/png, {} bytes, {url}",
        told["data"]["position"],
        content.len()
    );
    assert!(line.contains("Camera/0/Detection/Motion") && line.ends_with(&expected), "{line}");
    let line: Value = serde_json::from_str(&programs.line().expect("the amendment")).expect("JSON");
    assert_eq!((&line["position"], &line["data"]), (&json!(position), &amendment["data"]["data"]));
    device.stop().await.expect("in order");
    site.platform.assert_no_panic();
}
