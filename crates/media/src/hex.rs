//! Digests as text.

/// Lower-case hexadecimal digits.
pub(crate) fn encode(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest that 64 lower-case digits are.
pub(crate) fn decode(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_come_back_from_their_text() {
        let digest: [u8; 32] = std::array::from_fn(|n| (n * 9) as u8);
        assert_eq!(decode(&encode(&digest)), Some(digest));
        for wrong in ["", "0", &"A".repeat(64), &"g".repeat(64), &"0".repeat(63), &"+1".repeat(32)] {
            assert_eq!(decode(wrong), None);
        }
    }
}
