//! When a device tries what again: the rule of the SDK (osap-wire 5.12, 9.9), as far as a device that lost its platform needs
//! it. Every pause is drawn evenly from zero to the one of the specification, so that a fleet does not come back as one.

use std::time::Duration;

use osap::Random;
use osap::lbs::backoff::{Trouble, delay};

/// Logins with the session it has before a device turns to the LBS.
const LIGHT_LOGINS: u32 = 4;
/// Logins in a row after a run at the LBS that may fail before it turns there again.
const FULL_LOGINS: u32 = 6;
/// How often in a row it turns to the LBS at once when the DAS does not know its session.
const UNKNOWN_AT_ONCE: u32 = 2;

/// Where a device is on its way in.
#[derive(Debug)]
pub(super) struct Comeback {
    goal: Goal,
    authentications: u32,
    unknown: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Lbs,
    /// With a session it had before, or one it was just given; so many logins have failed.
    Das {
        light: bool,
        failed: u32,
    },
}

impl Comeback {
    /// A device that was switched on, or one that still has its session.
    pub(super) fn new(keeps_session: bool) -> Comeback {
        let goal = if keeps_session { Goal::Das { light: true, failed: 0 } } else { Goal::Lbs };
        Comeback { goal, authentications: 0, unknown: 0 }
    }

    /// Whether it is the LBS's turn, not the DAS's.
    pub(super) fn is_for_lbs(&self) -> bool {
        self.goal == Goal::Lbs
    }

    /// It was let in; true when that was at the DAS.
    pub(super) fn handle_success(&mut self) -> bool {
        if !self.is_for_lbs() {
            return true;
        }
        self.authentications = 0;
        self.goal = Goal::Das { light: false, failed: 0 };
        false
    }

    /// It was not; how long it waits. Who does not know its session sends it to the LBS.
    pub(super) fn handle_failure(&mut self, unknown_session: bool, random: &mut dyn Random) -> Duration {
        match self.goal {
            Goal::Lbs => {
                self.authentications += 1;
                pause(self.authentications, random)
            }
            Goal::Das { .. } if unknown_session => {
                self.goal = Goal::Lbs;
                self.unknown += 1;
                match self.unknown.checked_sub(UNKNOWN_AT_ONCE) {
                    None | Some(0) => Duration::ZERO,
                    Some(row) => pause(row, random),
                }
            }
            // The first failure is the loss of the connection itself, which is followed at once.
            Goal::Das { light: true, failed } => {
                let row = failed + 1;
                self.goal = if row >= LIGHT_LOGINS { Goal::Lbs } else { Goal::Das { light: true, failed: row } };
                match self.goal {
                    Goal::Lbs => Duration::ZERO,
                    Goal::Das { .. } => Duration::from_secs(row.into()) + within(Duration::from_secs(1), random),
                }
            }
            Goal::Das { light: false, failed } => {
                let row = failed + 1;
                self.goal = if row >= FULL_LOGINS { Goal::Lbs } else { Goal::Das { light: false, failed: row } };
                pause(row, random)
            }
        }
    }
}

fn pause(failures: u32, random: &mut dyn Random) -> Duration {
    within(delay(Trouble::Failed, failures), random)
}

fn within(longest: Duration, random: &mut dyn Random) -> Duration {
    let mut draw = [0; 4];
    random.fill(&mut draw);
    longest.mul_f64(f64::from(u32::from_be_bytes(draw)) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Always the longest pause.
    struct Longest;

    impl Random for Longest {
        fn fill(&mut self, out: &mut [u8]) {
            out.fill(0xff);
        }
    }

    fn failures(comeback: &mut Comeback, count: usize) -> Vec<u64> {
        (0..count).map(|_| comeback.handle_failure(false, &mut Longest).as_secs()).collect()
    }

    #[test]
    fn pauses_at_the_lbs_grow() {
        let mut comeback = Comeback::new(false);
        assert_eq!(failures(&mut comeback, 3), [2, 4, 6]);
        assert!(comeback.is_for_lbs() && !comeback.handle_success() && !comeback.is_for_lbs());
        assert!(comeback.handle_success());
    }

    #[test]
    fn a_session_that_was_kept_is_tried_four_times() {
        let mut comeback = Comeback::new(true);
        assert_eq!(failures(&mut comeback, 3), [2, 3, 4]);
        assert!(!comeback.is_for_lbs());
        assert_eq!(failures(&mut comeback, 1), [0]);
        assert!(comeback.is_for_lbs());
    }

    #[test]
    fn a_new_session_is_tried_six_times_and_an_unknown_one_once() {
        let mut comeback = Comeback::new(false);
        comeback.handle_success();
        assert_eq!(failures(&mut comeback, 6), [2, 4, 6, 8, 10, 12]);
        assert!(comeback.is_for_lbs());
        for pause in [0, 0, 2, 4] {
            comeback.handle_success();
            assert_eq!(comeback.handle_failure(true, &mut Longest).as_secs(), pause);
            assert!(comeback.is_for_lbs());
        }
    }
}
