//! Who is connected: how many one place may have, and who makes room when there is none.

use std::cmp::Reverse;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::origin::{Host, Origin, Site};

/// How many connections may be here at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) total: usize,
    pub(crate) per_host: usize,
    pub(crate) per_site: usize,
}

/// The connections that are here. Where they are too many, one whose device has not proven yet who it is makes room for each
/// newcomer: of the host, or of the site, that has its limit, and otherwise of the site that has most of them, who has got no
/// further for longest. A good device proves itself within some round trips, so that it is hardly ever one of them, and of
/// thousands that come at once those go on that have begun; and however many connections somebody opens, whether he says
/// nothing on them or sends what anybody could, he drives out his own.
///
/// As large as the number of connections.
pub(crate) struct Crowd {
    limits: Limits,
    here: Mutex<Here>,
}

#[derive(Default)]
struct Here {
    total: usize,
    /// Tells who got a step further last.
    next: u64,
    hosts: HashMap<Host, usize>,
    sites: HashMap<Site, Neighbours>,
    /// Sites with somebody who has proven nothing yet. The last one is to make room: it has most of them and, of several
    /// with as many, who stands still for longest.
    strangers: BTreeMap<Strangers, Site>,
}

/// How many of a site have proven nothing, and who of them stands still for longest.
type Strangers = (usize, Reverse<u64>);

/// Connections of one site.
#[derive(Default)]
struct Neighbours {
    /// Who has proven who they are.
    known: usize,
    /// Who has not; who has got no further for longest is first.
    strangers: BTreeMap<u64, Stranger>,
}

struct Stranger {
    host: Host,
    leave: oneshot::Sender<()>,
}

/// A place in the crowd; free again when dropped.
pub(crate) struct Place<'a> {
    crowd: &'a Crowd,
    number: AtomicU64,
    host: Host,
    site: Site,
    is_known: AtomicBool,
}

/// Tells a connection that it is to make room.
pub(crate) struct Notice(oneshot::Receiver<()>);

impl Notice {
    /// Ends when the connection is to be closed at once; never, if it is not.
    pub(crate) async fn given(self) {
        if self.0.await.is_err() {
            // Its device is known, and stays.
            future::pending().await
        }
    }
}

impl Neighbours {
    fn count(&self) -> usize {
        self.known + self.strangers.len()
    }

    fn ranked(&self) -> Option<Strangers> {
        self.strangers.first_key_value().map(|(oldest, _)| (self.strangers.len(), Reverse(*oldest)))
    }
}

impl Crowd {
    pub(crate) fn new(limits: Limits) -> Crowd {
        Crowd { limits, here: Mutex::default() }
    }

    /// A place for a peer from there; `None` when everybody who could make room for him is known.
    pub(crate) fn enter(&self, origin: Origin) -> Option<(Place<'_>, Notice)> {
        let (host, site) = (origin.host(), origin.site());
        let Limits { total, per_host, per_site } = self.limits;
        let mut here = self.here.lock();
        // From the narrowest to the widest: who leaves his host leaves its site, too.
        let makes_room = if here.of_host(host) >= per_host {
            let of_host = |neighbours: &Neighbours| {
                neighbours.strangers.iter().find(|(_, stranger)| stranger.host == host).map(|(number, _)| *number)
            };
            Some((site, here.sites.get(&site).and_then(of_host)?))
        } else if here.of_site(site) >= per_site {
            Some((site, here.sites.get(&site).and_then(Neighbours::ranked)?.1.0))
        } else if here.total >= total {
            let ((_, Reverse(oldest)), site) = here.strangers.last_key_value()?;
            Some((*site, *oldest))
        } else {
            None
        };
        if let Some((site, number)) = makes_room {
            here.make_leave(site, number);
        }
        let (leave, notice) = oneshot::channel();
        Some((
            Place { crowd: self, number: here.enter(host, site, leave).into(), host, site, is_known: false.into() },
            Notice(notice),
        ))
    }
}

impl Here {
    fn of_host(&self, host: Host) -> usize {
        self.hosts.get(&host).copied().unwrap_or(0)
    }

    fn of_site(&self, site: Site) -> usize {
        self.sites.get(&site).map_or(0, Neighbours::count)
    }

    fn enter(&mut self, host: Host, site: Site, leave: oneshot::Sender<()>) -> u64 {
        let number = self.number();
        self.total += 1;
        *self.hosts.entry(host).or_default() += 1;
        self.change(site, |neighbours| neighbours.strangers.insert(number, Stranger { host, leave }));
        number
    }

    fn number(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        number
    }

    /// Who makes room is gone from here at once: when his connection ends, his place is another's.
    fn make_leave(&mut self, site: Site, number: u64) {
        if let Some(Stranger { host, leave }) = self.change(site, |neighbours| neighbours.strangers.remove(&number)) {
            self.forget(host);
            // Who is closing already hears nothing, and needs not.
            let _ = leave.send(());
        }
    }

    fn forget(&mut self, host: Host) {
        self.total -= 1;
        if let Entry::Occupied(mut count) = self.hosts.entry(host) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Changes the neighbours of a site, and its place among those that are to make room.
    fn change<T>(&mut self, site: Site, change: impl FnOnce(&mut Neighbours) -> T) -> T {
        let neighbours = self.sites.entry(site).or_default();
        let before = neighbours.ranked();
        let changed = change(neighbours);
        let (after, is_empty) = (neighbours.ranked(), neighbours.count() == 0);
        if before != after {
            before.and_then(|before| self.strangers.remove(&before));
            after.and_then(|after| self.strangers.insert(after, site));
        }
        if is_empty {
            self.sites.remove(&site);
        }
        changed
    }
}

impl Place<'_> {
    /// The device has got a step further: others make room before it. A run has a few of them, so that nobody stays by taking
    /// them slowly.
    pub(crate) fn advance(&self) {
        let mut here = self.crowd.here.lock();
        let next = here.number();
        here.change(self.site, |neighbours| {
            // Who is not here any more, or known, needs no place in the line.
            if let Some(stranger) = neighbours.strangers.remove(&self.number()) {
                neighbours.strangers.insert(next, stranger);
                self.number.store(next, Ordering::Relaxed);
            }
        });
    }

    /// The device has proven who it is: it will not be asked to leave any more.
    pub(crate) fn keep(&self) {
        if self.is_known.load(Ordering::Relaxed) {
            return;
        }
        let is_here = self.crowd.here.lock().change(self.site, |neighbours| {
            let is_here = neighbours.strangers.remove(&self.number()).is_some();
            neighbours.known += usize::from(is_here);
            is_here
        });
        // Otherwise it was asked in this moment.
        self.is_known.store(is_here, Ordering::Relaxed);
    }

    /// Changed under the lock alone.
    fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut here = self.crowd.here.lock();
        let is_known = self.is_known.load(Ordering::Relaxed);
        let was_here = here.change(self.site, |neighbours| {
            if is_known {
                neighbours.known -= 1;
            }
            is_known || neighbours.strangers.remove(&self.number()).is_some()
        });
        if was_here {
            here.forget(self.host);
        }
    }
}

#[cfg(test)]
mod tests;
