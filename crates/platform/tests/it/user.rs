//! People log in, and out.

use std::net::{IpAddr, Ipv4Addr};
use std::task::Poll;
use std::time::Duration;

use vestibule_platform::{AuditQuery, AuditRow, Caller, LoginError, NewUser, PrincipalError, Role, Secret, Session};

use crate::bed::Bed;

const PASSWORD: &str = "correct horse";
const HOME: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
const ELSEWHERE: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));

fn new_user(name: &str, password: &str) -> NewUser {
    NewUser { name: name.into(), password: Secret::new(password), role: Role::Operator, subtree: None }
}

async fn add(bed: &Bed, name: &str) {
    bed.platform.add_user(new_user(name, PASSWORD), &bed.caller()).await.expect("added");
}

async fn log_in(bed: &Bed, name: &str, password: &str) -> Result<Session, LoginError> {
    bed.platform.log_in(name, Secret::new(password), HOME).await
}

async fn caller(bed: &Bed, name: &str, password: &str) -> (Caller, String) {
    let token = log_in(bed, name, password).await.unwrap_or_else(|error| panic!("{error}")).token.to_string();
    (bed.platform.authorize(&token).expect("logged in"), token)
}

#[tokio::test]
async fn a_session_is_its_users_for_twelve_hours_also_over_a_restart() {
    let bed = Bed::new().await;
    add(&bed, "anna").await;
    let (anna, token) = caller(&bed, "anna", PASSWORD).await;
    assert_eq!((anna.name(), anna.role(), anna.is_user()), ("anna", Role::Operator, true));
    let bed = bed.restart().await;
    bed.advance(Duration::from_secs(12 * 3_600 - 1));
    assert!(bed.platform.authorize(&token).is_some());
    bed.advance(Duration::from_secs(1));
    assert!(bed.platform.authorize(&token).is_none() && !anna.is_current(bed.now()));
}

#[tokio::test]
async fn who_logs_out_or_is_removed_is_nobody_at_once() {
    let bed = Bed::new().await;
    add(&bed, "anna").await;
    let ((first, first_token), (second, second_token)) =
        (caller(&bed, "anna", PASSWORD).await, caller(&bed, "anna", PASSWORD).await);
    assert!(bed.platform.log_out(&first).await.expect("stored"));
    assert!(bed.platform.authorize(&first_token).is_none() && bed.platform.authorize(&second_token).is_some());
    assert!(!bed.platform.log_out(&bed.caller()).await.expect("stored"), "the administrator has no session");
    assert!(bed.platform.remove_user("anna", &bed.caller()).await.expect("stored"));
    assert!(bed.platform.authorize(&second_token).is_none() && !second.is_current(bed.now()));
    assert!(matches!(log_in(&bed, "anna", PASSWORD).await, Err(LoginError::Refused)));
    let bed = bed.restart().await;
    assert!(bed.platform.authorize(&second_token).is_none() && bed.platform.users(None, 9, &bed.caller()).is_empty());
}

