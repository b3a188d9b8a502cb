//! What holds for any bytes at all. The fuzz targets `mqtt_*` search for inputs that break
//! these laws; the tests replay what they found and feed in bytes of their own.
#![allow(dead_code, reason = "each fuzz target uses one law")]

use vestibule_mqtt_codec::{Connect, DecodeError, Packet, Rules, decode, encode, frame_len, split_publish, topic};

/// No packet of the corpus is larger; larger ones only cost time.
const MAX_FRAME: usize = 64 * 1024;

const BOTH_RULES: [Rules; 2] = [Rules::STRICT, Rules::OSAP_LEGACY];

/// One frame: what decodes is complete, exactly measured and no prefix of anything else; the
/// two ways to a PUBLISH agree; what the strict rules read, the loose ones read alike.
pub fn frame(data: &[u8]) {
    for rules in &BOTH_RULES {
        let decoded = decode(data, rules);
        if let Ok(packet) = &decoded {
            assert_eq!(frame_len(data, usize::MAX), Ok(Some(data.len())));
            assert_eq!(frame_len(data, data.len()), Ok(Some(data.len())));
            assert!(matches!(frame_len(data, data.len() - 1), Err(DecodeError::TooLarge { .. })));
            for end in (0..data.len()).take(300) {
                assert!(decode(&data[..end], rules).is_err(), "a prefix is no packet");
            }
            if let Packet::Subscribe(subscribe) = packet {
                assert!(subscribe.filters.count() > 0);
                assert!(subscribe.filters.map(|(name, _)| name).all(topic::valid_filter));
            }
            if let Packet::Unsubscribe(unsubscribe) = packet {
                assert!(unsubscribe.filters.count() > 0);
                assert!(unsubscribe.filters.into_iter().all(topic::valid_filter));
            }
        }
        let mut copy = data.to_vec();
        match (&decoded, split_publish(&mut copy, rules)) {
            (Ok(Packet::Publish(publish)), Ok((head, payload))) => {
                assert_eq!((publish.head, publish.payload), (head, &*payload));
                assert!(topic::valid_name(head.topic));
                assert_eq!(payload.as_ptr_range().end, copy.as_ptr_range().end);
            }
            (Ok(packet), Err(DecodeError::NotPublish(kind))) => {
                assert_eq!(packet.packet_type(), kind);
            }
            (Err(_), Err(_)) => {}
            (whole, split) => panic!("decode {whole:?}, split_publish {split:?}"),
        }
    }
    if let Ok(strict) = decode(data, &Rules::STRICT) {
        assert_eq!(decode(data, &Rules::OSAP_LEGACY), Ok(strict));
    }
}

/// A stream cut into frames: five bytes are always enough to measure or refuse, more bytes
/// never change a measure, and the limit is kept.
pub fn stream(data: &[u8]) {
    let Some((&limit, mut rest)) = data.split_first() else {
        return;
    };
    let max = (usize::from(limit) + 1) * 16;
    loop {
        let measured = frame_len(rest, max);
        for end in 0..=rest.len().min(6) {
            match (frame_len(&rest[..end], max), measured) {
                (Ok(None), _) => assert!(end < 5, "five bytes are enough"),
                // Both refuse, perhaps naming another lower bound of the length.
                (Err(_), Err(_)) => {}
                (early, late) => assert_eq!(early, late, "more bytes changed the measure"),
            }
        }
        let Ok(Some(len)) = measured else {
            return;
        };
        assert!((2..=max).contains(&len));
        let Some((frame, next)) = rest.split_at_checked(len) else {
            for rules in &BOTH_RULES {
                assert!(decode(rest, rules).is_err(), "an incomplete frame");
            }
            return;
        };
        for rules in &BOTH_RULES {
            if decode(frame, rules).is_ok() && !next.is_empty() {
                assert_eq!(decode(rest, rules), Err(DecodeError::TrailingBytes));
            }
        }
        rest = next;
    }
}

