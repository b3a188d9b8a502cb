//! Every transition of osap-wire 5.11, 5.12, 9.3 and 9.9, on virtual time.

use osap::{MasterKey, ResultCode};

use super::*;

/// Draws the largest value every time: delays are at their upper end.
struct Ones;

impl Random for Ones {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(0xFF);
    }
}

/// A device on a virtual clock.
struct Bench {
    session: Session,
    now: Instant,
}

fn dev_id(digit: char) -> DevId {
    DevId::parse(digit.to_string().repeat(32).as_bytes()).unwrap()
}

fn credentials(digit: char) -> LegacyCredentials {
    let master_key = MasterKey::from_bytes(digit.to_string().repeat(16).as_bytes()).unwrap();
    LegacyCredentials { dev_id: dev_id(digit), master_key }
}

fn grant(digit: char) -> Grant {
    let secret = Secret::Legacy(SessionKey::from_bytes(&[7; 16]).unwrap());
    let access = Access { dev_id: dev_id(digit), secret, address: "das".into(), port: 1 };
    Grant { access, legacy: Some((credentials(digit), CodeCase::Upper)) }
}

fn refused(code: u8, reaction: Reaction) -> Denied {
    let reason = Reason::Refused(ResultCode::from(code));
    Denied { reason, reaction, delay: backoff::Trouble::Failed }
}

const NO_LBS: Denied = Denied {
    reason: Reason::LbsUnreachable(io::ErrorKind::ConnectionRefused),
    reaction: Reaction::BackOff,
    delay: backoff::Trouble::Unreached,
};

impl Bench {
    fn new(stored: Option<LegacyCredentials>) -> Self {
        Self { session: Session::new(stored), now: Instant::now() }
    }

    /// A device that has credentials and is online.
    fn online() -> Self {
        let mut bench = Self::new(Some(credentials('1')));
        bench.authenticate(Ok(grant('1')));
        bench.log_in();
        bench
    }

    fn authenticate(&mut self, result: Result<Grant, Denied>) {
        assert!(matches!(self.session.poll(), Step::Authenticate { .. }), "{:?}", self.session.poll());
        self.session.handle_authentication(self.now, result, &mut Ones);
    }

