//! What goes past the model, to and from a device made with the SDK: messages in its own format, directives, sub-devices.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use vestibule_device::{Builder, Child, Device, Dial, Dialing, MemoryStorage, State, StopReason};

use crate::support::{Listener, Platform, minted, until};

const CODE: &str = "ABCDEF";
const PATIENCE: Duration = Duration::from_secs(20);

/// Leads connections over itself, and tells of each sign of life that a device shows the DAS.
struct Overheard {
    das: String,
    pinged: mpsc::UnboundedSender<Instant>,
}

impl Dial for Overheard {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a> {
        let address = format!("{host}:{port}");
        let pinged = (address == self.das).then(|| self.pinged.clone());
        Box::pin(async move {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            let (mut onward, device) =
                tokio::try_join!(TcpStream::connect(address), TcpStream::connect(listener.local_addr()?))?;
            let (mut accepted, _) = listener.accept().await?;
            tokio::spawn(async move {
                let ((mut from, mut to), (mut back, mut answers)) = (accepted.split(), onward.split());
                let up = async {
                    let mut chunk = [0; 16 * 1024];
                    while let Ok(length @ 1..) = from.read(&mut chunk).await {
                        if let (Some(pinged), [0xc0, 0]) = (&pinged, &chunk[..length]) {
                            // Nobody listens only when the test is over.
                            let _ = pinged.send(Instant::now());
                        }
                        answers.write_all(&chunk[..length]).await?;
                    }
                    answers.shutdown().await
                };
                // An error says that one side has gone, which the other is to see.
                let _ = tokio::try_join!(up, tokio::io::copy(&mut back, &mut to));
            });
            Ok(device)
        })
    }
}

/// A device that is there.
fn online(runtime: &Runtime, platform: &Platform, serial: &str, with: impl FnOnce(Builder) -> Builder) -> Device {
    let builder = Device::builder(serial, CODE)
        .lbs(platform.address(Listener::Lbs).to_string())
        .legacy()
        .storage(MemoryStorage::new());
    let device = runtime.block_on(async { with(builder).start().expect("started") });
    reach(runtime, &device, State::Online);
    device
}

fn reach(runtime: &Runtime, device: &Device, wanted: State) {
    runtime.block_on(async {
        let mut state = device.watch_state();
        let reached = tokio::time::timeout(PATIENCE, state.wait_for(|state| *state == wanted)).await;
        reached.expect("in time").expect("it runs");
    });
}

#[test]
fn messages_go_through_in_both_directions_as_they_are() {
    let platform = Platform::start();
    let serial = minted("SN");
    platform.add(&serial, CODE);
    let runtime = Runtime::new().expect("a runtime");
    let (came, mut comes) = mpsc::unbounded_channel();
    let device = online(&runtime, &platform, &serial, |builder| {
        // Nobody listens only when the test is over.
        builder.on_pass(move |pass| drop(came.send((pass.media_type.to_string(), pass.bytes.to_vec()))))
    });
    let home = tempfile::tempdir().expect("a directory");
    let frame = home.path().join("frame.bin");
    std::fs::write(&frame, b"\x00\xff\x7e").expect("written");
    let file = frame.to_str().expect("UTF-8");
    let part = "Meter/0/Raw/Frame";
    let sent =
        platform.cli(&["device", "pass", &serial, part, "--type", "application/x-frame", "--file", file]).expect(0);
    assert!(sent.stdout.contains("has it"), "{sent:?}");
    let (media_type, bytes) = comes.blocking_recv().expect("it came");
    assert_eq!((media_type.as_str(), &bytes[..]), ("application/x-frame", &b"\x00\xff\x7e"[..]));

    let passed = device.pass("Meter", 0, "Raw", "Reading", "text/plain", b"17");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, passed).await }).expect("in time").expect("stored");
    let shown = platform.cli(&["pass", "list", "--device", &serial, "--json"]).expect(0).json();
    assert_eq!(shown, platform.http().get(&format!("/v1/pass?device={serial}")).ok());
    let items: Vec<(&Value, &Value, &Value, &Value)> = shown["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|item| (&item["direction"], &item["name"], &item["media_type"], &item["base64"]))
        .collect();
    assert_eq!(
        items,
        [
            (&json!("up"), &json!("Reading"), &json!("text/plain"), &json!("MTc=")),
            (&json!("down"), &json!("Frame"), &json!("application/x-frame"), &json!("AP9+")),
        ]
    );
    // Oldest first, and on from there.
    let mut follow = platform.command(&["pass", "follow", "--device", &serial, "--after", "0"]);
    let mut line = || follow.line().expect("a line");
    let (down, up) = (line(), line());
    assert!(down.ends_with("down delivered  Meter/0/Raw/Frame  application/x-frame  0x00ff7e"), "{down}");
    assert!(up.ends_with("up  Meter/0/Raw/Reading  text/plain  17"), "{up}");
    let passed = device.pass("Meter", 0, "Raw", "Reading", "text/plain", b"18");
    runtime.block_on(async { tokio::time::timeout(PATIENCE, passed).await }).expect("in time").expect("stored");
    let next = line();
    assert!(next.contains(&serial) && next.ends_with("text/plain  18"), "{next}");
    let latest = platform.cli(&["pass", "list", "--limit", "1"]).expect(0);
    let rows: Vec<&str> = latest.stdout.lines().collect();
    assert!(rows[0].starts_with("TIME") && rows[1].ends_with("18") && rows.len() == 2, "{latest:?}");
    runtime.block_on(device.stop()).expect("in order");
    let offline = platform.cli(&["device", "pass", &serial, part, "--type", "a/b", "--data", "x"]).expect(1);
    assert!(offline.stderr.contains("nothing was sent"), "{offline:?}");
    platform.assert_no_panic();
}

