//! The inputs from which the fuzzer starts.

use super::{Counting, Platform, code, das, exporter, policy, slots};
use crate::modern::client::{Attempt, Client, Identity, Output};
use crate::modern::message::{self, MAX_ENTRY};
use crate::modern::server::Server;
use crate::modern::slots::Way;
use crate::{Serial, Suite};

/// Inputs that lead all the way through each machine, for the corpora: what is recorded of runs that end well, and texts
/// that an insider seals. By the names of the targets.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (choice, suite) in (0_u8..).zip(Suite::MODERN) {
        for way in [Way::Newest, Way::Older, Way::Code] {
            if way == Way::Code && suite != Suite::Tls {
                continue;
            }
            let (up, down) = recorded(suite, way);
            assert_eq!((up.len(), down.len()), (4, 3), "the run ends well");
            // Each prefix, whole frames and cut ones, and each frame with one byte changed.
            for frames in 1..=up.len() {
                let stream = up[..frames].concat();
                seeds.push(("osap_modern_server", [&[choice], &stream[..]].concat()));
                seeds.push(("osap_modern_server", [&[choice], &stream[..stream.len() - 1]].concat()));
                for at in (0..up[frames - 1].len()).step_by(31) {
                    let mut altered = stream.clone();
                    let from = stream.len() - up[frames - 1].len();
                    altered[from + at] ^= 0x40;
                    seeds.push(("osap_modern_server", [&[choice], &altered[..]].concat()));
                }
            }
            let way_bits = match way {
                Way::Code => 0,
                Way::Older => 2,
                _ => 3,
            } << 2;
            let choice = choice_for(choice, way_bits);
            for frames in 1..=down.len() {
                let stream = down[..frames].concat();
                seeds.push(("osap_modern_client", [&[choice], &stream[..]].concat()));
                for at in (0..down[frames - 1].len()).step_by(23) {
                    let mut altered = stream.clone();
                    let from = stream.len() - down[frames - 1].len();
                    altered[from + at] ^= 0x04;
                    seeds.push(("osap_modern_client", [&[choice], &altered[..]].concat()));
                }
            }
        }
    }
    seeds.extend(insider_seeds());
    seeds.extend(steps_seeds());
    seeds
}

/// The first byte whose suite is that of `choice` and whose bits 2 and 3 say the way.
fn choice_for(choice: u8, way_bits: u8) -> u8 {
    (0..0x80).find(|byte| byte % 3 == choice && byte & 0x0C == way_bits).unwrap_or(choice)
}

/// What both ends send in a run that ends well.
fn recorded(suite: Suite, way: Way) -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let identity = Identity { serial: crate::fuzz::serial(), code: Some(code()), suites: vec![suite] };
    let mut client = Client::new(identity, slots(), Attempt { suite, way, csr: None });
    let mut platform = Platform::new();
    let mut server = Server::new(policy(suite), None);
    let (mut ups, mut downs, mut up) = (Vec::new(), Vec::new(), Vec::new());
    let mut random = Counting(0);
    loop {
        match client.poll() {
            Output::Compute => client.compute(&mut random),
            Output::Export => client.handle_exporter(&exporter()),
            Output::Send(bytes) => up.extend(bytes),
            Output::Store(_) => client.handle_stored(true),
            Output::Done(_) | Output::Failed(_) => return (ups, downs),
            Output::Read => match platform.end(&mut server) {
                None => {
                    let len = message::next_frame(&up, MAX_ENTRY).ok().flatten().unwrap_or(up.len());
                    let frame: Vec<u8> = up.drain(..len).collect();
                    server.handle_frame(&frame, &mut platform.random);
                    ups.push(frame);
                }
                Some(Ok(answer)) => {
                    client.handle_frame(&answer);
                    downs.push(answer);
                }
                Some(Err(_)) => return (ups, downs),
            },
        }
    }
}

/// Texts for the ends that know the secrets.
fn insider_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let part = |how: u8, text: &[u8]| [&[how][..], &(text.len() as u16).to_be_bytes(), text].concat();
    let mut seeds = Vec::new();
    let request = message::write_request(&Serial::new("SN0000001").expect("the serial of the vectors is one"));
    let infos: [&[u8]; 7] = [
        &[0, 0],
        &[0, 2, b'{', b'}'],
        b"\0\x10{\"csr\":\"AAECAw\"}",
        b"\0\x0e{\"csr\":\"AAEC\"}",
        b"\0\x09{\"csr\":1}",
        b"\0\x01{",
        b"\xff\xff{}",
    ];
    for suite in 0..3_u8 {
        for how in [0xA0_u8, 0xC0, 0xC1, 0xE0, 0xE1, 0x80, 0x00, 0x03] {
            for (at, info) in infos.iter().enumerate() {
                let choice = (0x80_u8..=0xFF).find(|byte| byte % 3 == suite && (byte & 0x20 != 0) == (at % 2 == 0));
                let choice = choice.unwrap_or(0x80);
                seeds.push((
                    "osap_modern_server",
                    [&[choice][..], &part(how, info), &part(0, b""), &part(0, &request)].concat(),
                ));
            }
        }
    }
    let das = das().encode().unwrap_or_default();
    let mut issued = vec![32];
    issued.extend_from_slice(crate::fuzz::dev_id().as_bytes());
    issued.extend([0, 1, 0x51, 0x80, 16]);
    issued.extend([0x22; 16]);
    issued.extend([0, 0, 0]);
    let grants: [&[u8]; 4] = [b"", b"{}", b"{\"cert\":[\"AAEC\",\"AwQF\"]}", b"{\"cert\":7}"];
    for choice in 0x80..=0xFF_u8 {
        if !(choice / 3).is_multiple_of(4) {
            continue;
        }
        for how in [0x00_u8, 0x40, 0x84, 0x8A] {
            let grant = grants[usize::from(choice) % grants.len()];
            let mut text = issued.clone();
            let at = text.len() - 2;
            text[at..].copy_from_slice(&(grant.len() as u16).to_be_bytes());
            text.extend_from_slice(grant);
            seeds.push(("osap_modern_client", [&[choice][..], &part(how, &text), &part(0, &das)].concat()));
        }
    }
    seeds
}

/// Steps for the targets that are made of steps.
fn steps_seeds() -> Vec<(&'static str, Vec<u8>)> {
    let mut seeds = Vec::new();
    for choice in 0..12_u8 {
        seeds.push(("osap_modern_exchange", vec![choice]));
        for frame in 0..7_u8 {
            for what in 8..16_u8 {
                if (choice + frame + what) % 4 == 0 {
                    let mut steps = vec![choice];
                    steps.extend(std::iter::repeat_n([0, 0], frame.into()).flatten());
                    steps.extend([what, frame.wrapping_mul(31).wrapping_add(what)]);
                    seeds.push(("osap_modern_exchange", steps));
                }
            }
        }
    }
    let mut state = 1_u32;
    for number in 0..140_u8 {
        let mut steps = vec![number];
        for _ in 0..10 + usize::from(number) {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let [what, of, ..] = state.to_be_bytes();
            // Short texts, and mostly what was sealed last.
            steps.extend([what, if what % 4 < 2 { of % 16 } else { of % 8 }]);
            if what % 4 < 2 {
                steps.extend(std::iter::repeat_n(of, (of % 16).into()));
            }
        }
        seeds.push(("osap_modern_envelope", steps));
    }
    seeds
}
