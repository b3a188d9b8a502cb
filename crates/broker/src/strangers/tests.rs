use super::*;
use crate::inflight::Inflight;

const PATIENCE: Duration = Duration::from_secs(3);

fn limits(total: usize, of_network: usize) -> Limits {
    Limits { total, of_network, patience: PATIENCE }
}

fn link(address: &str) -> Arc<Link> {
    let address: IpAddr = address.parse().expect("an address");
    Link::new((address, 1).into(), 1 << 10, Inflight::new(1, None))
}

/// A link with a place in the crowd.
fn enter<'a>(
    strangers: &'a Strangers,
    address: &str,
    limits: Limits,
    now: Instant,
) -> Result<(Arc<Link>, Place<'a>), &'static str> {
    let link = link(address);
    let place = strangers.enter(&link, limits, now)?;
    Ok((link, place))
}

#[test]
fn who_gets_further_stays_and_a_newcomer_of_a_full_network_is_refused() {
    let (strangers, now) = (Strangers::default(), Instant::now());
    let at = |address, ms| enter(&strangers, address, limits(400, 2), now + Duration::from_millis(ms));
    let first = at("192.0.2.1", 0).expect("a place");
    let (_, mut second) = at("::ffff:192.0.2.200", 0).expect("a place");
    assert_eq!(at("192.0.2.3", 2_999).err(), Some("tls_handshakes_of_network"));
    assert!(at("192.0.3.1", 2_999).is_ok(), "the next network");
    assert!(at("2001:db8::1", 2_999).is_ok(), "a /64");
    second.advance(now + Duration::from_millis(2_999));
    // Who has said nothing for too long makes room, once; who got further does not.
    let third = at("192.0.2.3", 3_000).expect("a place");
    assert!(first.0.is_ending() && !third.0.is_ending());
    assert_eq!(at("192.0.2.4", 3_000).err(), Some("tls_handshakes_of_network"));
    drop(first);
    assert_eq!(at("192.0.2.4", 3_000).err(), Some("tls_handshakes_of_network"), "its place was given away before");
    drop(second);
    assert!(at("192.0.2.4", 3_000).is_ok());
}

#[test]
fn many_networks_share_what_there_is_and_the_one_with_most_makes_room() {
    let (strangers, now) = (Strangers::default(), Instant::now());
    let at = |address: &str| enter(&strangers, address, limits(48, 10), now);
    let crowd: Vec<_> = (0..10).map(|n| at(&format!("192.0.2.{n}")).expect("a place")).collect();
    let others: Vec<_> = (0..2).map(|n| at(&format!("198.51.100.{n}")).expect("a place")).collect();
    // Three quarters of the 48 are kept: from here on the largest makes room, its oldest first, until it has no more than others.
    let newcomers: Vec<_> = (0..8).map(|n| at(&format!("203.0.{n}.1")).expect("a place")).collect();
    assert_eq!(
        crowd.iter().map(|(link, _)| link.is_ending()).collect::<Vec<_>>(),
        [true, true, true, true, true, true, true, true, false, false]
    );
    assert!(others.iter().chain(&newcomers).all(|(link, _)| !link.is_ending()));
    // Networks with two make room for those with none, but not for one that would have as many.
    assert_eq!(at("203.0.1.2").err(), Some("tls_handshakes"));
    at("203.0.9.1").expect("a place");
    assert_eq!(strangers.unknown.lock().total, 11, "one has left again");
    let all = (crowd, others, newcomers);
    drop(all);
    let here = strangers.unknown.lock();
    assert_eq!((here.total, here.networks.len(), here.ranked.len()), (0, 0, 0));
}

#[test]
fn an_address_that_has_logged_in_finds_room_where_strangers_find_none() {
    let (strangers, now) = (Strangers::default(), Instant::now());
    let at = |address: &str| enter(&strangers, address, limits(24, 3), now);
    at("192.0.2.1").expect("a place").1.keep();
    assert_eq!(strangers.unknown.lock().total, 0, "who has logged in is a stranger no longer");
    // As many networks as there are places, each with one.
    let crowd: Vec<_> = (0..6).map(|n| at(&format!("203.0.{n}.1")).expect("a place")).collect();
    assert_eq!(at("198.51.100.1").err(), Some("tls_handshakes"));
    let device = at("192.0.2.1").expect("a place of those that are kept");
    assert_eq!(at("192.0.2.2").err(), Some("tls_handshakes"), "its neighbour is not known");
    drop((crowd, device));
    // Nor is there a limit for the one network that it may be all of.
    let fleet: Vec<_> = (0..18).map(|_| at("192.0.2.1").expect("a place")).collect();
    assert_eq!(at("192.0.2.1").err(), Some("tls_handshakes"));
    // It takes nobody's place, and nobody takes its own.
    let _others: Vec<_> = (0..6).map(|n| at(&format!("203.0.{n}.1")).expect("a place")).collect();
    assert_eq!(at("198.51.100.1").err(), Some("tls_handshakes"));
    assert!(fleet.iter().all(|(link, _)| !link.is_ending()));
    // Another address that is known finds room, at the cost of the larger one.
    strangers.vouch("192.0.9.1".parse().expect("an address"));
    at("192.0.9.1").expect("a place");
    assert_eq!(fleet.iter().filter(|(link, _)| link.is_ending()).count(), 1);
}

#[test]
fn a_storm_of_one_address_gets_in_and_nothing_that_was_begun_is_cut_off() {
    // 8,000 come back at once, each round trip takes 100 ms, and who is refused comes again after a second and more.
    let (strangers, start) = (Strangers::default(), Instant::now());
    let mut coming: BTreeMap<u64, u32> = BTreeMap::from([(0, 8_000)]);
    let mut shaking: Vec<(u64, Arc<Link>, Place<'_>)> = Vec::new();
    let (mut inside, mut ms) = (0, 0);
    while inside < 8_000 {
        let now = start + Duration::from_millis(ms);
        for _ in 0..coming.remove(&ms).unwrap_or(0) {
            match enter(&strangers, "192.0.2.1", limits(1_024, 256), now) {
                Ok((link, place)) => shaking.push((ms + 300, link, place)),
                Err(_) => *coming.entry(ms + 1_000 + 50 * (inside % 20)).or_default() += 1,
            }
        }
        let (done, left) = shaking.into_iter().partition(|(end, ..)| *end <= ms);
        shaking = left;
        for (_, link, place) in Vec::from_iter::<Vec<_>>(done) {
            assert!(!link.is_ending());
            place.keep();
            inside += 1;
        }
        ms += 50;
        assert!(ms < 60_000, "{inside} are in after a minute");
    }
}
