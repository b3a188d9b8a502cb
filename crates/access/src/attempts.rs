//! How often strangers may try a code (osap-wire 13.2.3).

use std::net::IpAddr;

use vestibule_platform::{Device, DeviceId};

use crate::budget::Budget;
use crate::origin::{Network, Origin};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// How many authentications may fail before no further one is looked at; the device is told to come again (result 6).
/// Those that succeed count nowhere, and a refresh under a stored master key is no authentication: who holds one comes in
/// however often others have failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureLimits {
    /// For one serial, registered or not, in any hour.
    pub per_serial: u16,
    /// From one address, in any minute.
    pub per_address: u16,
    /// From one network (/24, or /64 of IPv6), in any minute.
    pub per_network: u16,
}

impl Default for FailureLimits {
    fn default() -> Self {
        FailureLimits { per_serial: 5, per_address: 20, per_network: 200 }
    }
}

/// The failures of the recent past: one for all doors of a platform, or who is refused at one would have as many tries again
/// at the next.
pub struct Attempts {
    serials: Budget<Claim>,
    addresses: Budget<IpAddr>,
    networks: Budget<Network>,
}

/// Who a peer says it is. What an operator does for a device gives it a budget of its own: to register it, to enable it, to
/// give it another code, to open a window (osap-wire 13.6). The table is one for all serials, so that what it forgets does
/// not tell which ones exist.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Claim {
    Unknown(Box<str>),
    Device(DeviceId, u32),
}

impl Claim {
    pub(crate) fn of(serial: &str, device: Option<&Device>) -> Claim {
        match device {
            Some(device) => Claim::Device(device.id, device.pardons()),
            None => Claim::Unknown(serial.into()),
        }
    }
}

/// Which budget is spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spent {
    Serial,
    Address,
    Network,
}

impl Spent {
    /// A short name in snake case.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Spent::Serial => "serial_budget",
            Spent::Address => "address_budget",
            Spent::Network => "network_budget",
        }
    }
}

/// An attempt that is looked at. It counts nowhere unless [`failed`](Attempt::failed) is called.
pub(crate) struct Attempt<'a> {
    attempts: &'a Attempts,
    /// `None`: no serial's budget is concerned.
    claim: Option<&'a Claim>,
    origin: Origin,
    now: i64,
    counts: bool,
}

impl Attempt<'_> {
    pub(crate) fn failed(mut self) {
        self.counts = true;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.counts {
            if let Some(claim) = self.claim {
                self.attempts.serials.give_back(claim, self.now);
            }
            self.attempts.addresses.give_back(&self.origin.address, self.now);
            self.attempts.networks.give_back(&self.origin.network, self.now);
        }
    }
}

impl Default for Attempts {
    fn default() -> Attempts {
        Attempts::new(FailureLimits::default())
    }
}

impl std::fmt::Debug for Attempts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attempts").finish_non_exhaustive()
    }
}

impl Attempts {
    /// None has failed so far.
    pub fn new(limits: FailureLimits) -> Attempts {
        Attempts {
            serials: Budget::new("lbs_serial", limits.per_serial, HOUR),
            addresses: Budget::new("lbs_address", limits.per_address, MINUTE),
            networks: Budget::new("lbs_network", limits.per_network, MINUTE),
        }
    }

    /// Whether an attempt would not be looked at.
    pub(crate) fn spent(&self, claim: &Claim, origin: Origin, now: i64) -> Option<Spent> {
        if !self.serials.has_left(claim, now) {
            Some(Spent::Serial)
        } else if !self.addresses.has_left(&origin.address, now) {
            Some(Spent::Address)
        } else if !self.networks.has_left(&origin.network, now) {
            Some(Spent::Network)
        } else {
            None
        }
    }

