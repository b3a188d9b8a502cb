//! Whose token it is, and for how long.

use std::sync::Arc;
use std::time::Duration;

use vestibule_platform::{
    AuditQuery, Caller, NewToken, NewUser, OrgPath, Permission, Platform, PlatformConfig, Principal, PrincipalError,
    Role, Secret,
};

use crate::bed::{Bed, Plan};

pub fn new_token(name: &str, role: Role) -> NewToken {
    NewToken { name: name.into(), role, subtree: None, expires_in: None }
}

fn org(path: &str) -> OrgPath {
    OrgPath::parse(path).expect("a place")
}

/// Makes a token; gives what it shows.
pub async fn make(platform: &Platform, name: &str, role: Role, subtree: &str, by: &Caller) -> String {
    let new = NewToken { subtree: Some(org(subtree)), ..new_token(name, role) };
    platform.add_token(new, by).await.expect("made").1.to_string()
}

fn names(tokens: &[Arc<Principal>]) -> Vec<&str> {
    tokens.iter().map(|token| &*token.name).collect()
}

#[tokio::test]
async fn the_token_of_the_data_directory_may_do_everything_and_nothing_else_anything() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = vestibule_platform::TokenFile::open(&dir.path().join("token")).expect("made");
    let bed = Bed::new().await;
    assert!(bed.platform.authorize(file.reveal()).is_none(), "the token of another directory");
    let own = bed.token();
    let caller = bed.platform.authorize(&own).expect("known");
    assert!(Permission::ALL.iter().all(|permission| caller.may(*permission)));
    for wrong in ["", &own[1..], &own.to_uppercase(), &format!("{own}0"), &format!("{own}\n"), &"0".repeat(own.len())] {
        assert!(bed.platform.authorize(wrong).is_none(), "{wrong:?}");
    }
    let bed = bed.restart().await;
    assert!(bed.platform.authorize(&own).is_some(), "it is made once");
}

#[tokio::test]
async fn a_token_is_its_role_and_its_place_also_after_a_restart() {
    let bed = Bed::new().await;
    let admin = bed.caller();
    let viewer = make(&bed.platform, "v", Role::Viewer, "/", &admin).await;
    let bound = make(&bed.platform, "b", Role::Operator, "/a/b", &admin).await;
    let bed = bed.restart().await;
    let (viewer, bound) = [viewer, bound].map(|token| bed.platform.authorize(&token).expect("known")).into();
    assert_eq!((viewer.name(), viewer.role(), viewer.subtree().as_str()), ("v", Role::Viewer, "/"));
    assert_eq!((bound.name(), bound.role(), bound.subtree().as_str()), ("b", Role::Operator, "/a/b"));
    assert!(viewer.may(Permission::EventsRead) && !viewer.may(Permission::OperationsInvoke));
    assert!(bound.may(Permission::OperationsInvoke) && !bound.may(Permission::TokensManage));
    assert!(viewer.may(Permission::MetricsRead) && !bound.may(Permission::MetricsRead), "they are of the whole");
}

#[tokio::test]
async fn a_removed_token_is_nobodys_at_once_and_for_good() {
    let bed = Bed::new().await;
    let admin = bed.caller();
    let token = make(&bed.platform, "ci", Role::Admin, "/", &admin).await;
    let caller = bed.platform.authorize(&token).expect("known");
    assert!(caller.is_current(bed.now()));
    assert!(bed.platform.remove_token("ci", &admin).await.expect("stored"));
    assert!(!caller.is_current(bed.now()), "what goes on with it ends");
    assert!(bed.platform.authorize(&token).is_none());
    assert!(!bed.platform.remove_token("ci", &admin).await.expect("stored"));
    let bed = bed.restart().await;
    assert!(bed.platform.authorize(&token).is_none() && bed.platform.tokens(None, 10, &bed.caller()).is_empty());
    let again = make(&bed.platform, "ci", Role::Admin, "/", &bed.caller()).await;
    assert_ne!(again, token, "the name is free, the secret is another");
}

