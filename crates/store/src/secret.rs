//! Bytes nobody may see.

use std::fmt;

use zeroize::Zeroizing;

/// Capital letters without I and O.
const LETTERS: &[u8; 24] = b"ABCDEFGHJKLMNPQRSTUVWXYZ";
/// Random letters of a code.
const RANDOM: usize = 14;
/// The largest prime that two letters can say: modulo it no single change and no exchange of neighbours goes unnoticed.
const MODULUS: usize = 571;

/// The two letters that check these.
fn check_of(letters: &[u8]) -> [u8; 2] {
    let value = |letter: &u8| LETTERS.iter().position(|known| known == letter).unwrap_or(0);
    let sum = letters.iter().fold(1, |sum, letter| (sum * 24 + value(letter)) % MODULUS);
    [LETTERS[sum / 24], LETTERS[sum % 24]]
}

/// A secret: a device's code or one of its keys. Wiped from memory when dropped, compared in constant time, never printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over the bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Secret {
        Secret(Zeroizing::new(bytes.into()))
    }

    /// The same of bytes that are wiped already when they are dropped.
    pub(crate) fn of_wiped(bytes: Zeroizing<Vec<u8>>) -> Secret {
        Secret(bytes)
    }

    /// A new verification code: fourteen letters that are not mistaken for one another, 64 bits, and two that check them.
    /// Known firmware takes capital letters.
    pub fn random_code() -> Secret {
        let mut code = Zeroizing::new(Vec::with_capacity(RANDOM + 2));
        let mut draw = Zeroizing::new([0u8; 32]);
        while code.len() < RANDOM {
            aws_lc_rs::rand::fill(draw.as_mut()).expect("the generator of the crypto library never runs dry");
            // 240 is the largest multiple of 24: what lies beyond would favour the first letters.
            let even = draw.iter().filter(|&&byte| byte < 240);
            let missing = RANDOM - code.len();
            code.extend(even.map(|byte| LETTERS[usize::from(byte % 24)]).take(missing));
        }
        let check = check_of(&code);
        code.extend(check);
        Secret(code)
    }

    /// Whether this has the form of a code that [`random_code`](Self::random_code) makes and does not fit its check letters:
    /// one letter is another, or two have changed places. Of what has another form nothing is known.
    pub fn is_mistyped_code(&self) -> bool {
        let has_form = self.0.len() == RANDOM + 2 && self.0.iter().all(|letter| LETTERS.contains(letter));
        has_form && check_of(&self.0[..RANDOM]) != self.0[RANDOM..]
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
            assert!(
                code.expose().len() == 16
                    && !code.is_mistyped_code()
                    && code.expose().iter().all(u8::is_ascii_uppercase)
            );
            assert!(codes[..n].iter().all(|other| other != code));
        }
    }

    #[test]
    fn a_mistyped_code_is_noticed_and_a_foreign_one_is_not_judged() {
        let code = Secret::random_code();
        for at in 0..16 {
            let mut other = code.expose().to_vec();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            assert!(Secret::new(other).is_mistyped_code(), "letter {at}");
            let mut swapped = code.expose().to_vec();
            if at < 15 && swapped[at] != swapped[at + 1] {
                swapped.swap(at, at + 1);
                assert!(Secret::new(swapped).is_mistyped_code(), "letters {at} and {}", at + 1);
            }
        }
        assert!(!Secret::new(*b"ABCDEF").is_mistyped_code() && !Secret::new([b'0'; 16]).is_mistyped_code());
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