    /// Begins an attempt. Until it is over it counts as one that failed: as many at the same moment are looked at as may
    /// fail, and no more. So it should be over soon.
    pub(crate) fn begin<'a>(&'a self, claim: &'a Claim, origin: Origin, now: i64) -> Result<Attempt<'a>, Spent> {
        if !self.serials.take(claim, now) {
            return Err(Spent::Serial);
        }
        if !self.addresses.take(&origin.address, now) {
            self.serials.give_back(claim, now);
            return Err(Spent::Address);
        }
        if !self.networks.take(&origin.network, now) {
            self.serials.give_back(claim, now);
            self.addresses.give_back(&origin.address, now);
            return Err(Spent::Network);
        }
        Ok(Attempt { attempts: self, claim: Some(claim), origin, now, counts: false })
    }

    /// Begins an attempt with a code that nobody guesses: the serial has no budget that strangers could fill, or they would
    /// keep the device out (osap-wire 13.3).
    pub(crate) fn begin_long(&self, origin: Origin, now: i64) -> Result<Attempt<'_>, Spent> {
        if !self.addresses.take(&origin.address, now) {
            return Err(Spent::Address);
        }
        if !self.networks.take(&origin.network, now) {
            self.addresses.give_back(&origin.address, now);
            return Err(Spent::Network);
        }
        Ok(Attempt { attempts: self, claim: None, origin, now, counts: false })
    }

    /// Takes a try of this serial alone; false when it has none left.
    pub(crate) fn take(&self, claim: &Claim, now: i64) -> bool {
        self.serials.take(claim, now)
    }

    /// The try did not fail.
    pub(crate) fn give_back(&self, claim: &Claim, now: i64) {
        self.serials.give_back(claim, now);
    }

    /// An attempt that looked well has failed later.
    pub(crate) fn failed(&self, claim: &Claim, origin: Origin, now: i64) {
        self.serials.failed(claim, now);
        self.addresses.failed(&origin.address, now);
        self.networks.failed(&origin.network, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(address: [u8; 4]) -> Origin {
        Origin::from(IpAddr::from(address))
    }

    fn fail(attempts: &Attempts, serial: &str, origin: Origin, now: i64) -> Result<(), Spent> {
        let claim = Claim::Unknown(serial.into());
        assert_eq!(attempts.spent(&claim, origin, now), attempts.begin(&claim, origin, now).err());
        attempts.begin(&claim, origin, now).map(Attempt::failed)
    }

    #[test]
    fn osap_13_2_3_five_failures_a_serial_and_twenty_an_address_are_looked_at() {
        let attempts = Attempts::new(FailureLimits::default());
        for n in 0..5 {
            assert_eq!(fail(&attempts, "SN1", from([10, 0, n, 1]), 0), Ok(()));
        }
        assert_eq!(fail(&attempts, "SN1", from([10, 1, 0, 1]), 59 * MINUTE), Err(Spent::Serial));
        for n in 0..20 {
            assert_eq!(fail(&attempts, &format!("A{n}"), from([10, 2, 0, 1]), 0), Ok(()));
        }
        assert_eq!(fail(&attempts, "B", from([10, 2, 0, 1]), 59_000), Err(Spent::Address));
        for n in 20..200u8 {
            assert_eq!(fail(&attempts, &format!("C{n}"), from([10, 2, 0, n]), 0), Ok(()));
        }
        assert_eq!(fail(&attempts, "B", from([10, 2, 0, 201]), 0), Err(Spent::Network));
        assert_eq!(fail(&attempts, "B", from([10, 2, 1, 201]), 0), Ok(()));
    }

    #[test]
    fn what_succeeds_or_is_not_looked_at_counts_nowhere() {
        let attempts = Attempts::new(FailureLimits { per_network: 1, ..FailureLimits::default() });
        let (claim, origin) = (Claim::Unknown("SN1".into()), from([10, 0, 0, 1]));
        for _ in 0..1_000 {
            assert!(attempts.begin(&claim, origin, 0).is_ok());
        }
        attempts.failed(&Claim::Unknown("SN2".into()), from([10, 0, 0, 2]), 0);
        for _ in 0..100 {
            assert_eq!(attempts.begin(&claim, origin, 0).err(), Some(Spent::Network));
        }
        assert_eq!(attempts.spent(&claim, from([10, 0, 1, 1]), 0), None, "the serial has lost nothing");
        assert!(attempts.addresses.has_left(&origin.address, 0));
    }
}
