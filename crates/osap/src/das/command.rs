//! The table of the v2 commands (osap-wire 9.7, 9.8, 10.4 to 10.6).

use super::topic::Topic;

/// Command domains.
pub mod domain {
    /// Access: the platform steers the connection (osap-wire 10.5).
    pub const ACCESS: u32 = 1000;
    /// Base: time, binding, presence, profile (osap-wire 10.4).
    pub const BASE: u32 = 1100;
    /// Hub: the children of a gateway (osap-wire 10.6).
    pub const HUB: u32 = 7002;
}

/// Who sends a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The device.
    Up,
    /// The platform.
    Down,
}

macro_rules! commands {
    ($($(#[doc = $doc:literal])+ $variant:ident = $domain:ident $number:literal $direction:ident $name:literal $clause:literal,)*) => {
        /// A command of the table. Others exist and are not described.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Command {
            $($(#[doc = $doc])+ $variant,)*
        }

        impl Command {
            /// Every command, in the order of the table.
            pub const ALL: &[Command] = &[$(Self::$variant),*];

            fn row(self) -> Row {
                match self {
                    $(Self::$variant => Row {
                        domain: domain::$domain,
                        number: $number,
                        direction: Direction::$direction,
                        name: $name,
                        clause: $clause,
                    },)*
                }
            }
        }
    };
}

struct Row {
    domain: u32,
    number: u32,
    direction: Direction,
    name: &'static str,
    clause: &'static str,
}

commands! {
    /// The keep-alive of the connection from the next ping on, [`super::access::KeepAlive`].
    KeepAlive = ACCESS 0x0001 Down "keep-alive" "osap-wire 10.5",
    /// Commands the device must not send, [`super::access::RiskList`].
    RiskList = ACCESS 0x0002 Down "risk list" "osap-wire 10.5",
    /// The device goes for good; any body.
    ForcedOffline = ACCESS 0x0003 Down "forced offline" "osap-wire 10.5",
    /// Accepted by clients, and without effect; no body.
    Ignored = ACCESS 0x3450 Down "ignored" "osap-wire 10.5",
    /// The device moves to another LBS, [`super::access::Redirect`].
    Redirect = ACCESS 0x3479 Down "LBS redirect" "osap-wire 10.5",
    /// The same under another number.
    RedirectAlias = ACCESS 0x491F Down "LBS redirect" "osap-wire 10.5",
    /// Where and how often to ask for the time, [`super::base::Ntp`].
    Ntp = BASE 0x0001 Down "time server" "osap-wire 10.4",
    /// SDK 1.5.2 says that it leaves, [`super::base::Request`].
    OfflineNotice = BASE 0x2807 Up "offline notice" "osap-wire 10.4",
    /// Who owns the device, [`super::base::Request`].
    OwnerQuery = BASE 0x3445 Up "owner query" "osap-wire 10.4",
    /// The answer, [`super::base::Owner`].
    OwnerAnswer = BASE 0x3446 Down "owner" "osap-wire 10.4",
    /// The device binds itself by a token, [`super::base::BindToken`].
    BindToken = BASE 0x3802 Up "bind by token" "osap-wire 10.4",
    /// The answer, which devices ignore.
    BindTokenAnswer = BASE 0x3803 Down "bound by token" "osap-wire 10.4",
    /// Somebody was at the device, [`super::base::Presence`].
    Presence = BASE 0x3808 Up "presence given" "osap-wire 10.4",
    /// The answer, which devices ignore.
    PresenceAnswer = BASE 0x3809 Down "presence noted" "osap-wire 10.4",
    /// Where the thing model of the device is, [`super::base::ProfileQuery`].
    ProfileQuery = BASE 0x3870 Up "profile query" "osap-wire 10.4",
    /// The answer, [`super::base::ProfileAnswer`].
    ProfileAnswer = BASE 0x3871 Down "profile" "osap-wire 10.4",
    /// The device has another owner, [`super::base::Binding`]; answered under the same number.
    BindingChanged = BASE 0x4947 Down "binding changed" "osap-wire 10.4",
    /// Somebody has to be at the device, [`super::base::Challenge`].
    Challenge = BASE 0x4F14 Down "presence challenge" "osap-wire 10.4",
    /// The device asks its user, [`super::base::Outcome`].
    ChallengeAnswer = BASE 0x4F15 Up "challenge taken" "osap-wire 10.4",
    /// The children of a hub, [`super::hub::Children`].
    Children = HUB 1 Up "children" "osap-wire 10.6",
    /// The answer, which hubs ignore.
    ChildrenAnswer = HUB 2 Down "children noted" "osap-wire 10.6",
    /// Which children are reachable, [`super::hub::Online`].
    ChildrenOnline = HUB 3 Up "children online" "osap-wire 10.6",
    /// The answer, which hubs ignore.
    ChildrenOnlineAnswer = HUB 4 Down "children online noted" "osap-wire 10.6",
    /// A hub vouches for a child, [`super::hub::ChildAuth`].
    ChildAuth = HUB 16 Up "child authentication" "osap-wire 10.6",
    /// Whether the child is accepted, [`super::hub::ChildVerdict`].
    ChildVerdict = HUB 17 Down "child verdict" "osap-wire 10.6",
}

impl Command {
    /// The command of those numbers.
    #[must_use]
    pub fn lookup(domain: u32, number: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|command| (command.domain(), command.number()) == (domain, number))
    }

    /// One of [`domain`](mod@domain).
    #[must_use]
    pub fn domain(self) -> u32 {
        self.row().domain
    }

    /// The number inside the domain.
    #[must_use]
    pub fn number(self) -> u32 {
        self.row().number
    }

    /// Who sends it first.
    #[must_use]
    pub fn direction(self) -> Direction {
        self.row().direction
    }

    /// A few words for a log.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Where it is specified.
    #[must_use]
    pub fn clause(self) -> &'static str {
        self.row().clause
    }

    /// The command that answers this one: the next number, except that a changed binding is answered under its own
    /// (osap-wire 9.8). `None` where nothing answers.
    #[must_use]
    pub fn response(self) -> Option<Self> {
        if self == Self::BindingChanged {
            return Some(self);
        }
        let next = Self::lookup(self.domain(), response_number(self.domain(), self.number()))?;
        (next.direction() != self.direction()).then_some(next)
    }

    /// The version of the general part (osap-wire 9.6).
    #[must_use]
    pub fn version(self) -> &'static str {
        version(self.domain())
    }

    /// The topic of the command from a device.
    #[must_use]
    pub fn uplink(self) -> Topic<'static> {
        Topic::Command { serial: None, domain: self.domain(), command: self.number() }
    }

    /// The topic of the command to the device `serial`.
    #[must_use]
    pub fn downlink(self, serial: &str) -> Topic<'_> {
        Topic::Command { serial: Some(serial), domain: self.domain(), command: self.number() }
    }
}