#[test]
fn a_device_does_as_it_is_directed() {
    let platform = Platform::start();
    let serial = minted("SN");
    platform.add(&serial, CODE);
    let runtime = Runtime::new().expect("a runtime");
    let ((pinged, mut pings), (bound, mut owners)) = (mpsc::unbounded_channel(), mpsc::unbounded_channel());
    let das = platform.ready()["listeners"]["das_legacy"].as_str().expect("a DAS").to_owned();
    let device = online(&runtime, &platform, &serial, |builder| {
        let builder = builder.keep_alive(5).dial(Overheard { das, pinged });
        builder.on_binding(move |user| drop(bound.send(user.map(str::to_owned))))
    });
    // Its signs of life are as far apart as it is told to, from the next one on.
    platform.cli(&["device", "keep-alive", &serial, "7s"]).expect(0);
    // What is forbidden it does not send, the answer to a change of its owner, and all the same learns of it.
    let bind = |user: &str| {
        let (part, input) = ("global/0/base/bind", json!({ "user": user }).to_string());
        platform.cli(&["device", "invoke", &serial, part, &input, "--deadline", "1s", "--json"]).json()
    };
    let told = platform.cli(&["device", "silence", &serial, "1100/18759", "7002", "--json"]).expect(0);
    assert_eq!(told.json(), json!({ "told": serial, "commands": { "1100": [18_759], "7002": [] } }));
    assert_eq!(bind("u-1")["outcome"], "timed_out");
    assert_eq!(owners.blocking_recv().expect("it runs").as_deref(), Some("u-1"));
    assert_eq!(device.counters().forbidden, 1);
    let told = platform.cli(&["device", "silence", &serial]).expect(0);
    assert!(told.stdout.contains("an empty list"), "{told:?}");
    assert_eq!(bind("u-2")["outcome"], "done");
    assert_eq!(owners.blocking_recv().expect("it runs").as_deref(), Some("u-2"));
    assert_eq!(device.counters().forbidden, 1);
    let mut ping = || runtime.block_on(async { tokio::time::timeout(PATIENCE, pings.recv()).await });
    let times = [ping(), ping()].map(|time| time.expect("in time").expect("it runs"));
    let apart: Duration = times[1] - times[0];
    assert!(apart > Duration::from_secs(6), "a sign of life came after {apart:?}");

    let told = platform.cli(&["device", "force-offline", &serial, "--json"]).expect(0);
    assert_eq!(told.json(), json!({ "told": serial }));
    reach(&runtime, &device, State::Stopped(StopReason::ForcedOffline));
    platform.until_presence(&serial, "offline", "forced_offline");
    let gone = platform.cli(&["device", "force-offline", &serial]).expect(1);
    assert!(gone.stderr.contains("Device offline"), "{gone:?}");
    let rows = platform.cli(&["audit", "--device", &serial, "--json"]).expect(0).json();
    let actions: Vec<&Value> = rows["items"].as_array().expect("a list").iter().map(|row| &row["action"]).collect();
    let done = [
        "device.force_offline",
        "operation.invoke",
        "device.silence",
        "operation.invoke",
        "device.silence",
        "device.keep_alive",
        "device.add",
    ];
    assert_eq!(actions, done);
    platform.assert_no_panic();
}

#[test]
fn a_sub_device_that_a_hub_brings_is_used_like_any_other() {
    let platform = Platform::start();
    let (hub, child) = (minted("HUB"), minted("SUB"));
    platform.add(&hub, CODE);
    platform.add(&child, "ZXCVBN");
    let runtime = Runtime::new().expect("a runtime");
    let device = online(&runtime, &platform, &hub, |builder| {
        let lamp = Child::builder(&child, "ZXCVBN").operation("Lamp", 0, "Light", "Double", async |n: u32| Ok(2 * n));
        builder.child(lamp)
    });
    until("the sub-device is there", || {
        let children = platform.cli(&["device", "children", &hub, "--json"]).expect(0).json();
        (children["items"][0]["presence"]["state"] == "online").then_some(())
    });
    assert_eq!(platform.device(&child)["parent"], platform.device(&hub)["id"]);
    let done = platform.cli(&["device", "invoke", &child, "Lamp/0/Light/Double", "21"]).expect(0);
    assert_eq!(done.stdout.trim(), "done: 42");
    let refused = platform.cli(&["device", "force-offline", &child]).expect(1);
    assert!(refused.stderr.contains("Not supported"), "{refused:?}");
    runtime.block_on(device.stop()).expect("in order");
    until("it is gone with its hub", || (platform.device(&child)["presence"]["state"] == "offline").then_some(()));
    platform.assert_no_panic();
}
