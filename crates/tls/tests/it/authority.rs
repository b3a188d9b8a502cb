//! The authority's own certificates over the years.

use vestibule_tls::{Authority, Ca, CertificateFacts, IssueError, Key, Purpose, Rank, covers, pem, read_pem};

use crate::pair::{DAY, NOW, again, authority, names, renew};

#[test]
fn a_first_start_makes_a_root_and_an_intermediate_and_nothing_more() {
    for purpose in [Purpose::Servers, Purpose::Devices] {
        let mut authority = Authority::new(purpose, []);
        assert_eq!(renew(&mut authority, NOW), 2);
        assert_eq!(renew(&mut authority, NOW), 0);
        let ranks: Vec<Rank> = authority.kept().iter().map(Ca::rank).collect();
        assert!(ranks.contains(&Rank::Root) && ranks.contains(&Rank::Intermediate));
    }
}

#[test]
fn what_was_kept_issues_what_verifies_as_before() {
    let first = authority(Purpose::Servers, NOW);
    let second = Authority::new(Purpose::Servers, first.kept().iter().map(|ca| again(Purpose::Servers, ca)));
    assert_eq!(first.anchors(NOW), second.anchors(NOW));
    let key = Key::generate().expect("a key");
    let chain = first.server_certificate(&key, &names(), NOW).expect("issued");
    assert!(!second.server_certificate_is_due(&chain, &names(), NOW));
    let kept = Key::from_pkcs8(key.pkcs8()).expect("kept");
    assert_eq!(kept.pkcs8(), key.pkcs8());
}

#[test]
fn a_server_certificate_is_renewed_well_before_its_end_and_for_another_name() {
    let servers = authority(Purpose::Servers, NOW);
    let key = Key::generate().expect("a key");
    let chain = servers.server_certificate(&key, &names(), NOW).expect("issued");
    let facts = CertificateFacts::read(&chain[0]).expect("ours");
    assert_eq!(facts.not_after, NOW + 90 * DAY);
    assert!(facts.not_before < NOW && facts.not_before > NOW - DAY);
    assert_eq!(facts.dns_names, ["lbs.example.org", "localhost"]);
    assert!(!servers.server_certificate_is_due(&chain, &names(), NOW + 59 * DAY));
    assert!(servers.server_certificate_is_due(&chain, &names(), NOW + 61 * DAY));
    assert!(servers.server_certificate_is_due(&chain, &["new.example.org".to_owned()], NOW));
    assert!(servers.server_certificate_is_due(&[], &names(), NOW));
    assert!(covers(&chain[0], "::1") && covers(&chain[0], "LBS.example.org") && !covers(&chain[0], "example.org"));
}

#[test]
fn over_decades_there_is_always_something_to_issue_with() {
    let mut servers = authority(Purpose::Servers, NOW);
    let key = Key::generate().expect("a key");
    for month in 0..600 {
        let now = NOW + month * 30 * DAY;
        renew(&mut servers, now);
        let chain = servers.server_certificate(&key, &names(), now).expect("issued");
        let ends = chain.iter().map(|der| CertificateFacts::read(der).expect("ours").not_after);
        assert!(ends.clone().next() == Some(now + 90 * DAY), "a whole life, after {month} months");
        assert!((1..=2).contains(&servers.anchors(now).len()));
    }
}

#[test]
fn a_clock_before_everything_issues_nothing() {
    let servers = authority(Purpose::Servers, NOW);
    let key = Key::generate().expect("a key");
    let refused = servers.server_certificate(&key, &names(), NOW - 30 * DAY);
    assert!(matches!(refused, Err(IssueError::NoIssuer)));
    // Nor does it make another root, or trust nobody.
    let early = NOW - 30 * DAY;
    assert_eq!(servers.due(early).expect("nothing").len(), 0);
    assert_eq!(servers.anchors(early).len(), 1);
    let chain = servers.server_certificate(&key, &names(), NOW).expect("issued");
    assert!(!servers.server_certificate_is_due(&chain, &names(), early));
}

#[test]
fn names_that_are_none_are_refused() {
    let servers = authority(Purpose::Servers, NOW);
    let key = Key::generate().expect("a key");
    for name in ["", "a b", "ü.example", "-", "a..b", "https://x"] {
        let refused = servers.server_certificate(&key, &[name.to_owned()], NOW);
        assert!(matches!(refused, Err(IssueError::Name(_))), "{name:?}");
    }
    let wild = servers.server_certificate(&key, &["*.example.org".to_owned()], NOW).expect("issued");
    assert!(covers(&wild[0], "a.example.org"));
}

