//! Result codes of the LBS (osap-wire 5.11).

use std::fmt;

macro_rules! result_codes {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $name:literal, $sentence:literal;)*) => {
        /// What the result byte of a response says.
        ///
        /// Every byte value has a meaning here: numbers without an entry in the table are
        /// [`ResultCode::Unassigned`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ResultCode {
            $($(#[$doc])* $variant,)*
            /// A number the table does not name.
            Unassigned(u8),
        }

        impl ResultCode {
            /// The codes of the table, in the order of their numbers.
            pub const NAMED: &'static [Self] = &[$(Self::$variant),*];

            /// A short name for metrics and the API.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                    Self::Unassigned(_) => "unassigned",
                }
            }

            /// A sentence a technician understands.
            #[must_use]
            pub fn sentence(self) -> &'static str {
                match self {
                    $(Self::$variant => $sentence,)*
                    Self::Unassigned(_) => "The server answered with a result that has no known meaning.",
                }
            }
        }

        impl From<u8> for ResultCode {
            fn from(number: u8) -> Self {
                match number {
                    $($number => Self::$variant,)*
                    other => Self::Unassigned(other),
                }
            }
        }

        impl From<ResultCode> for u8 {
            fn from(code: ResultCode) -> u8 {
                match code {
                    $(ResultCode::$variant => $number,)*
                    ResultCode::Unassigned(number) => number,
                }
            }
        }
    };
}

result_codes! {
    /// 0.
    Success = 0, "success",
        "The request was accepted.";
    /// 1: a code or a proof of it is wrong; also the answer to an unknown serial, so that nobody can
    /// list serials.
    CodeRefused = 1, "code_refused",
        "The serial is not registered or the verification code does not fit it.";
    /// 2: not sent by us; a message out of order closes the connection.
    OutOfOrder = 2, "out_of_order",
        "A message came at a point where it does not belong.";
    /// 3: a protocol type or a service that is not served, a public key that is none.
    InvalidData = 3, "invalid_data",
        "A message was well formed but its content cannot be used.";
    /// 4: the DevID is unknown or another device's. The device forgets its DevID and authenticates from the beginning.
    DevIdMismatch = 4, "dev_id_mismatch",
        "The DevID of the device is not the one on record; the device will authenticate from the beginning.";
    /// 5: the device is known and may not enrol again, its code cannot be read, or it asks for a
    /// secret key.
    Refused = 5, "refused",
        "The device may not authenticate now: it already has a DevID and no enrolment window is open, or its code is not available.";
    /// 6: the store is down, or the serial has used up its attempts.
    Unavailable = 6, "unavailable",
        "The credentials cannot be read or written just now, or there were too many attempts; try again later.";
    /// 7: not sent by us, like every number that is not named above or below with a cause.
    DecryptionFailed = 7, "decryption_failed",
        "The server could not decrypt the message.";
    /// 8.
    EncryptionFailed = 8, "encryption_failed",
        "The server could not encrypt its answer.";
    /// 9: no DAS, or a STUN server was asked for.
    NoDas = 9, "no_das",
        "No access server, or no STUN server, is available for the device.";
    /// 10: r1 does not open under the master key on record. The device forgets its master key and
    /// refreshes it.
    MasterKeyInvalid = 10, "master_key_invalid",
        "The master key of the device is not the one on record; the device will agree on a new one.";
    /// 11.
    StunSessionMismatch = 11, "stun_session_mismatch",
        "The session key does not fit the STUN session.";
    /// 12.
    StunOutOfOrder = 12, "stun_out_of_order",
        "A STUN message came at a point where it does not belong.";
    /// 13.
    DasOutOfOrder = 13, "das_out_of_order",
        "The access server was asked for at a point where that does not belong.";
    /// 14.
    HmacMismatch = 14, "hmac_mismatch",
        "The message authentication code is wrong.";
    /// 15.
    KeyGeneration = 15, "key_generation",
        "The server could not make a key pair.";
    /// 16.
    EcdhCheck = 16, "ecdh_check",
        "The key agreement failed.";
    /// 17.
    EcdhSignature = 17, "ecdh_signature",
        "The signature of the key agreement is wrong.";
    /// 18.
    SessionKeyCheck = 18, "session_key_check",
        "The session key is wrong.";
    /// 19.
    SignatureCheck = 19, "signature_check",
        "The signature is wrong.";
    /// 100: secret-key service only, like the following.
    SecretDecryption = 100, "secret_decryption",
        "The secret-key service could not decrypt the request.";
    /// 101.
    SecretWindow = 101, "secret_window",
        "The secret-key service was asked outside its time window.";
    /// 102.
    SecretNoUser = 102, "secret_no_user",
        "The secret-key service knows no user of the device.";
    /// 103.
    SecretUnknownSerial = 103, "secret_unknown_serial",
        "The secret-key service does not know the serial.";
    /// 104.
    SecretRepeated = 104, "secret_repeated",
        "The secret-key service was asked before.";
}

impl fmt::Display for ResultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "result {} ({})", u8::from(*self), self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_the_way_there_and_back() {
        for number in 0..=u8::MAX {
            assert_eq!(u8::from(ResultCode::from(number)), number);
        }
        assert_eq!(ResultCode::NAMED.len(), 25);
        assert_eq!(ResultCode::from(10), ResultCode::MasterKeyInvalid);
        assert_eq!(ResultCode::from(200), ResultCode::Unassigned(200));
    }

    #[test]
    fn names_differ_and_sentences_end() {
        let names: std::collections::BTreeSet<_> = ResultCode::NAMED.iter().map(|c| c.as_str()).collect();
        assert_eq!(names.len(), ResultCode::NAMED.len());
        for code in ResultCode::NAMED {
            assert!(code.sentence().ends_with('.'), "{code}");
        }
    }
}
