//! Where random bytes come from.

/// A source of random bytes.
///
/// Both state machines draw every key, DevID and challenge from the source they are handed, so a
/// test can decide them. Outside of tests it is [`SystemRandom`].
pub trait Random {
    /// Fills `out`.
    fn fill(&mut self, out: &mut [u8]);
}

/// The cryptographic generator of the crypto library.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&mut self, out: &mut [u8]) {
        aws_lc_rs::rand::fill(out).expect("the generator of the crypto library never runs dry");
    }
}