#[test]
fn what_cannot_be_read_back_is_an_error() {
    let servers = authority(Purpose::Servers, NOW);
    let ca = &servers.kept()[0];
    let der = ca.certificate().to_vec();
    assert!(matches!(Ca::load(Purpose::Servers, ca.rank(), der.clone(), None), Err(IssueError::Key)));
    assert!(matches!(Ca::load(Purpose::Servers, ca.rank(), der.clone(), Some(b"no key")), Err(IssueError::Key)));
    assert!(matches!(Ca::load(Purpose::Servers, ca.rank(), vec![1], ca.key()), Err(IssueError::Certificate)));
    for at in 0..der.len() {
        // Whatever it says then, nothing panics.
        let mut changed = der.clone();
        changed[at] ^= 0x81;
        drop(CertificateFacts::read(&changed.into()));
        drop(CertificateFacts::read(&der[..at].into()));
    }
}

#[test]
fn pem_goes_there_and_back() {
    let servers = authority(Purpose::Servers, NOW);
    let all: Vec<_> = servers.kept().iter().map(|ca| ca.certificate().clone()).collect();
    let text = pem(&all);
    assert_eq!(read_pem(text.as_bytes()).expect("PEM"), all);
    assert!(text.is_ascii() && !text.contains('\r'));
    assert!(read_pem(b"nothing").is_err());
}

#[test]
fn of_many_roots_made_at_once_the_last_one_is_the_newest_in_whatever_order_they_are_read() {
    let mut servers = authority(Purpose::Servers, NOW);
    for _ in 0..5 {
        servers.roll(NOW).expect("made").into_iter().for_each(|ca| servers.add(ca));
    }
    let anchors = servers.anchors(NOW);
    assert_eq!(anchors.len(), 6, "the owner forgets what is one too many");
    let turned = Authority::new(Purpose::Servers, servers.kept().iter().rev().map(|ca| again(Purpose::Servers, ca)));
    assert_eq!(turned.anchors(NOW), anchors);
    let key = Key::generate().expect("a key");
    let chain = servers.server_certificate(&key, &names(), NOW).expect("issued");
    assert!(!turned.server_certificate_is_due(&chain, &names(), NOW));
}

#[test]
fn there_are_so_many_roots_and_what_hangs_on_one_goes_with_it() {
    for purpose in [Purpose::Servers, Purpose::Devices] {
        let mut authority = authority(purpose, NOW);
        for roll in 1..10 {
            authority.roll(NOW).expect("made").into_iter().for_each(|ca| authority.add(ca));
            let gone = authority.superseded();
            authority.remove(&gone);
            assert_eq!(authority.superseded(), [] as [String; 0]);
            assert_eq!(authority.anchors(NOW).len(), (roll + 1).min(4));
            // Each root, its intermediate, and for servers one certificate for each pair of roots.
            let (roots, pairs) = ((roll + 1).min(4), if purpose == Purpose::Servers { 6 } else { 0 });
            assert!(authority.kept().len() <= 2 * roots + pairs);
        }
        let newest =
            authority.kept().iter().find(|ca| ca.rank() == Rank::Root).expect("a root").facts().subject.clone();
        authority.due(NOW).expect("nothing");
        assert!(authority.kept().iter().any(|ca| ca.rank() == Rank::Intermediate && ca.facts().issuer == newest));
    }
}

#[test]
fn retiring_leaves_the_newest_root_and_what_hangs_on_it() {
    for purpose in [Purpose::Servers, Purpose::Devices] {
        let mut authority = authority(purpose, NOW);
        assert_eq!(authority.retiring(), [] as [String; 0]);
        for _ in 0..3 {
            assert!(!authority.is_full());
            authority.roll(NOW).expect("made").into_iter().for_each(|ca| authority.add(ca));
        }
        assert!(authority.is_full());
        let newest = authority.anchors(NOW).remove(0);
        let gone = authority.retiring();
        authority.remove(&gone);
        assert_eq!(authority.anchors(NOW), [newest]);
        let ranks: Vec<Rank> = authority.kept().iter().map(Ca::rank).collect();
        assert_eq!(ranks.len(), 2, "{ranks:?}");
        assert_eq!(authority.due(NOW).expect("nothing").len(), 0, "it issues");
    }
}
