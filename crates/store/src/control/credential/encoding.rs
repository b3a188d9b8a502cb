//! A credential as the bytes that are sealed: one value for each slot of a device.
//!
//! `format (1) | flags (1) | epoch (8) | created (8) | suite | dev_id | master_key | session_key`, numbers big-endian; each
//! of the last four is a length (4) and that many bytes. Without a session key its field is missing.

use crate::{Credential, Secret};

const FORMAT: u8 = 1;
const CODE_CASE_LOWER: u8 = 1;
const SESSION_KEY: u8 = 2;
const HEAD: usize = 18;
const LENGTH: usize = 4;

/// What is to be sealed of a credential.
pub(super) fn encode(credential: &Credential) -> Secret {
    let session_key = credential.session_key.as_ref();
    let fields = [credential.suite.as_bytes(), credential.dev_id.as_bytes(), credential.master_key.expose()]
        .into_iter()
        .chain(session_key.map(Secret::expose));
    // Never grown: an outgrown buffer would leave keys behind in freed memory.
    let mut bytes = Vec::with_capacity(fields.clone().fold(HEAD, |sum, field| sum + LENGTH + field.len()));
    let lower = if credential.code_case_lower { CODE_CASE_LOWER } else { 0 };
    let session = if session_key.is_some() { SESSION_KEY } else { 0 };
    bytes.extend_from_slice(&[FORMAT, lower | session]);
    bytes.extend_from_slice(&credential.epoch.to_be_bytes());
    bytes.extend_from_slice(&credential.created.to_be_bytes());
    for field in fields {
        let length = u32::try_from(field.len()).expect("a name or a key is shorter than 4 GiB");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(field);
    }
    Secret::new(bytes)
}

/// The credential that was encoded; `None` when it was not by this format.
pub(super) fn decode(bytes: &[u8]) -> Option<Credential> {
    let (&[format, flags], rest) = bytes.split_first_chunk()?;
    if format != FORMAT || flags & !(CODE_CASE_LOWER | SESSION_KEY) != 0 {
        return None;
    }
    let (epoch, rest) = rest.split_first_chunk()?;
    let (created, mut rest) = rest.split_first_chunk()?;
    let mut field = || {
        let (length, tail) = rest.split_first_chunk::<LENGTH>()?;
        let (field, tail) = tail.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        rest = tail;
        Some(field)
    };
    let text = |field: &[u8]| String::from_utf8(field.to_vec()).ok();
    let credential = Credential {
        suite: text(field()?)?,
        epoch: i64::from_be_bytes(*epoch),
        dev_id: text(field()?)?,
        master_key: Secret::new(field()?),
        session_key: if flags & SESSION_KEY != 0 { Some(Secret::new(field()?)) } else { None },
        created: i64::from_be_bytes(*created),
        code_case_lower: flags & CODE_CASE_LOWER != 0,
    };
    rest.is_empty().then_some(credential)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn full() -> Credential {
        Credential {
            suite: "legacy".into(),
            epoch: 3,
            dev_id: "0123456789abcdef".into(),
            master_key: Secret::new([7; 16]),
            session_key: Some(Secret::new([9; 16])),
            created: 1_700_000_000_000,
            code_case_lower: true,
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_comes_back(
            suite in ".{0,20}", dev_id in ".{0,40}", epoch: i64, created: i64, code_case_lower: bool,
            master_key: Vec<u8>, session_key: Option<Vec<u8>>,
        ) {
            let credential = Credential {
                suite, epoch, dev_id, created, code_case_lower,
                master_key: Secret::new(master_key),
                session_key: session_key.map(Secret::new),
            };
            prop_assert_eq!(decode(encode(&credential).expose()), Some(credential));
        }
    }

    #[test]
    fn the_format_is_the_one_that_is_on_disk() {
        let mut expected = vec![1, 3];
        expected.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 3]);
        expected.extend_from_slice(&1_700_000_000_000i64.to_be_bytes());
        expected.extend_from_slice(b"\0\0\0\x06legacy\0\0\0\x100123456789abcdef\0\0\0\x10");
        expected.extend_from_slice(&[7; 16]);
        expected.extend_from_slice(b"\0\0\0\x10");
        expected.extend_from_slice(&[9; 16]);
        assert_eq!(encode(&full()).expose(), expected);
    }

    #[test]
    fn bytes_of_another_format_or_length_are_refused() {
        let stored = encode(&full()).expose().to_vec();
        assert_eq!(decode(&stored), Some(full()));
        for length in 0..stored.len() {
            assert_eq!(decode(&stored[..length]), None, "length {length}");
        }
        assert_eq!(decode(&[&stored[..], b"x"].concat()), None);
        // Another format, an unknown flag, a session key that the flags deny, a length beyond the end.
        for (at, value) in [(0, 2), (1, 7), (1, 1), (HEAD, 0xff)] {
            let mut changed = stored.clone();
            changed[at] = value;
            assert_eq!(decode(&changed), None, "byte {at} as {value}");
        }
    }
}
