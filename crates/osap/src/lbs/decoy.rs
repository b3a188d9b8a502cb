//! What an authentication works on where there is no code to work with (osap-wire 13.2.3).

use std::fmt;

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::record::{Record, Standing};
use crate::id::Serial;
use crate::key::Code;
use crate::random::Random;

/// Letters of a printed code.
const LETTERS: usize = 6;

/// Codes of serials that nobody has registered: a stranger's AUTH-I is tried with one, so that it costs what a wrong
/// code costs.
///
/// They follow from a secret, so that nobody can ask with the right one, and from the serial, so that the second ask
/// finds what the first one found.
#[derive(Clone)]
pub struct Decoy(hmac::Key);

impl Decoy {
    /// Draws the secret; one for each process will do.
    #[must_use]
    pub fn draw(random: &mut dyn Random) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        random.fill(&mut *secret);
        Self(hmac::Key::new(hmac::HMAC_SHA256, &*secret))
    }

    /// The record of a serial that no device has.
    #[must_use]
    pub fn record(&self, serial: &Serial) -> Record {
        let tag = hmac::sign(&self.0, serial.as_str().as_bytes());
        let letters: Zeroizing<Vec<u8>> =
            Zeroizing::new(tag.as_ref().iter().take(LETTERS).map(|byte| b'A' + byte % 26).collect());
        let code = Code::new(&*letters).expect("six letters are a code");
        Record { code: Some(code), standing: Standing::Unknown, ..Record::default() }
    }
}

impl fmt::Debug for Decoy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decoy(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::SystemRandom;

    #[test]
    fn a_decoy_is_the_same_at_each_ask_and_another_in_each_process() {
        let code = |decoy: &Decoy, serial: &str| {
            let record = decoy.record(&Serial::new(serial).unwrap());
            assert_eq!(record.standing, Standing::Unknown);
            record.code.unwrap().as_bytes().to_vec()
        };
        let (one, other) = (Decoy::draw(&mut SystemRandom), Decoy::draw(&mut SystemRandom));
        assert_eq!(code(&one, "SN1"), code(&one, "SN1"));
        // Of four pairs of six letters all are equal once in 10^33.
        let differs = |serial: &str| code(&one, serial) != code(&other, serial);
        assert!(["SN1", "SN2", "SN3", "SN4"].into_iter().any(differs));
        assert_eq!(format!("{one:?}"), "Decoy(..)");
    }
}