#[tokio::test]
async fn a_token_ends_when_its_time_is_over() {
    let bed = Bed::new().await;
    let admin = bed.caller();
    let new = NewToken { expires_in: Some(Duration::from_secs(60)), ..new_token("t", Role::Viewer) };
    let (shown, token) = bed.platform.add_token(new, &admin).await.expect("made");
    assert_eq!(shown.expires, Some(bed.now() + 60_000));
    let caller = bed.platform.authorize(&token).expect("known");
    bed.advance(Duration::from_millis(59_999));
    assert!(bed.platform.authorize(&token).is_some() && caller.is_current(bed.now()));
    bed.advance(Duration::from_millis(1));
    assert!(bed.platform.authorize(&token).is_none() && !caller.is_current(bed.now()));
    let bed = bed.restart().await;
    assert!(bed.platform.authorize(&token).is_none());
    assert_eq!(names(&bed.platform.tokens(None, 10, &bed.caller())), ["t"], "it is shown until it is removed");
}

#[tokio::test]
async fn the_last_use_is_known_coarsely_and_survives() {
    let bed = Bed::new().await;
    let token = make(&bed.platform, "t", Role::Viewer, "/", &bed.caller()).await;
    let last = |bed: &Bed| bed.platform.tokens(None, 1, &bed.caller())[0].last_used();
    assert_eq!(last(&bed), None);
    let first = bed.now();
    for (after, expected) in [(0, first), (59, first), (1, first + 60_000)] {
        bed.advance(Duration::from_secs(after));
        bed.platform.authorize(&token).expect("known");
        assert_eq!(last(&bed), Some(expected));
    }
    let bed = bed.restart().await;
    assert_eq!(last(&bed), Some(first + 60_000));
}

#[tokio::test]
async fn what_cannot_be_a_token_is_refused() {
    let bed = Bed::new().await;
    let admin = bed.caller();
    let field = async |new: NewToken, by: &Caller| match bed.platform.add_token(new, by).await {
        Err(PrincipalError::Invalid { field, .. }) => field,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was made"),
    };
    for name in ["", "administrator", " a", "a\nb"] {
        assert_eq!(field(new_token(name, Role::Viewer), &admin).await, "name", "{name:?}");
    }
    for expires_in in [Duration::ZERO, Duration::from_secs(3_651 * 24 * 3_600)] {
        let new = NewToken { expires_in: Some(expires_in), ..new_token("t", Role::Viewer) };
        assert_eq!(field(new, &admin).await, "expires_in");
    }
    let bound = make(&bed.platform, "bound", Role::Admin, "/a", &admin).await;
    let bound = bed.platform.authorize(&bound).expect("known");
    for above in ["/", "/b", "/ab"] {
        let new = NewToken { subtree: Some(org(above)), ..new_token("t", Role::Viewer) };
        assert_eq!(field(new, &bound).await, "subtree", "{above}");
    }
    let taken = bed.platform.add_token(new_token("bound", Role::Viewer), &admin).await;
    assert!(matches!(taken, Err(PrincipalError::NameTaken)));
    let (inherited, _) = bed.platform.add_token(new_token("t", Role::Viewer), &bound).await.expect("made");
    assert_eq!(inherited.subtree, org("/a"), "without a place it is that of who made it");
}

