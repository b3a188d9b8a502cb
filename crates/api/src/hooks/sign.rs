//! Secrets of webhooks, and signatures of deliveries, as Standard Webhooks has them.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use vestibule_platform::Secret;

/// What a secret's text begins with.
const PREFIX: &str = "whsec_";
/// Bytes of a secret that is drawn.
const DRAWN: usize = 32;
/// Bytes of a secret that is given.
const GIVEN: std::ops::RangeInclusive<usize> = 24..=64;

/// Draws a secret.
pub(crate) fn draw() -> Secret {
    let mut bytes = vec![0; DRAWN];
    aws_lc_rs::rand::fill(&mut bytes).expect("the generator of the crypto library never runs dry");
    Secret::new(bytes)
}

/// A secret as its owner is shown it, once.
pub(crate) fn shown(secret: &Secret) -> String {
    format!("{PREFIX}{}", STANDARD.encode(secret.expose()))
}

/// Reads a secret that its owner has chosen.
///
/// # Errors
/// What is wrong with it: the rest of a sentence that begins with its name.
pub(crate) fn read(text: &str) -> Result<Secret, &'static str> {
    let bytes = text.strip_prefix(PREFIX).and_then(|text| STANDARD.decode(text).ok());
    match bytes {
        Some(bytes) if GIVEN.contains(&bytes.len()) => Ok(Secret::new(bytes)),
        _ => Err("must be whsec_ and the base64 of 24 to 64 random bytes"),
    }
}

/// The value of `webhook-signature`.
pub(crate) fn sign(secret: &Secret, id: &str, timestamp: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{id}.{timestamp}.").as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_back_as_it_was_shown() {
        let secret = draw();
        assert_eq!(read(&shown(&secret)), Ok(secret.clone()));
        assert_ne!(draw(), secret);
        for wrong in ["", "whsec_", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_%%%%"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(read(&format!("whsec_{}", STANDARD.encode([7; 65]))).is_err());
    }

    /// The example of the Standard Webhooks specification.
    #[test]
    fn the_signature_is_the_one_others_compute() {
        let secret = read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let signature = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
