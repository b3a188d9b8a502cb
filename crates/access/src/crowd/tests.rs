use std::net::IpAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;

use super::*;

fn from(c: u8, d: u8) -> Origin {
    Origin::from(IpAddr::from([10, 0, c, d]))
}

fn v6(text: &str) -> Origin {
    Origin::from(text.parse::<IpAddr>().expect("an address"))
}

fn crowd(total: usize, per_host: usize, per_site: usize) -> Crowd {
    Crowd::new(Limits { total, per_host, per_site })
}

impl Notice {
    /// Whether the connection is to be closed.
    fn was_given(self) -> bool {
        pin!(self.given()).poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }
}

/// Enters and proves who it is.
fn known(crowd: &Crowd, origin: Origin) -> Option<Place<'_>> {
    let (place, _) = crowd.enter(origin)?;
    place.keep();
    Some(place)
}

#[test]
fn neither_a_host_nor_a_site_takes_every_place() {
    let crowd = crowd(10, 2, 3);
    let first = known(&crowd, from(1, 1)).expect("room");
    let _second = known(&crowd, from(1, 1)).expect("room");
    assert!(crowd.enter(from(1, 1)).is_none());
    let third = known(&crowd, from(1, 2)).expect("room for a neighbour");
    assert!(crowd.enter(from(1, 3)).is_none(), "the site has its three");
    let _other = known(&crowd, from(2, 1)).expect("room for another site");
    drop(first);
    assert!(crowd.enter(from(1, 3)).is_some());
    drop(third);
    let here = crowd.here.lock();
    assert_eq!((here.total, here.hosts.len(), here.sites.len()), (2, 2, 2), "who is gone is forgotten");
}

#[test]
fn a_host_has_a_64_and_a_site_a_48_of_ipv6() {
    let crowd = crowd(10, 2, 3);
    let _held = ["2001:db8:0:1::1", "2001:db8:0:1::2"].map(|peer| known(&crowd, v6(peer)).expect("room"));
    assert!(crowd.enter(v6("2001:db8:0:1:ffff::3")).is_none(), "as one host");
    let _third = known(&crowd, v6("2001:db8:0:2::1")).expect("room");
    assert!(crowd.enter(v6("2001:db8:0:3::1")).is_none(), "as one site");
    assert!(crowd.enter(v6("2001:db8:1::1")).is_some());
}

#[test]
fn the_oldest_of_the_site_with_most_strangers_makes_room() {
    let crowd = crowd(6, 6, 6);
    let (one, one_told) = crowd.enter(from(1, 1)).expect("room");
    let (_two, two_told) = crowd.enter(from(2, 1)).expect("room");
    let (_three, three_told) = crowd.enter(from(2, 2)).expect("room");
    // More than those of the second site, and all of them are known.
    let _known = [3, 4, 5].map(|host| known(&crowd, from(3, host)).expect("room"));
    let (_four, four_told) = crowd.enter(from(4, 1)).expect("somebody makes room");
    assert!(two_told.was_given());
    // As many in each: the oldest of all.
    let (_five, five_told) = crowd.enter(from(5, 1)).expect("somebody makes room");
    assert!(one_told.was_given());
    one.keep();
    drop(one);
    assert_eq!(crowd.here.lock().total, 6, "its place is another's already");
    let _six = known(&crowd, from(6, 1)).expect("somebody makes room");
    assert!(three_told.was_given());
    for told in [four_told, five_told] {
        assert!(!told.was_given());
    }
}

#[test]
fn who_gets_further_goes_to_the_end_of_the_line() {
    let crowd = crowd(3, 3, 3);
    let (first, first_told) = crowd.enter(from(1, 1)).expect("room");
    let (_second, second_told) = crowd.enter(from(1, 2)).expect("room");
    let (third, third_told) = crowd.enter(from(1, 3)).expect("room");
    first.advance();
    third.keep();
    third.advance();
    let (_fourth, fourth_told) = crowd.enter(from(2, 1)).expect("who stands still makes room");
    assert!(second_told.was_given());
    let (_fifth, fifth_told) = crowd.enter(from(3, 1)).expect("of sites with as many, who stands still for longest");
    assert!(first_told.was_given());
    first.advance();
    first.keep();
    drop((first, third));
    assert_eq!(crowd.here.lock().total, 2, "whoever was asked to leave is not kept");
    for told in [third_told, fourth_told, fifth_told] {
        assert!(!told.was_given());
    }
}

