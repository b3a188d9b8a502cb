//! Where random bytes come from.

/// A source of random bytes.
///
/// Both state machines draw every key, DevID and challenge from the source they are handed, so a
/// test can decide them. Outside of tests it is [`SystemRandom`].
pub trait Random {
    /// Fills `out`.
    fn fill(&mut self, out: &mut [u8]);

    /// Whether this is the generator of the crypto library. Key pairs are then made by the library itself, which
    /// draws from the same generator and need not check a private key that came from elsewhere: a third less work.
    fn is_system(&self) -> bool {
        false
    }
}

/// The cryptographic generator of the crypto library.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&mut self, out: &mut [u8]) {
        aws_lc_rs::rand::fill(out).expect("the generator of the crypto library never runs dry");
    }

    fn is_system(&self) -> bool {
        true
    }
}
