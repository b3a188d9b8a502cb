//! Reading bytes without a panic, and hexadecimal text.

/// Takes fields off the front of a byte string.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(&'a [u8]);

/// There are fewer bytes than the field needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Short;

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Short> {
        let (first, rest) = self.0.split_first().ok_or(Short)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let (field, rest) = self.0.split_first_chunk::<N>().ok_or(Short)?;
        self.0 = rest;
        Ok(*field)
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Short> {
        let (field, rest) = self.0.split_at_checked(len).ok_or(Short)?;
        self.0 = rest;
        Ok(field)
    }

    /// Everything that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0.is_empty()
    }
}

/// `bytes` as lower-case hexadecimal text of exactly `N` characters; `N` is twice the length.
pub(crate) fn hex_lower<const N: usize>(bytes: &[u8]) -> [u8; N] {
    hex(bytes, b"0123456789abcdef")
}

/// `bytes` as upper-case hexadecimal text of exactly `N` characters; `N` is twice the length.
pub(crate) fn hex_upper<const N: usize>(bytes: &[u8]) -> [u8; N] {
    hex(bytes, b"0123456789ABCDEF")
}

fn hex<const N: usize>(bytes: &[u8], digits: &[u8; 16]) -> [u8; N] {
    debug_assert_eq!(bytes.len() * 2, N);
    let mut text = [b'0'; N];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = digits[usize::from(byte >> 4)];
        pair[1] = digits[usize::from(byte & 15)];
    }
    text
}

/// The bytes of hexadecimal text in either case, exactly `N` of them.
pub(crate) fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}