#[tokio::test]
async fn another_password_ends_the_other_sessions() {
    let bed = Bed::new().await;
    add(&bed, "anna").await;
    let ((own, own_token), (_, other_token)) =
        (caller(&bed, "anna", PASSWORD).await, caller(&bed, "anna", PASSWORD).await);
    let change = async |current: &str, new: &str, by: &Caller| {
        bed.platform.change_password(Secret::new(current), Secret::new(new), by, HOME).await
    };
    assert!(matches!(change("wrong password", "another password", &own).await, Err(LoginError::Refused)));
    assert!(matches!(change(PASSWORD, "short", &own).await, Err(LoginError::Invalid { field: "password", .. })));
    assert!(matches!(change(PASSWORD, "another password", &bed.caller()).await, Err(LoginError::NoUser)));
    change(PASSWORD, "another password", &own).await.expect("changed");
    assert!(bed.platform.authorize(&own_token).is_some() && bed.platform.authorize(&other_token).is_none());
    assert!(matches!(log_in(&bed, "anna", PASSWORD).await, Err(LoginError::Refused)));
    let bed = bed.restart().await;
    assert!(bed.platform.authorize(&own_token).is_some() && bed.platform.authorize(&other_token).is_none());
    let set = bed.platform.set_password("anna", Secret::new("a third password"), &bed.caller()).await;
    assert!(set.expect("stored") && bed.platform.authorize(&own_token).is_none());
    log_in(&bed, "anna", "a third password").await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn who_logs_in_while_the_password_is_changed_is_in_for_good_or_not_at_all() {
    let bed = Bed::new().await;
    add(&bed, "anna").await;
    let mut sessions = Vec::new();
    for n in 0..4 {
        let (old, new) = (format!("{PASSWORD} {n}"), format!("{PASSWORD} {}", n + 1));
        let admin = bed.caller();
        let set = async |password: &str| bed.platform.set_password("anna", Secret::new(password), &admin).await;
        set(&old).await.expect("stored");
        let (session, set) = tokio::join!(log_in(&bed, "anna", &old), set(&new));
        assert!(set.expect("stored"));
        sessions.extend(session.ok().map(|session| session.token));
        log_in(&bed, "anna", &new).await.unwrap_or_else(|error| panic!("{error}"));
    }
    // Each was ended by the next password, at the latest.
    bed.platform.set_password("anna", Secret::new(PASSWORD), &bed.caller()).await.expect("stored");
    assert!(sessions.iter().all(|token| bed.platform.authorize(token).is_none()));
    let bed = bed.restart().await;
    assert!(sessions.iter().all(|token| bed.platform.authorize(token).is_none()), "one has come back");
}

#[tokio::test]
async fn two_passwords_at_once_leave_one_that_lets_in() {
    let bed = Bed::new().await;
    add(&bed, "anna").await;
    let admin = bed.caller();
    let set = async |password: &str| bed.platform.set_password("anna", Secret::new(password), &admin).await;
    for _ in 0..3 {
        let (one, other) = tokio::join!(set("the one password"), set("the other password"));
        assert!(one.expect("stored") && other.expect("stored"));
        let (one, other) =
            (log_in(&bed, "anna", "the one password").await, log_in(&bed, "anna", "the other password").await);
        assert!(one.is_ok() != other.is_ok(), "the store and the memory have the same");
    }
}

#[tokio::test]
async fn wrong_passwords_are_looked_at_a_few_times_only() {
    let bed = Bed::new().await;
    add(&bed, "anna").await;
    add(&bed, "otto").await;
    for name in ["anna", "nobody"] {
        for _ in 0..10 {
            assert!(matches!(log_in(&bed, name, "wrong password").await, Err(LoginError::Refused)), "{name}");
        }
        let refused = log_in(&bed, name, PASSWORD).await;
        let Err(LoginError::TooManyFailures { after }) = refused else { panic!("{name}: the eleventh is looked at") };
        assert_eq!(after, Duration::from_secs(120), "{name}");
    }
    for _ in 0..12 {
        log_in(&bed, "otto", PASSWORD).await.expect("the right one counts nowhere");
    }
    let elsewhere = bed.platform.log_in("anna", Secret::new(PASSWORD), ELSEWHERE).await;
    assert!(elsewhere.is_ok(), "who tries a name does not shut out whose it is");
    bed.advance(Duration::from_secs(120));
    log_in(&bed, "anna", PASSWORD).await.unwrap_or_else(|error| panic!("{error}"));
    let rows = refused(&bed, 10).await;
    assert!(rows.len() == 10 && rows.iter().all(|row| row.actor == "anna" && !row.ok), "of nobody's nothing is kept");
}

/// The rows of the audit about wrong passwords, once there are so many: they are written down beside the answers.
async fn refused(bed: &Bed, count: usize) -> Vec<AuditRow> {
    let query = AuditQuery { action: Some("session.refused".into()), limit: 100, ..AuditQuery::default() };
    loop {
        let rows = bed.platform.audits(&query, &bed.caller()).await.expect("readable");
        if rows.len() >= count {
            return rows;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn who_hangs_up_while_a_password_is_looked_at_has_tried_it() {
    let bed = Bed::new().await;
    add(&bed, "anna").await;
    for tried in 1..=10 {
        let mut trying = Box::pin(log_in(&bed, "anna", "wrong password"));
        assert!(std::future::poll_fn(|cx| Poll::Ready(trying.as_mut().poll(cx).is_pending())).await);
        drop(trying);
        refused(&bed, tried).await;
    }
    assert!(matches!(log_in(&bed, "anna", PASSWORD).await, Err(LoginError::TooManyFailures { .. })));
}

#[tokio::test]
async fn who_is_logged_in_may_change_the_password_whatever_others_try() {
    let bed = Bed::new().await;
    add(&bed, "anna").await;
    let (anna, _) = caller(&bed, "anna", PASSWORD).await;
    for _ in 0..10 {
        assert!(matches!(log_in(&bed, "anna", "wrong password").await, Err(LoginError::Refused)));
    }
    let change = async |current: &str| {
        bed.platform.change_password(Secret::new(current), Secret::new("another password"), &anna, HOME).await
    };
    for _ in 0..10 {
        assert!(matches!(change("wrong password").await, Err(LoginError::Refused)));
    }
    assert!(matches!(change(PASSWORD).await, Err(LoginError::TooManyFailures { .. })), "a session that was left open");
    bed.advance(Duration::from_secs(120));
    change(PASSWORD).await.unwrap_or_else(|error| panic!("{error}"));
}

#[tokio::test]
async fn what_cannot_be_a_user_is_refused() {
    let bed = Bed::new().await;
    add(&bed, "anna").await;
    let refused = async |new: NewUser| bed.platform.add_user(new, &bed.caller()).await.err().expect("refused");
    assert!(matches!(refused(new_user("a", "ninechars")).await, PrincipalError::Invalid { field: "password", .. }));
    assert!(matches!(refused(new_user("program", PASSWORD)).await, PrincipalError::Invalid { field: "name", .. }));
    assert!(matches!(refused(new_user("anna", PASSWORD)).await, PrincipalError::NameTaken));
    let id = bed.platform.users(None, 1, &bed.caller())[0].id.to_string();
    assert!(matches!(log_in(&bed, &id, PASSWORD).await, Err(LoginError::Refused)), "an id is no name");
    assert!(!bed.platform.remove_token("anna", &bed.caller()).await.expect("stored"), "nor is a user a token");
}

#[tokio::test]
async fn a_user_has_so_many_sessions_and_the_oldest_ends() {
    let bed = Bed::new().await;
    add(&bed, "anna").await;
    let mut tokens = Vec::new();
    for _ in 0..33 {
        tokens.push(caller(&bed, "anna", PASSWORD).await.1);
        bed.advance(Duration::from_millis(1));
    }
    let known = |bed: &Bed| tokens.iter().filter(|token| bed.platform.authorize(token).is_some()).count();
    assert!(bed.platform.authorize(&tokens[0]).is_none() && known(&bed) == 32);
    let bed = bed.restart().await;
    assert_eq!(known(&bed), 32);
}