/// What was read and written again is the same packet, and the same bytes where only one
/// writing exists.
pub fn roundtrip(data: &[u8]) {
    if data.len() > MAX_FRAME {
        return;
    }
    for rules in &BOTH_RULES {
        let Ok(packet) = decode(data, rules) else {
            continue;
        };
        let mut wire = b"before".to_vec();
        match &packet {
            Packet::Connect(connect) => encode::connect_under(connect, rules, &mut wire),
            _ => encode::packet(&packet, &mut wire),
        }
        .expect("what was read can be written");
        let wire = wire.strip_prefix(b"before").expect("an encoder appends to what is there");
        assert_eq!(decode(wire, rules), Ok(packet));
        if let Packet::Publish(publish) = &packet {
            let len = encode::publish_len(&publish.head, publish.payload.len());
            assert_eq!(len, Ok(wire.len()));
        }
        if canonical_length(data) && !drops_padding(&packet, data) {
            assert_eq!(wire, data);
        }
    }
}

/// Names, filters and matching against definitions written for the eye. The input is a filter
/// and a name with a line feed between them.
pub fn topic(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (filter, name) = text.split_once('\n').unwrap_or((text, text));
    for candidate in [filter, name] {
        assert_eq!(topic::valid_name(candidate), plain_valid_name(candidate));
        assert_eq!(topic::valid_filter(candidate), plain_valid_filter(candidate));
        if topic::valid_name(candidate) {
            assert!(topic::valid_filter(candidate), "a name is a filter");
            assert!(topic::filter_matches(candidate, candidate));
        }
    }
    if topic::valid_filter(filter) && topic::valid_name(name) {
        assert_eq!(topic::filter_matches(filter, name), plain_matches(filter, name), "{filter:?} and {name:?}");
    }
}

/// Bytes of the fixed header of a frame that decodes.
fn header_len(frame: &[u8]) -> usize {
    let more = frame[1..].iter().take_while(|&&byte| byte & 0x80 != 0);
    2 + more.count()
}

/// The remaining length takes as few bytes as it can; the standard does not ask for it, the
/// encoder does it.
fn canonical_length(frame: &[u8]) -> bool {
    let header = header_len(frame);
    header == 2 || frame[header - 1] != 0
}

/// The loose rules ended a will topic early, so the padding is gone.
fn drops_padding(packet: &Packet<'_>, frame: &[u8]) -> bool {
    match packet {
        Packet::Connect(Connect { client_id, will: Some(will), .. }) => {
            // Behind ten bytes of variable header and the client id.
            let at = header_len(frame) + 10 + 2 + client_id.len();
            will.topic.len() != usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]))
        }
        _ => false,
    }
}

fn plain_valid_name(name: &str) -> bool {
    (1..=65_535).contains(&name.len()) && !name.contains(['\0', '+', '#'])
}

/// By the neighbours of each wildcard.
fn plain_valid_filter(filter: &str) -> bool {
    let bytes = filter.as_bytes();
    let starts_level = |at: usize| at == 0 || bytes[at - 1] == b'/';
    let ends_level = |at: usize| at + 1 == bytes.len() || bytes[at + 1] == b'/';
    (1..=65_535).contains(&bytes.len())
        && bytes.iter().enumerate().all(|(at, byte)| match byte {
            0 => false,
            b'#' => starts_level(at) && at + 1 == bytes.len(),
            b'+' => starts_level(at) && ends_level(at),
            _ => true,
        })
}

/// `P/#` reaches a name when `P` reaches it or one of its ancestors.
fn plain_matches(filter: &str, name: &str) -> bool {
    if name.starts_with('$') && !filter.starts_with('$') {
        return false;
    }
    if filter == "#" {
        return true;
    }
    match filter.strip_suffix("/#") {
        None => plain_levels(filter, name),
        Some(parent) => {
            let ancestors = name.match_indices('/').map(|(at, _)| &name[..at]);
            ancestors.chain([name]).any(|ancestor| plain_levels(parent, ancestor))
        }
    }
}

fn plain_levels(filter: &str, name: &str) -> bool {
    let filter: Vec<&str> = filter.split('/').collect();
    let name: Vec<&str> = name.split('/').collect();
    filter.len() == name.len() && filter.iter().zip(&name).all(|(wanted, level)| *wanted == "+" || wanted == level)
}
