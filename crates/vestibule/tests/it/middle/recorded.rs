//! Somebody who has recorded what devices said, and says it again (osap-wire 13.3, 13.4, 13.7.3, 13.7.6).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use vestibule_device::{Anchor, Device, MemoryStorage, State};

use super::line::{CONNECT, From, Line, Speech, honest, session_unknown};
use super::subject::{CODE, Subject, audited, done, listener, platform, runtime, stored};
use crate::support::{Listener, Platform, minted, until};

/// Says this on a connection of his own; what is answered until the other side closes.
fn say(to: SocketAddr, parts: &[&[u8]]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");
    for part in parts {
        // One who is refused at the first hears no more.
        let _ = stream.write_all(part);
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

fn tells(platform: &Platform, serial: &str, fact: &str, deed: Option<&str>) {
    until(fact, || platform.reasons(serial).contains(&fact.to_owned()).then_some(()));
    if let Some(deed) = deed {
        until(deed, || audited(platform, serial).contains(&deed.to_owned()).then_some(()));
    }
}

#[test]
fn osap_13_7_6_recorded_first_messages_disturb_nobody() {
    let mut platform = platform();
    let runtime = runtime();
    let subject = runtime.block_on(async {
        let subject = Subject::plain(&platform).await;
        subject.online().await;
        subject.lbs.attack(|_| honest());
        subject.das.attack(|connection| if connection == 0 { session_unknown() } else { honest() });
        done(subject.report(1)).await;
        subject
    });
    let from_device = |line: &Line| {
        let seen = line.seen().into_iter().filter(|(from, _)| *from == From::Device);
        seen.map(|(_, packet)| packet).collect::<Vec<_>>()
    };
    let (run, session) = (from_device(&subject.lbs), from_device(&subject.das));
    assert_eq!(run[0][0], 0x1a);
    // The first was refused by who stands there; the platform has never seen it.
    let logins: Vec<usize> = (0..session.len()).filter(|&at| session[at][0] == CONNECT).collect();
    let [_, at] = logins[..] else { panic!("two logins: {logins:?}") };
    let (connect, report) = (&session[at], &session[at + 1]);
    let logged_in = subject.device.counters().logins;

    // A first message of the LBS is closed without an answer, whatever follows it.
    let whole: Vec<&[u8]> = run.iter().map(Vec::as_slice).collect();
    for parts in [&whole[..1], &whole] {
        assert!(say(subject.lbs.target, parts).is_empty());
    }
    tells(&platform, &subject.serial, "repeated", None);
    // A CONNECT of this session is refused, and told of.
    assert_eq!(say(subject.das.target, &[connect, report]), [0x20, 2, 0, 11]);
    tells(&platform, &subject.serial, "replayed", Some("device.replayed"));
    runtime.block_on(async { done(subject.report(1)).await });
    assert_eq!(subject.device.counters().logins, logged_in, "the device has stayed where it was");

    // A platform that has started anew remembers no nonces: the recording makes a guest, and gets no further.
    subject.das.leave();
    platform.kill();
    platform.restart();
    let das = listener(&platform, "das_plain");
    subject.lbs.lead_to(listener(&platform, "lbs_plain"));
    subject.das.lead_to(das);
    runtime.block_on(async {
        subject.online().await;
        done(subject.report(1)).await;
    });
    let (logged_in, online) = (subject.device.counters().logins, subject.device.state());
    let answer = say(das, &[connect, report]);
    assert_eq!(answer[..4], [0x20, 2, 0, 0], "a guest is greeted");
    runtime.block_on(async { done(subject.report(1)).await });
    assert_eq!((subject.device.counters().logins, subject.device.state()), (logged_in, online));
    assert_eq!(stored(&platform, &subject.serial), Vec::from_iter(subject.reported()));
    platform.assert_no_panic();
}

#[test]
fn osap_13_7_5_recorded_legacy_frames_open_nothing_once_a_device_is_modern() {
    let platform = platform();
    let serial = minted("SN");
    platform.add(&serial, CODE);
    let runtime = runtime();
    let online = |device: &Device| {
        let mut state = device.watch_state();
        runtime.block_on(async {
            let there = state.wait_for(|state| *state == State::Online);
            tokio::time::timeout(Duration::from_secs(60), there).await.expect("it comes in").expect("it lives");
        });
    };
    let line = runtime.block_on(Line::start(platform.address(Listener::Lbs), Speech::Lbs, None));
    line.attack(|_| honest());
    let legacy = runtime.block_on(async {
        let builder = Device::builder(&serial, CODE).lbs(line.address.to_string()).legacy();
        builder.storage(MemoryStorage::new()).start().expect("it starts")
    });
    online(&legacy);
    runtime.block_on(legacy.stop()).expect("in order");
    let recorded = line.seen().into_iter().filter(|(from, _)| *from == From::Device).map(|(_, frame)| frame);
    let recorded: Vec<Vec<u8>> = recorded.collect();
    assert!(recorded.len() >= 4, "two runs: {recorded:02x?}");

    let anchors = Anchor::from_pem(&std::fs::read(platform.ca_file()).expect("the root")).expect("a root");
    let modern = runtime.block_on(async {
        let builder = Device::builder(&serial, CODE).lbs(format!("osaps://{}", platform.address(Listener::LbsTls)));
        builder.anchors(anchors).storage(MemoryStorage::new()).start().expect("it starts")
    });
    online(&modern);
    let logged_in = modern.counters().logins;
    for first in recorded {
        // Result 3 where a frame begins a run; others begin none.
        let answer = say(line.target, &[&first]);
        assert!(answer.is_empty() || answer.len() < 16 && answer.last() == Some(&3), "{first:02x?}: {answer:02x?}");
    }
    tells(&platform, &serial, "modern_device", Some("device.downgrade"));
    assert_eq!((modern.counters().logins, modern.state()), (logged_in, State::Online));
    runtime.block_on(modern.stop()).expect("in order");
    platform.assert_no_panic();
}
