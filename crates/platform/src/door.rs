//! How often a password may be wrong before no further one is looked at.
//!
//! Whoever knows a name can try passwords for it, and must neither find the right one that way nor keep its owner out. So
//! what counts first is a name together with where somebody tries from: a stranger uses up what is there for his own
//! network, and the owner comes in from every other one. That many networks together do not guess on is what the budget of
//! the name itself is for, which no single network can use up, nor all those of one site.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::password::Passwords;
use crate::rate::{Pace, Taken, UsedBy};

/// Wrong passwords of one name from one network: ten at once, then one every two minutes.
const OF_A_NAME_THERE: Pace = Pace { every_ms: 120_000, burst: 10 };
/// Wrong passwords of one name from the site that the network is a part of: one customer of a provider has many networks.
const OF_A_NAME_NEAR: Pace = Pace { every_ms: 30_000, burst: 100 };
/// Wrong passwords of one name from everywhere.
const OF_A_NAME: Pace = Pace { every_ms: 10_000, burst: 500 };
/// Wrong passwords from one network, behind which there may be many people.
const OF_A_NETWORK: Pace = Pace { every_ms: 15_000, burst: 40 };
/// Wrong passwords of somebody who is logged in and wants another one.
const OF_ONESELF: Pace = Pace { every_ms: 120_000, burst: 10 };

/// What a log-in needs beside the people themselves.
pub(crate) struct Door {
    pub(crate) passwords: Passwords,
    networks: Arc<UsedBy>,
    names_there: Arc<UsedBy>,
    names_near: Arc<UsedBy>,
    names: Arc<UsedBy>,
    selves: Arc<UsedBy>,
}

impl Default for Door {
    fn default() -> Self {
        Door {
            passwords: Passwords::default(),
            networks: UsedBy::new(OF_A_NETWORK),
            names_there: UsedBy::new(OF_A_NAME_THERE),
            names_near: UsedBy::new(OF_A_NAME_NEAR),
            names: UsedBy::new(OF_A_NAME),
            selves: UsedBy::new(OF_ONESELF),
        }
    }
}

/// A password that is being looked at. It counts nowhere unless it was [wrong](Attempt::was_wrong).
#[must_use = "an attempt that is dropped counts nowhere"]
pub(crate) struct Attempt(Vec<Taken>);

impl Attempt {
    pub(crate) fn was_wrong(self) {
        self.0.into_iter().for_each(Taken::spend);
    }
}

impl Door {
    /// Somebody tries a password for a name; or is told how long to wait. It is the same for names that are nobody's.
    pub(crate) fn attempt(&self, name: &str, from: IpAddr, now: i64) -> Result<Attempt, Duration> {
        let network = network(from);
        let taken = [
            self.networks.take(&network, now)?,
            self.names_there.take(&(name, network), now)?,
            self.names_near.take(&(name, site(from)), now)?,
            self.names.take(name, now)?,
        ];
        Ok(Attempt(taken.into()))
    }

    /// The user with this id, who is logged in, shows that they know their password; or is told how long to wait.
    pub(crate) fn attempt_again(&self, user: Uuid, now: i64) -> Result<Attempt, Duration> {
        Ok(Attempt(vec![self.selves.take(&user, now)?]))
    }
}

/// What counts as one place to try from: an address, and of IPv6 the /64 that a household or a machine has to itself.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

/// What networks are parts of: a /24, and of IPv6 the /48 that one customer of a provider may have.
fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, ..] = address.segments();
            Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0).into()
        }
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Ipv4Addr::new(a, b, c, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_770_120_000_000;

    fn address(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    /// How many wrong passwords of a name are looked at from there.
    fn wrong(door: &Door, name: &str, from: &str) -> usize {
        std::iter::from_fn(|| door.attempt(name, address(from), NOW).map(Attempt::was_wrong).ok()).take(10_000).count()
    }

    #[test]
    fn who_tries_a_name_shuts_out_himself_and_not_its_owner() {
        let door = Door::default();
        assert_eq!(wrong(&door, "anna", "192.0.2.1"), 10);
        let again = door.attempt("anna", address("192.0.2.1"), NOW).err();
        assert_eq!(again, Some(Duration::from_secs(120)));
        assert!(door.attempt("anna", address("192.0.2.2"), NOW).is_ok(), "from elsewhere");
        assert!(door.attempt("otto", address("192.0.2.1"), NOW).is_ok(), "somebody else from there");
        assert!(door.attempt("anna", address("192.0.2.1"), NOW + 120_000).is_ok(), "after a while");
    }

    #[test]
    fn many_networks_together_are_bounded_too() {
        let door = Door::default();
        let all: usize = (0..100).map(|n| wrong(&door, "anna", &format!("198.51.{n}.7"))).sum();
        assert_eq!(all, 500);
        assert_eq!(wrong(&door, "anna", "203.0.113.7"), 0);
        assert!(door.attempt("anna", address("203.0.113.7"), NOW + 10_000).is_ok());
    }

    #[test]
    fn the_networks_of_one_site_leave_something_for_others() {
        for site in ["2001:db8:7", "198.51.100"] {
            let door = Door::default();
            let from = |n: u32| if site.contains(':') { format!("{site}:{n:x}::1") } else { format!("{site}.{n}") };
            let all: usize = (0..200).map(|n| wrong(&door, "anna", &from(n))).sum();
            assert_eq!(all, 100, "{site}");
            assert_eq!(wrong(&door, "anna", "203.0.113.7"), 10, "{site}");
        }
    }

    #[test]
    fn one_network_tries_so_many_names_only() {
        let door = Door::default();
        let all: usize = (0..10).map(|n| wrong(&door, &format!("name {n}"), "192.0.2.1")).sum();
        assert_eq!(all, 40);
    }

    #[test]
    fn all_addresses_of_a_64_are_one_and_those_of_ipv4_are_what_they_are() {
        let door = Door::default();
        assert_eq!(wrong(&door, "anna", "2001:db8:1:2::1"), 10);
        assert_eq!(wrong(&door, "anna", "2001:db8:1:2:ffff::9"), 0);
        assert_eq!(wrong(&door, "anna", "2001:db8:1:3::1"), 10);
        assert_eq!(wrong(&door, "anna", "::ffff:192.0.2.1"), 10);
        assert_eq!(wrong(&door, "anna", "192.0.2.1"), 0);
        assert_eq!(wrong(&door, "anna", "192.0.2.2"), 10);
    }

    #[test]
    fn an_attempt_that_was_not_wrong_counts_nowhere() {
        let door = Door::default();
        for _ in 0..1_000 {
            assert!(door.attempt("anna", address("192.0.2.1"), NOW).is_ok());
        }
        // Nor does one that another budget refuses.
        assert_eq!(wrong(&door, "anna", "192.0.2.1"), 10);
        for _ in 0..1_000 {
            assert!(door.attempt("anna", address("192.0.2.1"), NOW).is_err());
        }
        assert_eq!(wrong(&door, "otto", "192.0.2.1"), 10);
    }

    #[test]
    fn who_is_logged_in_has_a_budget_of_his_own() {
        let (door, user) = (Door::default(), Uuid::from_u128(1));
        assert_eq!(wrong(&door, "anna", "192.0.2.1"), 10);
        for _ in 0..10 {
            door.attempt_again(user, NOW).map(Attempt::was_wrong).expect("one of ten");
        }
        assert_eq!(door.attempt_again(user, NOW).err(), Some(Duration::from_secs(120)));
        assert!(door.attempt_again(Uuid::from_u128(2), NOW).is_ok());
    }
}
