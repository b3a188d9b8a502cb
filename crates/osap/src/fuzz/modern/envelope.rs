//! The envelope, beside a model.

use super::suite;
use crate::modern::envelope::{Opened, Opener, Sealer};
use crate::modern::seal::Direction;
use crate::modern::{Node, login};

/// The first byte chooses the suite; the rest are steps: what is sealed for which topic, what of it arrives, in which order,
/// and what is done to it. A model that is too simple to be wrong says what may be taken.
///
/// # Panics
/// When something is taken that was altered, out of its order, for another topic, or twice.
pub fn envelope(data: &[u8]) {
    let Some((&choice, mut steps)) = data.split_first() else { return };
    let suite = suite(choice);
    let node = Node::from_bytes(&[choice; 48]).expect("48 bytes are a secret");
    let hello = login::hello_hash(&[1; 48], &[choice; 32]);
    let key = login::record_key(&node, &hello, Direction::Up);
    let mut sealer = Sealer::new(suite, Direction::Up, key.clone());
    let mut opener = Opener::new(suite, Direction::Up, key);
    // Nobody has sealed this one.
    assert!(opener.open("", &mut data.to_vec()).is_err(), "what nobody has sealed opens");
    let mut sent: Vec<(String, Vec<u8>, Vec<u8>)> = Vec::new();
    let mut due = 0;
    while let Some((&[what, of], rest)) = steps.split_first_chunk::<2>() {
        steps = rest;
        match what % 4 {
            0 | 1 => {
                let (text, rest) = steps.split_at(usize::from(of).min(steps.len()));
                steps = rest;
                // Up to a topic that is longer than usual.
                let topic = "/iot/SN0000001".repeat(usize::from(what >> 2) + 1);
                let mut payload = vec![0xEE; 3];
                payload.extend_from_slice(text);
                sealer.seal_tail(&topic, &mut payload, 3).expect("far below the limit");
                assert_eq!(&payload[..3], [0xEE; 3]);
                sent.push((topic, text.to_vec(), payload.split_off(3)));
            }
            step => {
                let Some(number) = usize::from(of).checked_rem(sent.len()) else { continue };
                let (topic, text, payload) = &sent[number];
                let mut arrives = payload.clone();
                let mut topic = topic.clone();
                if step == 3 {
                    match what >> 2 & 3 {
                        0 => topic.push('x'),
                        1 => arrives.truncate(usize::from(of) % payload.len()),
                        2 => arrives.push(of),
                        _ => {
                            let at = usize::from(what >> 4) * 7 % arrives.len();
                            arrives[at] ^= of | 1;
                        }
                    }
                    assert!(opener.open(&topic, &mut arrives).is_err(), "an altered message opens");
                    continue;
                }
                match opener.open(&topic, &mut arrives) {
                    Ok(Opened::Next(opened)) => {
                        assert_eq!((number, &*opened), (due, &text[..]), "out of its order");
                        due += 1;
                    }
                    Ok(Opened::Repeated) => assert!(number < due, "a new message is taken for a repetition"),
                    Err(_) => assert!(number > due, "a message that is due does not open"),
                }
            }
        }
    }
    assert_eq!((opener.seq(), sealer.seq()), (due as u64, sent.len() as u64));
}
