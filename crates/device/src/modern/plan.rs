//! Which way a device tries next, within one row of attempts at an LBS (osap-wire 13.3 rules 5 and 8, 13.4).
//!
//! A row goes through the ways in their order and ends where the device is let in, where none is left, or where it is
//! better to wait. The next row begins at the beginning, with everything that the device had.

use osap::Suite;
use osap::modern::Slots;
use osap::modern::client::{Advice, Failure};
use osap::modern::slots::{Has, Way};

/// One row of attempts.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    suites: Vec<Suite>,
    has: Has,
    last: Option<Way>,
    suite: Option<Suite>,
    /// Suites that were offered by the present way.
    offers: usize,
    /// A sealed result has said that the DevID is another device's.
    anew: bool,
    /// Only this way may be gone.
    only: Option<Way>,
}

/// An attempt to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub way: Way,
    pub suite: Suite,
    /// What the device says it has.
    pub slots: Slots,
    /// Shows its certificate in the handshake.
    pub certificate: bool,
}

impl Plan {
    /// A row for a device that may run these suites, the preferred one first, and has this beside its tickets.
    pub(super) fn new(suites: &[Suite], has: Has) -> Self {
        Self { suites: suites.to_vec(), has, last: None, suite: None, offers: 0, anew: false, only: None }
    }

    /// The server is not known yet: what the code proves is all that counts (osap-wire 13.4.3).
    pub(super) fn first_use(mut self) -> Self {
        self.only = Some(Way::Code);
        self
    }

    /// The attempt that is due; `None` when the row is over.
    pub(super) fn next(&mut self, slots: &Slots) -> Option<Step> {
        if self.suite.is_none() {
            loop {
                let way = slots.next_way(self.last, self.has)?;
                self.last = Some(way);
                let anew = matches!(way, Way::Certificate | Way::Code);
                if self.only.is_none_or(|only| only == way) && (anew || !self.anew) {
                    break;
                }
            }
            self.suite = self.suites.first().copied();
            self.offers = 0;
        }
        let slots = if self.anew { slots.without_identity() } else { slots.clone() };
        Some(Step { way: self.last?, suite: self.suite?, slots, certificate: self.has.certificate })
    }

    /// An attempt has failed; whether the row goes on.
    pub(super) fn handle_failure(&mut self, failure: &Failure) -> bool {
        match failure.advice() {
            Advice::NextWay => self.suite = None,
            Advice::Offer(suite) => {
                self.offers += 1;
                // Each suite once: whoever answers each with another one leads nowhere.
                if self.offers >= self.suites.len() {
                    return false;
                }
                self.suite = Some(suite);
            }
            Advice::Enrol if self.anew => self.suite = None,
            Advice::Enrol => {
                self.anew = true;
                self.last = None;
                self.suite = None;
            }
            Advice::Wait => return false,
        }
        true
    }

    /// The server refuses the certificate in the handshake: the way is tried again without it.
    pub(super) fn handle_certificate_refused(&mut self) {
        self.has.certificate = false;
        if self.last == Some(Way::Certificate) {
            self.suite = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use osap::modern::client::Trouble;
    use osap::modern::slots::Slot;
    use osap::modern::{Psk, TicketId};
    use osap::{DevId, ResultCode};

    use super::*;

    fn slot(n: u8) -> Option<Slot> {
        Some(Slot { ticket: TicketId::new([n; 16]), psk: Psk::from_bytes(&[n; 48]).unwrap() })
    }

    fn slots() -> Slots {
        Slots { dev_id: DevId::parse(&[b'd'; 32]).ok(), newest: slot(2), older: slot(1), base: slot(0) }
    }

    const ALL: Has = Has { certificate: true, code: true };

    fn failure(step: &Step, trouble: Trouble) -> Failure {
        Failure { trouble, way: step.way, suite: step.suite }
    }

    fn refused(code: u8) -> Trouble {
        Trouble::Refused(ResultCode::from(code))
    }

    #[test]
    fn a_hint_leads_from_way_to_way_and_the_row_ends_after_the_last() {
        let mut plan = Plan::new(&[Suite::Tls], ALL);
        let mut ways = Vec::new();
        while let Some(step) = plan.next(&slots()) {
            assert_eq!(step.slots, slots(), "a hint changes nothing");
            assert!(plan.handle_failure(&failure(&step, Trouble::Hint(ResultCode::from(10)))));
            ways.push(step.way);
        }
        assert_eq!(ways, Way::ALL);
    }

    #[test]
    fn a_sealed_4_enrols_anew_and_tries_no_ticket() {
        let mut plan = Plan::new(&[Suite::Tls], ALL);
        let step = plan.next(&slots()).unwrap();
        assert!(plan.handle_failure(&failure(&step, refused(4))));
        for way in [Way::Certificate, Way::Code] {
            let step = plan.next(&slots()).unwrap();
            assert_eq!((step.way, step.slots.dev_id), (way, None));
            assert_eq!(step.slots.newest, slots().newest, "nothing is deleted");
            assert!(plan.handle_failure(&failure(&step, refused(4))));
        }
        assert_eq!(plan.next(&slots()), None);
    }

    #[test]
    fn what_does_not_speak_of_the_credential_ends_the_row() {
        for trouble in [refused(6), refused(9), refused(2), Trouble::Server, Trouble::Storage, Trouble::Share] {
            let mut plan = Plan::new(&[Suite::Tls], ALL);
            let step = plan.next(&slots()).unwrap();
            assert!(!plan.handle_failure(&failure(&step, trouble)));
        }
    }

    #[test]
    fn osap_13_4_1_a_mismatch_leads_through_the_allowed_suites_once() {
        let mut plan = Plan::new(&[Suite::X25519, Suite::P384], Has::default());
        let offer = |suite| Trouble::Mismatch { instead: Some(suite) };
        let step = plan.next(&slots()).unwrap();
        assert_eq!((step.way, step.suite), (Way::Newest, Suite::X25519));
        assert!(plan.handle_failure(&failure(&step, offer(Suite::P384))));
        let step = plan.next(&slots()).unwrap();
        assert_eq!((step.way, step.suite), (Way::Newest, Suite::P384));
        assert!(!plan.handle_failure(&failure(&step, offer(Suite::X25519))), "round and round");
        let mut plan = Plan::new(&[Suite::Tls], ALL);
        let step = plan.next(&slots()).unwrap();
        assert!(!plan.handle_failure(&failure(&step, Trouble::Mismatch { instead: None })));
    }

    #[test]
    fn a_certificate_that_is_refused_is_not_shown_again_in_this_row() {
        let mut plan = Plan::new(&[Suite::Tls], ALL);
        assert!(plan.next(&slots()).unwrap().certificate);
        plan.handle_certificate_refused();
        let mut ways = Vec::new();
        while let Some(step) = plan.next(&slots()) {
            assert!(!step.certificate);
            ways.push(step.way);
            plan.handle_failure(&failure(&step, Trouble::Hint(ResultCode::from(10))));
        }
        assert_eq!(ways, [Way::Newest, Way::Older, Way::Code, Way::Base]);
    }

    #[test]
    fn a_first_use_shows_its_code_and_nothing_else() {
        let mut plan = Plan::new(&[Suite::Tls], ALL).first_use();
        let step = plan.next(&slots()).unwrap();
        assert_eq!(step.way, Way::Code);
        plan.handle_failure(&failure(&step, refused(1)));
        assert_eq!(plan.next(&slots()), None);
    }
}