/// The number that answers a command, known or not (osap-wire 9.8).
#[must_use]
pub fn response_number(domain: u32, number: u32) -> u32 {
    if (domain, number) == (domain::BASE, 0x4947) { number } else { number.wrapping_add(1) }
}

/// The version of the commands of a domain, for the general part (osap-wire 9.6).
#[must_use]
pub fn version(domain: u32) -> &'static str {
    if domain == domain::HUB { "V2.0.0" } else { "v2.0.0" }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_command_is_found_by_its_numbers() {
        let mut numbers = HashSet::new();
        for &command in Command::ALL {
            assert!(numbers.insert((command.domain(), command.number())), "{command:?}");
            assert_eq!(Command::lookup(command.domain(), command.number()), Some(command));
            let up = command.uplink().encode().expect("short");
            assert_eq!(up, format!("/{}/{}", command.domain(), command.number()));
            let down = command.downlink("SN").encode().expect("short");
            assert_eq!(down, format!("/SN/{}/{}", command.domain(), command.number()));
        }
        assert_eq!(Command::lookup(domain::BASE, 0x3850), None);
    }

    #[test]
    fn numbers_are_those_of_the_table() {
        let decimal = |command: Command| command.uplink().to_string();
        assert_eq!(decimal(Command::OfflineNotice), "/1100/10247");
        assert_eq!(decimal(Command::OwnerQuery), "/1100/13381");
        assert_eq!(decimal(Command::BindingChanged), "/1100/18759");
        assert_eq!(decimal(Command::BindToken), "/1100/14338");
        assert_eq!(decimal(Command::Challenge), "/1100/20244");
        assert_eq!(decimal(Command::Presence), "/1100/14344");
        assert_eq!(decimal(Command::ProfileQuery), "/1100/14448");
        assert_eq!(decimal(Command::Redirect), "/1000/13433");
        assert_eq!(decimal(Command::RedirectAlias), "/1000/18719");
        assert_eq!(decimal(Command::ChildAuth), "/7002/16");
    }

    #[test]
    fn an_answer_has_the_next_number_but_for_one() {
        for (command, answer) in [
            (Command::OwnerQuery, Some(Command::OwnerAnswer)),
            (Command::ProfileQuery, Some(Command::ProfileAnswer)),
            (Command::Challenge, Some(Command::ChallengeAnswer)),
            (Command::BindingChanged, Some(Command::BindingChanged)),
            (Command::Children, Some(Command::ChildrenAnswer)),
            (Command::ChildrenOnline, Some(Command::ChildrenOnlineAnswer)),
            (Command::ChildAuth, Some(Command::ChildVerdict)),
            (Command::KeepAlive, None),
            (Command::RiskList, None),
            (Command::Ntp, None),
            (Command::OfflineNotice, None),
        ] {
            assert_eq!(command.response(), answer, "{command:?}");
        }
        assert_eq!(response_number(9, u32::MAX), 0);
        assert_eq!((version(domain::HUB), Command::Ntp.version()), ("V2.0.0", "v2.0.0"));
    }
}