#[test]
fn a_host_and_a_site_with_their_limit_make_room_for_themselves() {
    let crowd = crowd(10, 2, 3);
    let (_first, first_told) = crowd.enter(from(1, 1)).expect("room");
    let (_second, second_told) = crowd.enter(from(1, 2)).expect("room");
    let (_third, third_told) = crowd.enter(from(1, 2)).expect("room");
    let (_fourth, fourth_told) = crowd.enter(from(1, 2)).expect("its oldest makes room");
    assert!(second_told.was_given());
    let (_fifth, fifth_told) = crowd.enter(from(1, 3)).expect("the oldest of the site makes room");
    assert!(first_told.was_given());
    for told in [third_told, fourth_told, fifth_told] {
        assert!(!told.was_given());
    }
}

#[test]
fn nobody_who_is_known_makes_room() {
    let crowd = crowd(2, 2, 2);
    let places = [1, 2].map(|site| crowd.enter(from(site, 1)).expect("room"));
    places.iter().for_each(|(place, _)| {
        place.keep();
        place.keep();
    });
    assert!(crowd.enter(from(3, 1)).is_none());
    for (place, told) in places {
        assert!(!told.was_given());
        drop(place);
    }
    let here = crowd.here.lock();
    assert_eq!((here.total, here.hosts.len(), here.sites.len(), here.strangers.len()), (0, 0, 0, 0));
}

proptest! {
    /// Against every connection by itself: no limit is passed, nobody is asked to leave without need, and in the end
    /// nothing is left.
    #[test]
    fn what_is_counted_is_what_is_here(steps in prop::collection::vec((0u8..4, 0u8..4, 0u8..4), 1..200)) {
        let limits = Limits { total: 8, per_host: 3, per_site: 5 };
        let crowd = Crowd::new(limits);
        let mut places: Vec<(Origin, Place<'_>, Option<Notice>)> = Vec::new();
        for (site, host, what) in steps {
            let origin = from(site, host);
            match what {
                0 => if let Some((place, notice)) = crowd.enter(origin) {
                    places.push((origin, place, Some(notice)));
                },
                1 => if let Some(it) = places.iter_mut().find(|it| it.0 == origin && it.2.is_some()) {
                    it.1.keep();
                    it.2 = None;
                },
                2 => if let Some(it) = places.iter().find(|it| it.0 == origin) {
                    it.1.advance();
                },
                _ => if let Some(at) = places.iter().position(|it| it.0 == origin) {
                    places.swap_remove(at);
                },
            }
            // Who was asked to leave goes.
            places.retain_mut(|it| {
                let told = it.2.as_mut().map(|notice| notice.0.try_recv());
                told != Some(Ok(()))
            });
            let of = |same: &dyn Fn(&Origin) -> bool| places.iter().filter(|it| same(&it.0)).count();
            let here = crowd.here.lock();
            prop_assert_eq!(here.total, places.len());
            prop_assert_eq!(here.of_host(origin.host()), of(&|it| it.host() == origin.host()));
            prop_assert_eq!(here.of_site(origin.site()), of(&|it| it.site() == origin.site()));
            prop_assert!(here.total <= 8 && here.of_host(origin.host()) <= 3 && here.of_site(origin.site()) <= 5);
            let strangers: usize = here.strangers.keys().map(|(count, _)| count).sum();
            prop_assert_eq!(strangers, places.iter().filter(|it| it.2.is_some()).count());
        }
        drop(places);
        let here = crowd.here.lock();
        prop_assert_eq!((here.total, here.hosts.len(), here.sites.len(), here.strangers.len()), (0, 0, 0, 0));
    }
}
