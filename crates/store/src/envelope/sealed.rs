//! Which columns of the control database are sealed: nothing can be sealed that is not among them.

/// A column whose values are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sealed {
    /// The verification code of a device.
    DeviceCode,
    /// The legacy credential in force.
    DeviceCommitted,
    /// The legacy credential on trial.
    DeviceCandidate,
    /// What was agreed under a modern suite.
    DeviceTickets,
    /// What a webhook signs with.
    WebhookSecret,
    /// What tickets of uploads are signed with.
    MediaKey,
    /// The private key of a certificate.
    CertificateKey,
    /// What says which key the others are sealed under.
    Proof,
}

/// Where the values of a column stand.
pub(crate) struct Column {
    /// The table.
    pub(crate) table: &'static str,
    /// The column.
    pub(crate) name: &'static str,
    /// The column that identifies the row.
    pub(crate) key: &'static str,
    /// What that one holds.
    pub(crate) keyed: Keyed,
}

/// What identifies a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyed {
    /// These bytes.
    Bytes,
    /// The bytes of this text.
    Text,
    /// The eight bytes of this number, big-endian.
    Number,
}

impl Sealed {
    /// All of them.
    pub(crate) const ALL: [Sealed; 8] = [
        Sealed::DeviceCode,
        Sealed::DeviceCommitted,
        Sealed::DeviceCandidate,
        Sealed::DeviceTickets,
        Sealed::WebhookSecret,
        Sealed::MediaKey,
        Sealed::CertificateKey,
        Sealed::Proof,
    ];

    /// Where its values stand.
    pub(crate) const fn column(self) -> Column {
        let (table, name, key, keyed) = match self {
            Sealed::DeviceCode => ("device", "code", "id", Keyed::Bytes),
            Sealed::DeviceCommitted => ("device", "committed", "id", Keyed::Bytes),
            Sealed::DeviceCandidate => ("device", "candidate", "id", Keyed::Bytes),
            Sealed::DeviceTickets => ("device", "tickets", "id", Keyed::Bytes),
            Sealed::WebhookSecret => ("webhook", "secret", "id", Keyed::Bytes),
            Sealed::MediaKey => ("media_key", "sealed", "number", Keyed::Number),
            Sealed::CertificateKey => ("certificate", "sealed", "id", Keyed::Text),
            Sealed::Proof => ("envelope", "proof", "one", Keyed::Number),
        };
        Column { table, name, key, keyed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_listed_once_at_its_own_place() {
        for (at, one) in Sealed::ALL.iter().enumerate() {
            assert_eq!(*one as usize, at);
        }
        // The last one; a new variant behind it is not forgotten.
        let last = |one: Sealed| match one {
            Sealed::Proof => Sealed::ALL.len(),
            other => other as usize + 1,
        };
        assert!(Sealed::ALL.iter().all(|one| last(*one) == *one as usize + 1), "a variant is missing in ALL");
    }
}