#[tokio::test]
async fn who_is_bound_to_a_place_sees_the_tokens_of_that_place_only() {
    let bed = Bed::new().await;
    let admin = bed.caller();
    for (name, subtree) in [("all", "/"), ("a", "/a"), ("deep", "/a/b"), ("other", "/b")] {
        make(&bed.platform, name, Role::Admin, subtree, &admin).await;
    }
    let bound = make(&bed.platform, "bound", Role::Admin, "/a", &admin).await;
    let bound = bed.platform.authorize(&bound).expect("known");
    assert_eq!(names(&bed.platform.tokens(None, 10, &bound)), ["a", "deep", "bound"]);
    let first = bed.platform.tokens(None, 1, &bound);
    assert_eq!(names(&bed.platform.tokens(Some(first[0].id), 1, &bound)), ["deep"]);
    for name in ["all", "other"] {
        assert!(!bed.platform.remove_token(name, &bound).await.expect("stored"), "{name}");
    }
    assert!(bed.platform.remove_token(&first[0].id.to_string(), &bound).await.expect("stored"));
    let rows = bed.platform.audits(&AuditQuery { limit: 10, ..AuditQuery::default() }, &bound).await.expect("readable");
    let deeds: Vec<_> = rows.iter().map(|row| (&*row.actor, &*row.action)).collect();
    let made = ("administrator", "token.add");
    assert_eq!(deeds, [("bound", "token.remove"), made, made, made]);
    assert!(!rows.iter().any(|row| row.detail.contains("vst_")));
}

#[tokio::test]
async fn a_token_is_used_so_often_in_a_second_and_the_administrators_as_one_likes() {
    let platform = PlatformConfig { requests_per_second: 10, ..PlatformConfig::default() };
    let bed = Bed::with(Plan { platform, ..Plan::default() }).await;
    let mut callers = Vec::new();
    for name in ["one", "other"] {
        let token = make(&bed.platform, name, Role::Viewer, "/", &bed.caller()).await;
        callers.push(bed.platform.authorize(&token).expect("known"));
    }
    for _ in 0..100 {
        assert_eq!(bed.platform.count_request(&callers[0]), Ok(()));
    }
    assert_eq!(bed.platform.count_request(&callers[0]), Err(Duration::from_millis(100)));
    assert_eq!(bed.platform.count_request(&callers[1]), Ok(()), "each has its own");
    bed.advance(Duration::from_millis(100));
    assert_eq!(bed.platform.count_request(&callers[0]), Ok(()));
    for _ in 0..1_000 {
        assert_eq!(bed.platform.count_request(&bed.caller()), Ok(()));
    }
}

#[tokio::test]
async fn a_token_that_ends_makes_nothing_that_goes_on_without_it() {
    let bed = Bed::new().await;
    let platform = &bed.platform;
    let minute = NewToken { expires_in: Some(Duration::from_secs(60)), ..new_token("minute", Role::Admin) };
    let (minute, shown) = platform.add_token(minute, &bed.caller()).await.expect("made");
    let by = platform.authorize(&shown).expect("known");
    bed.advance(Duration::from_secs(10));

    let (made, _) = platform.add_token(new_token("as long", Role::Admin), &by).await.expect("made");
    assert_eq!(made.expires, minute.expires, "which said nothing of an end");
    let after = |name: &str, seconds| NewToken {
        expires_in: Some(Duration::from_secs(seconds)),
        ..new_token(name, Role::Viewer)
    };
    platform.add_token(after("shorter", 50), &by).await.expect("not beyond");
    let refused = platform.add_token(after("longer", 51), &by).await;
    assert!(matches!(refused, Err(PrincipalError::Invalid { field: "expires_in", .. })));

    let user = |name: &str| NewUser {
        name: name.into(),
        password: Secret::new("correct horse"),
        role: Role::Admin,
        subtree: None,
    };
    assert!(matches!(platform.add_user(user("otto"), &by).await, Err(PrincipalError::Ending)), "people do not end");
    platform.add_user(user("anna"), &bed.caller()).await.expect("added");
    let refused = platform.set_password("anna", Secret::new("another password"), &by).await;
    assert!(matches!(refused, Err(PrincipalError::Ending)), "nor would whoever becomes one of them");

    let home = std::net::Ipv4Addr::LOCALHOST.into();
    let session = platform.log_in("anna", Secret::new("correct horse"), home).await.expect("logged in");
    let anna = platform.authorize(&session.token).expect("known");
    let (made, _) = platform.add_token(new_token("anna's", Role::Admin), &anna).await.expect("made");
    assert_eq!(made.expires, None, "her session ends, her rights do not");
}
