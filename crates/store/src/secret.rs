//! Bytes nobody may see.

use std::fmt;

use zeroize::Zeroizing;

/// A secret: a device's code or one of its keys. Wiped from memory when dropped, compared in constant time, never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Secret {
        Secret(Zeroizing::new(bytes.into()))
    }

    /// A verification code of twelve letters that are not mistaken for one another: 55 bits. Known firmware takes capital
    /// letters.
    pub fn random_code() -> Secret {
        const LETTERS: &[u8; 24] = b"ABCDEFGHJKLMNPQRSTUVWXYZ";
        let mut code = Zeroizing::new(Vec::with_capacity(12));
        let mut draw = Zeroizing::new([0u8; 32]);
        while code.len() < 12 {
            aws_lc_rs::rand::fill(draw.as_mut()).expect("the generator of the crypto library never runs dry");
            // 240 is the largest multiple of 24: what lies beyond would favour the first letters.
            let even = draw.iter().filter(|&&byte| byte < 240);
            let missing = 12 - code.len();
            code.extend(even.map(|byte| LETTERS[usize::from(byte % 24)]).take(missing));
        }
        Secret(code)
    }

    /// The bytes, for the one computation that needs them.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::Secret;

    #[test]
    fn codes_are_made_of_letters_and_differ() {
        let codes: Vec<Secret> = (0..50).map(|_| Secret::random_code()).collect();
        for (n, code) in codes.iter().enumerate() {
            assert!(code.expose().len() == 12 && code.expose().iter().all(u8::is_ascii_uppercase));
            assert!(codes[..n].iter().all(|other| other != code));
        }
    }

    #[test]
    fn a_secret_does_not_print_and_compares_by_content() {
        let secret = Secret::new(*b"ABCDEF");
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(secret, Secret::new(*b"ABCDEF"));
        assert_ne!(secret, Secret::new(*b"ABCDEG"));
        assert_ne!(secret, Secret::new(*b"ABCDE"));
    }
}