    /// What the next authentication starts from.
    #[track_caller]
    fn expect_authentication(&mut self, expected: &Stored, expected_case: CodeCase) {
        match self.session.poll() {
            Step::Authenticate { stored, case } => {
                assert_eq!((&stored, case), (expected, expected_case));
            }
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn expect_login(&mut self, expected: Login) {
        match self.session.poll() {
            Step::Login { login, .. } => assert_eq!(login, expected),
            other => panic!("{other:?}"),
        }
    }

    fn log_in(&mut self) {
        assert!(matches!(self.session.poll(), Step::Login { .. }), "{:?}", self.session.poll());
        self.session.handle_accepted();
        self.session.handle_ready(self.now);
    }

    fn end(&mut self, end: LinkEnd) {
        assert!(matches!(self.session.poll(), Step::Login { .. }), "{:?}", self.session.poll());
        self.session.handle_link_end(self.now, end, &mut Ones);
    }

    /// Waits the wait it is told, and says how long it was (rounded to milliseconds) and why.
    #[track_caller]
    fn wait(&mut self) -> (f64, Reason) {
        let Step::Wait { until, reason } = self.session.poll() else { panic!("{:?}", self.session.poll()) };
        let delay = until - self.now;
        self.session.handle_timeout(until - Duration::from_nanos(1));
        assert!(matches!(self.session.poll(), Step::Wait { .. }), "it does not wake early");
        self.now = until;
        self.session.handle_timeout(self.now);
        ((delay.as_secs_f64() * 1000.0).round() / 1000.0, reason)
    }

    fn later(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

fn both(digit: char) -> Stored {
    from_storage(Some(&credentials(digit)))
}

const FULL: Login = Login { full: true, subscribe: true, first: false };
const LIGHT: Login = Login { full: false, subscribe: false, first: false };
const LOST: LinkEnd = LinkEnd::Lost(LinkFault::Closed);

#[test]
fn a_first_connection_stores_before_it_logs_in() {
    let mut bench = Bench::new(None);
    bench.expect_authentication(&Stored::Nothing, CodeCase::Upper);
    bench.authenticate(Ok(grant('1')));
    let Step::Store(stored) = bench.session.poll() else { panic!("{:?}", bench.session.poll()) };
    assert_eq!(stored, credentials('1'));
    bench.session.handle_stored(bench.now, true, &mut Ones);
    bench.expect_login(Login { first: true, ..FULL });

    // The rule after a first authentication (13.2.2): refresh at once, nothing new to store.
    bench.end(LinkEnd::Refused(11));
    bench.expect_authentication(&both('1'), CodeCase::Upper);
    bench.authenticate(Ok(grant('1')));
    bench.expect_login(Login { first: true, ..FULL });
    bench.log_in();
    bench.end(LOST);
    bench.expect_login(LIGHT);
}

#[test]
fn credentials_that_cannot_be_stored_are_not_used() {
    let mut bench = Bench::new(Some(credentials('1')));
    bench.authenticate(Ok(grant('2')));
    for delay in [2.0, 4.0, 6.0] {
        assert!(matches!(bench.session.poll(), Step::Store(_)));
        bench.session.handle_stored(bench.now, false, &mut Ones);
        assert_eq!(bench.wait(), (delay, Reason::Storage));
    }
    assert!(matches!(bench.session.poll(), Step::Store(stored) if stored == credentials('2')));
    bench.session.handle_stored(bench.now, true, &mut Ones);
    bench.expect_login(Login { first: true, ..FULL });
}

#[test]
fn the_pause_grows_with_failures_up_to_two_minutes_and_starts_over_after_success() {
    let mut bench = Bench::new(Some(credentials('1')));
    for row in 1..=70_u32 {
        bench.authenticate(Err(NO_LBS));
        assert_eq!(bench.wait(), (f64::from((2 * row).min(120)), NO_LBS.reason));
    }
    bench.expect_authentication(&both('1'), CodeCase::Upper);
    bench.authenticate(Ok(grant('1')));
    bench.end(LinkEnd::Refused(11));
    bench.authenticate(Err(NO_LBS));
    assert_eq!(bench.wait().0, 2.0);
}

#[test]
fn result_1_tries_the_other_case_once_and_at_once() {
    let mut bench = Bench::new(None);
    for delay in [2.0, 4.0] {
        bench.expect_authentication(&Stored::Nothing, CodeCase::Upper);
        bench.authenticate(Err(refused(1, Reaction::RetryLowerCase)));
        bench.expect_authentication(&Stored::Nothing, CodeCase::Lower);
        bench.authenticate(Err(refused(1, Reaction::BackOff)));
        assert_eq!(bench.wait(), (delay, Reason::Refused(ResultCode::CodeRefused)));
    }
    bench.authenticate(Err(refused(1, Reaction::RetryLowerCase)));
    bench.authenticate(Ok(Grant { legacy: Some((credentials('1'), CodeCase::Lower)), ..grant('1') }));
    bench.session.handle_stored(bench.now, true, &mut Ones);
    bench.end(LinkEnd::Refused(11));
    bench.expect_authentication(&both('1'), CodeCase::Lower);
}

#[test]
fn a_reaction_that_makes_no_sense_does_not_loop() {
    let mut bench = Bench::new(None);
    bench.authenticate(Err(refused(1, Reaction::RetryLowerCase)));
    bench.authenticate(Err(refused(1, Reaction::RetryLowerCase)));
    assert_eq!(bench.wait().0, 2.0);
}

#[test]
fn result_10_sets_the_master_key_aside_and_result_4_the_dev_id() {
    let mut bench = Bench::new(Some(credentials('1')));
    bench.authenticate(Err(refused(10, Reaction::ForgetMasterKey)));
    assert_eq!(bench.wait().0, 2.0);
    bench.expect_authentication(&Stored::DevId(dev_id('1')), CodeCase::Upper);
    bench.authenticate(Err(NO_LBS));
    bench.wait();
    bench.expect_authentication(&Stored::DevId(dev_id('1')), CodeCase::Upper);
    bench.authenticate(Err(refused(4, Reaction::ForgetDevId)));
    assert_eq!(bench.wait().0, 6.0);
    bench.expect_authentication(&Stored::Nothing, CodeCase::Upper);
    bench.authenticate(Ok(grant('2')));
    assert!(matches!(bench.session.poll(), Step::Store(stored) if stored == credentials('2')));
}

#[test]
fn what_was_set_aside_comes_back_when_the_server_refuses_without_it() {
    let mut bench = Bench::new(Some(credentials('1')));
    bench.authenticate(Err(refused(4, Reaction::ForgetDevId)));
    bench.wait();
    bench.expect_authentication(&Stored::Nothing, CodeCase::Upper);
    bench.authenticate(Err(refused(5, Reaction::BackOff)));
    bench.wait();
    bench.expect_authentication(&both('1'), CodeCase::Upper);
    bench.authenticate(Ok(grant('1')));
    bench.expect_login(Login { first: true, ..FULL });
}

#[test]
fn a_suite_that_does_not_fit_is_retried_slowly() {
    let mut bench = Bench::new(None);
    let mismatch = Denied {
        reason: Reason::SuiteMismatch(4),
        reaction: Reaction::BackOff,
        delay: backoff::Trouble::NothingInCommon,
    };
    let mut last = 0.0;
    for _ in 0..40 {
        bench.authenticate(Err(mismatch));
        let (delay, reason) = bench.wait();
        assert_eq!(reason, Reason::SuiteMismatch(4));
        assert!(delay >= last && delay <= 3600.0, "{delay}");
        last = delay;
    }
    assert_eq!(last, 3600.0);
}

#[test]
fn session_unknown_is_followed_at_once_twice_and_then_slowly() {
    let mut bench = Bench::online();
    bench.end(LOST);
    for _ in 0..2 {
        bench.end(LinkEnd::Refused(11));
        bench.authenticate(Ok(grant('1')));
    }
    for delay in [2.0, 4.0, 6.0] {
        bench.end(LinkEnd::Refused(11));
        assert_eq!(bench.wait(), (delay, Reason::LoginRefused(11)));
        bench.authenticate(Ok(grant('1')));
    }
    bench.log_in();
    bench.end(LinkEnd::Refused(11));
    assert_eq!(bench.wait().0, 8.0, "let in and sent away is no success");
    bench.authenticate(Ok(grant('1')));
    bench.log_in();
    bench.later(30);
    bench.end(LinkEnd::Refused(11));
    bench.expect_authentication(&both('1'), CodeCase::Upper);
}

#[test]
fn session_exists_leads_to_a_light_login_with_subscriptions() {
    let mut bench = Bench::new(Some(credentials('1')));
    bench.authenticate(Ok(grant('1')));
    bench.end(LinkEnd::Refused(12));
    bench.expect_login(Login { full: false, subscribe: true, first: true });
    // Once at once; a server that says it for ever gets the pauses of a light login.
    bench.end(LinkEnd::Refused(12));
    bench.expect_login(Login { full: false, subscribe: true, first: true });
    bench.end(LinkEnd::Refused(12));
    assert_eq!(bench.wait(), (2.0, Reason::LoginRefused(12)));
    bench.log_in();
    bench.end(LOST);
    bench.later(60);
}

#[test]
fn blacklisted_is_the_end() {
    let mut bench = Bench::online();
    bench.end(LOST);
    bench.end(LinkEnd::Refused(10));
    assert!(matches!(bench.session.poll(), Step::Stop(StopReason::Blacklisted)));
    bench.session.handle_stop();
    assert!(matches!(bench.session.poll(), Step::Stop(StopReason::Blacklisted)));
}

#[test]
fn a_full_login_is_tried_six_times_before_the_lbs_is_asked_again() {
    for end in [LinkEnd::Refused(3), LinkEnd::Unreachable(io::ErrorKind::TimedOut), LOST] {
        let mut bench = Bench::new(Some(credentials('1')));
        bench.authenticate(Ok(grant('1')));
        for delay in [2.0, 4.0, 6.0, 8.0, 10.0, 12.0] {
            bench.expect_login(Login { first: true, ..FULL });
            bench.end(end);
            assert_eq!(bench.wait().0, delay);
        }
        bench.expect_authentication(&both('1'), CodeCase::Upper);
        bench.authenticate(Ok(grant('1')));
        bench.end(end);
        assert_eq!(bench.wait().0, 2.0, "a new address starts over");
    }
}

#[test]
fn a_lost_link_is_four_light_logins_and_then_the_lbs() {
    let mut bench = Bench::online();
    bench.later(60);
    bench.end(LOST);
    bench.expect_login(LIGHT);
    // One, two and three seconds, each with up to one second of spread.
    for delay in [2.0, 3.0, 4.0] {
        bench.end(LinkEnd::Unreachable(io::ErrorKind::ConnectionRefused));
        assert_eq!(bench.wait().0, delay);
        bench.expect_login(LIGHT);
    }
    bench.end(LinkEnd::Unreachable(io::ErrorKind::ConnectionRefused));
    bench.expect_authentication(&both('1'), CodeCase::Upper);
    bench.authenticate(Ok(grant('1')));
    bench.expect_login(FULL);
}

#[test]
fn a_link_that_keeps_breaking_is_no_busy_loop() {
    let mut bench = Bench::online();
    bench.end(LOST);
    let mut waits = Vec::new();
    for _ in 0..3 {
        bench.log_in();
        bench.end(LOST);
        waits.push(bench.wait().0);
    }
    assert_eq!(waits, [2.0, 3.0, 4.0]);
    bench.log_in();
    bench.later(29);
    bench.end(LOST);
    bench.expect_authentication(&both('1'), CodeCase::Upper);
}

#[test]
fn a_das_that_lets_in_and_drops_is_visited_ever_more_slowly() {
    let mut bench = Bench::online();
    let short_lives = |bench: &mut Bench| {
        bench.end(LOST);
        for _ in 0..3 {
            bench.log_in();
            bench.end(LOST);
            bench.wait();
        }
        bench.log_in();
        bench.end(LOST);
    };
    short_lives(&mut bench);
    for delay in [2.0, 4.0, 6.0] {
        bench.expect_authentication(&both('1'), CodeCase::Upper);
        bench.authenticate(Ok(grant('1')));
        bench.log_in();
        short_lives(&mut bench);
        assert_eq!(bench.wait().0, delay);
    }
    bench.expect_authentication(&both('1'), CodeCase::Upper);
    bench.authenticate(Ok(grant('1')));
    bench.log_in();
    bench.later(30);
    short_lives(&mut bench);
    bench.expect_authentication(&both('1'), CodeCase::Upper);
}

#[test]
fn a_link_that_lived_long_enough_starts_over() {
    let mut bench = Bench::online();
    for _ in 0..20 {
        bench.later(30);
        bench.end(LOST);
        bench.expect_login(LIGHT);
        bench.log_in();
    }
}

#[test]
fn subscriptions_that_were_not_granted_are_asked_for_again() {
    let mut bench = Bench::new(Some(credentials('1')));
    bench.authenticate(Ok(grant('1')));
    bench.session.handle_accepted();
    bench.end(LinkEnd::Refused(12));
    bench.session.handle_accepted();
    bench.end(LinkEnd::Lost(LinkFault::NoAnswer));
    bench.expect_login(Login { full: false, subscribe: true, first: false });
    bench.log_in();
    bench.later(30);
    bench.end(LOST);
    bench.expect_login(LIGHT);
}

#[test]
fn stop_ends_every_phase() {
    let mut waiting = Bench::new(None);
    waiting.authenticate(Err(NO_LBS));
    for mut bench in [Bench::new(None), waiting, Bench::online()] {
        bench.session.handle_stop();
        assert!(matches!(bench.session.poll(), Step::Stop(StopReason::Requested)));
        bench.session.handle_link_end(bench.now, LOST, &mut Ones);
        bench.session.handle_timeout(bench.now + Duration::from_secs(9999));
        assert!(matches!(bench.session.poll(), Step::Stop(StopReason::Requested)));
    }
}

/// A device that was sent to another LBS and has left its DAS for it.
fn moved() -> Bench {
    let mut bench = Bench::online();
    assert_eq!(bench.session.start_elsewhere(), Some((Stored::DevId(dev_id('1')), CodeCase::Upper)));
    bench.session.handle_moved(Some("other".into()), grant('2'));
    assert_eq!(bench.session.lbs_host(), None, "not before the old connection is over");
    bench.end(LinkEnd::Left);
    assert_eq!(bench.session.lbs_host(), Some("other"));
    assert!(matches!(bench.session.poll(), Step::Store(stored) if stored == credentials('2')));
    bench.session.handle_stored(bench.now, true, &mut Ones);
    bench.expect_login(FULL);
    bench
}

#[test]
fn osap_10_5_a_moved_device_logs_in_with_what_the_new_lbs_gave() {
    let mut bench = moved();
    bench.end(LinkEnd::Refused(11));
    bench.expect_authentication(&both('2'), CodeCase::Upper);
    bench.authenticate(Ok(grant('2')));
    bench.log_in();
    assert_eq!(bench.session.lbs_host(), Some("other"));
    // And back to where it came from.
    bench.session.handle_moved(None, grant('3'));
    bench.end(LOST);
    assert_eq!(bench.session.lbs_host(), None);
}

#[test]
fn osap_13_5_after_four_failures_the_device_returns_to_its_own_lbs() {
    let mut bench = moved();
    bench.log_in();
    bench.end(LinkEnd::Refused(11));
    bench.expect_authentication(&both('2'), CodeCase::Upper);
    bench.authenticate(Err(refused(10, Reaction::ForgetMasterKey)));
    for _ in 0..3 {
        bench.wait();
        assert_eq!(bench.session.lbs_host(), Some("other"));
        bench.authenticate(Err(NO_LBS));
    }
    bench.wait();
    bench.expect_authentication(&Stored::DevId(dev_id('2')), CodeCase::Upper);
    bench.authenticate(Err(NO_LBS));
    assert_eq!(bench.session.lbs_host(), None);
    bench.expect_authentication(&both('2'), CodeCase::Upper);
}

#[test]
fn an_lbs_whose_das_lets_nobody_in_is_left_too() {
    let mut bench = moved();
    for turn in 2..=5 {
        bench.end(LinkEnd::Refused(11));
        if let Step::Wait { .. } = bench.session.poll() {
            bench.wait();
        }
        assert_eq!(bench.session.lbs_host(), Some("other"), "turn {turn}");
        bench.authenticate(Ok(grant('2')));
    }
    assert_eq!(bench.session.lbs_host(), None);
}

#[test]
fn osap_10_5_what_the_platform_said_outlives_a_connection() {
    let mut bench = Bench::online();
    assert_eq!(bench.session.keep_alive(), None);
    bench.session.handle_keep_alive(15);
    bench.end(LOST);
    assert_eq!(bench.session.keep_alive(), Some(15));
    bench.session.handle_moved(Some("other".into()), grant('2'));
    bench.end(LinkEnd::ForcedOffline);
    assert!(matches!(bench.session.poll(), Step::Stop(StopReason::ForcedOffline)));
}

/// A device of the modern suites, online with a session of 1,000 seconds.
fn modern() -> Bench {
    let mut bench = Bench { session: Session::modern(), now: Instant::now() };
    bench.authenticate(Ok(modern_grant(bench.now)));
    bench.log_in();
    bench
}

fn modern_grant(now: Instant) -> Grant {
    let seconds = Duration::from_secs;
    let admission = Admission::ending(now + seconds(800), now + seconds(1000));
    let secret = Secret::Modern(Box::new(admission));
    Grant::modern(Access { dev_id: dev_id('1'), secret, address: "das".into(), port: 1 })
}

#[test]
fn osap_13_3_a_modern_session_is_gone_on_with_until_its_life_is_over() {
    let mut bench = modern();
    assert_eq!(bench.session.renew_at(), Some(bench.now + Duration::from_secs(800)));
    bench.later(999);
    bench.end(LOST);
    bench.expect_login(LIGHT);
    let mut bench = modern();
    bench.later(1000);
    bench.end(LOST);
    bench.expect_authentication(&Stored::Nothing, CodeCase::Upper);

    // A pause may outlast it, too.
    let mut bench = modern();
    bench.later(999);
    bench.end(LOST);
    bench.end(LOST);
    let (pause, _) = bench.wait();
    assert!(pause >= 1.0);
    bench.expect_authentication(&Stored::Nothing, CodeCase::Upper);
}

#[test]
fn osap_13_3_a_renewed_session_replaces_the_one_that_goes_on() {
    let mut bench = modern();
    bench.later(800);
    bench.session.handle_moved(None, modern_grant(bench.now));
    assert_eq!(bench.session.renew_at(), None, "one is enough");
    bench.end(LinkEnd::Left);
    bench.expect_login(FULL);
    assert_eq!(bench.session.renew_at(), Some(bench.now + Duration::from_secs(800)));
}

#[test]
fn osap_13_4_6_a_connack_is_a_hint_that_slows_a_modern_device_down() {
    let mut bench = modern();
    for code in [connack::BLACKLISTED, connack::SESSION_EXISTS] {
        bench.end(LOST);
        bench.end(LinkEnd::Refused(code));
        let (pause, reason) = bench.wait();
        assert!(pause > 0.0);
        assert_eq!(reason, Reason::LoginRefused(code));
        bench.log_in();
        bench.later(60);
    }
    bench.end(LinkEnd::Refused(connack::SESSION_UNKNOWN));
    bench.expect_authentication(&Stored::Nothing, CodeCase::Upper);
}
