//! The catalogue: the devices of the registry by what they are looked for by, and in each order they are listed in.
//!
//! All of it is in memory, beside the devices themselves: presence changes too often for a database, and a page is then
//! the same whichever database is behind. A device's entry is what was noted of it last; whoever changes a device notes it
//! afterwards.

mod entry;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;
use vestibule_store::DeviceId;

use crate::device::Device;
use crate::find::DeviceOrder;

use entry::{Entry, Seen};
pub(crate) use entry::{Key, Place, Trait, folded};

/// Devices that are looked at before others have a turn with the lock.
const STRIDE: usize = 4_096;

/// All devices, by traits and in orders.
#[derive(Default)]
pub(crate) struct Catalogue {
    shelves: RwLock<Shelves>,
}

/// What is looked for.
pub(crate) struct Wanted<'a> {
    /// All of them.
    pub(crate) traits: &'a [Trait],
    /// Where in the text of a device, folded; empty: anywhere.
    pub(crate) text: &'a str,
    pub(crate) order: DeviceOrder,
    pub(crate) descending: bool,
}

/// Some of what was looked for.
pub(crate) struct Found {
    pub(crate) devices: Vec<(Place, Arc<Device>)>,
    /// How many were looked at.
    pub(crate) examined: usize,
    /// Where to go on; none: there are no more.
    pub(crate) reached: Option<Place>,
}

#[derive(Default)]
struct Shelves {
    entries: BTreeMap<DeviceId, Entry>,
    by_trait: HashMap<Arc<Trait>, BTreeSet<DeviceId>>,
    by_serial: BTreeSet<Place>,
    by_name: BTreeSet<Place>,
    by_seen: BTreeSet<Place>,
}

impl Catalogue {
    /// Notes what the device is like now, or that it is gone. To be called after each change of it, without any lock on it.
    pub(crate) fn note(&self, device: &Arc<Device>) {
        // Read under the lock, so that of two who note at once the last has the last word.
        let mut shelves = self.shelves.write();
        if device.is_removed() {
            shelves.remove(device.id);
        } else {
            shelves.put(device);
        }
    }

    /// Notes whether the device is there now. To be called after each change of its presence. There are many of these: what
    /// people say of the device is not read again.
    pub(crate) fn note_presence(&self, device: &Arc<Device>) {
        let mut shelves = self.shelves.write();
        if !device.is_removed() {
            shelves.see(device);
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shelves.read().entries.len()
    }

    /// The next devices after a place that are wanted, at most `limit`. Fewer are found also where so many had to be looked
    /// at that others want a turn: `reached` says whether to go on. `looked` is how many were looked at for this page before.
    pub(crate) fn find(&self, wanted: &Wanted<'_>, after: Option<&Place>, limit: usize, looked: usize) -> Found {
        self.shelves.read().find(wanted, after, limit, looked)
    }
}

impl Shelves {
    fn put(&mut self, device: &Arc<Device>) {
        let id = device.id;
        let entry = Entry::of(device, |wanted| self.known(wanted));
        let before = self.entries.remove(&id);
        let kept =
            |noted: Option<&Entry>, one: &Arc<Trait>| noted.is_some_and(|noted| noted.traits().any(|it| it == one));
        if let Some(before) = &before {
            for one in before.traits().filter(|one| !kept(Some(&entry), one)) {
                self.leave(one, id);
            }
            for order in [DeviceOrder::Serial, DeviceOrder::Name, DeviceOrder::Seen] {
                let (old, new) = (before.place(id, order), entry.place(id, order));
                if old != new {
                    self.shelf_mut(order).map(|shelf| shelf.remove(&old));
                }
            }
        }
        for one in entry.traits().filter(|one| !kept(before.as_ref(), one)) {
            self.join(one, id);
        }
        for order in [DeviceOrder::Serial, DeviceOrder::Name, DeviceOrder::Seen] {
            let place = entry.place(id, order);
            self.shelf_mut(order).map(|shelf| shelf.insert(place));
        }
        self.entries.insert(id, entry);
    }

    /// As [`put`](Shelves::put) where nothing but presence has changed.
    fn see(&mut self, device: &Arc<Device>) {
        let id = device.id;
        let now = Seen::of(&device.presence(), |wanted| self.known(wanted));
        let Some(entry) = self.entries.get_mut(&id) else { return self.put(device) };
        let (left, shelved) = (entry.place(id, DeviceOrder::Seen), now.place(id));
        let before = std::mem::replace(&mut entry.seen, now.clone());
        for one in before.traits().filter(|one| !now.traits().any(|it| it == *one)) {
            self.leave(one, id);
        }
        for one in now.traits().filter(|one| !before.traits().any(|it| it == *one)) {
            self.join(one, id);
        }
        self.by_seen.remove(&left);
        self.by_seen.insert(shelved);
    }

    /// The trait as it is kept, if some device has it.
    fn known(&self, wanted: Trait) -> Arc<Trait> {
        match self.by_trait.get_key_value(&wanted) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(wanted),
        }
    }

    fn remove(&mut self, id: DeviceId) {
        let Some(entry) = self.entries.remove(&id) else { return };
        for one in entry.traits() {
            self.leave(one, id);
        }
        for order in [DeviceOrder::Serial, DeviceOrder::Name, DeviceOrder::Seen] {
            let place = entry.place(id, order);
            self.shelf_mut(order).map(|shelf| shelf.remove(&place));
        }
    }

    fn join(&mut self, one: &Arc<Trait>, id: DeviceId) {
        self.by_trait.entry(Arc::clone(one)).or_default().insert(id);
    }

    fn leave(&mut self, one: &Trait, id: DeviceId) {
        if let Some(devices) = self.by_trait.get_mut(one) {
            devices.remove(&id);
            if devices.is_empty() {
                self.by_trait.remove(one);
            }
        }
    }

    /// The shelf of an order; none for that of the entries themselves.
    fn shelf_mut(&mut self, order: DeviceOrder) -> Option<&mut BTreeSet<Place>> {
        match order {
            DeviceOrder::Added => None,
            DeviceOrder::Serial => Some(&mut self.by_serial),
            DeviceOrder::Name => Some(&mut self.by_name),
            DeviceOrder::Seen => Some(&mut self.by_seen),
        }
    }

    fn shelf(&self, order: DeviceOrder) -> Option<&BTreeSet<Place>> {
        match order {
            DeviceOrder::Added => None,
            DeviceOrder::Serial => Some(&self.by_serial),
            DeviceOrder::Name => Some(&self.by_name),
            DeviceOrder::Seen => Some(&self.by_seen),
        }
    }

    /// Looks for devices in the way that looks at the fewest.
    ///
    /// By the time they were added, those with the rarest trait are in order themselves. In another order either these are
    /// put in order, which looks at each of them, or the shelf is gone along until there are enough. Where they lie evenly
    /// on it, the second looks at `limit * all / few`: the one with the smaller number is taken. Where they do not, it is
    /// given up for the first once it has looked at as many as that would, so that a page costs twice as much at most; but for
    /// so many that putting them in order would keep others waiting.
    fn find(&self, wanted: &Wanted<'_>, after: Option<&Place>, limit: usize, looked: usize) -> Found {
        let mut sets = Vec::with_capacity(wanted.traits.len());
        for one in wanted.traits {
            let Some(set) = self.by_trait.get(one) else {
                return Found { devices: Vec::new(), examined: 0, reached: None };
            };
            sets.push(set);
        }
        sets.sort_unstable_by_key(|set| set.len());
        let rarest = sets.split_first();
        match (wanted.order, rarest) {
            (DeviceOrder::Added, Some((rarest, others))) => {
                let ids = by_id(rarest.range(ids_after(after, wanted.descending)), wanted.descending);
                self.gather(wanted, ids.copied().map(|id| (id, None)), others, limit, STRIDE)
            }
            (DeviceOrder::Added, None) => {
                let entries = self.entries.range(ids_after(after, wanted.descending));
                let ids = by_id(entries.map(|(id, _)| id), wanted.descending);
                self.gather(wanted, ids.copied().map(|id| (id, None)), &[], limit, STRIDE)
            }
            (order, Some((rarest, others)))
                if rarest.len() <= looked.min(STRIDE)
                    || rarest.len().saturating_mul(rarest.len()) <= limit.saturating_mul(self.entries.len()) =>
            {
                let places = rarest.iter().filter_map(|id| Some(self.entries.get(id)?.place(*id, order)));
                let is_after = |place: &Place| match (after, wanted.descending) {
                    (None, _) => true,
                    (Some(after), false) => place > after,
                    (Some(after), true) => place < after,
                };
                let mut places: Vec<Place> = places.filter(is_after).collect();
                places.sort_unstable();
                if wanted.descending {
                    places.reverse();
                }
                let passed_over = rarest.len() - places.len();
                let in_order = places.iter().map(|place| (place.id, Some(place)));
                let mut found = self.gather(wanted, in_order, others, limit, usize::MAX);
                found.examined += passed_over;
                found
            }
            (order, _) => {
                let Some(shelf) = self.shelf(order) else {
                    return Found { devices: Vec::new(), examined: 0, reached: None };
                };
                // Each state of presence is one stretch of the shelf of those seen last.
                let stretch = wanted.traits.iter().find_map(Trait::stretch).filter(|_| order == DeviceOrder::Seen);
                let (mut from, mut to) = match &stretch {
                    Some((first, end)) => (Bound::Included(first), Bound::Excluded(end)),
                    None => (Bound::Unbounded, Bound::Unbounded),
                };
                if let Some(after) = after {
                    // A place outside of the stretch is of another question; there is nothing after it.
                    if stretch.as_ref().is_some_and(|(first, end)| after < first || after >= end) {
                        return Found { devices: Vec::new(), examined: 0, reached: None };
                    }
                    if wanted.descending {
                        to = Bound::Excluded(after);
                    } else {
                        from = Bound::Excluded(after);
                    }
                }
                if is_nothing(from, to) {
                    return Found { devices: Vec::new(), examined: 0, reached: None };
                }
                let places = by_id(shelf.range::<Place, _>((from, to)), wanted.descending);
                self.gather(wanted, places.map(|place| (place.id, Some(place))), &sets, limit, STRIDE)
            }
        }
    }

    /// Those of the candidates that are in all sets and have the text.
    fn gather<'a>(
        &self,
        wanted: &Wanted<'_>,
        candidates: impl Iterator<Item = (DeviceId, Option<&'a Place>)>,
        sets: &[&BTreeSet<DeviceId>],
        limit: usize,
        most: usize,
    ) -> Found {
        let mut found = Found { devices: Vec::new(), examined: 0, reached: None };
        for (id, place) in candidates {
            found.examined += 1;
            let place = || place.cloned().unwrap_or(Place { key: Key::Added, id });
            let entry = self.entries.get(&id).filter(|_| sets.iter().all(|set| set.contains(&id)));
            if let Some(entry) = entry.filter(|entry| wanted.text.is_empty() || entry.text.contains(wanted.text)) {
                found.devices.push((place(), Arc::clone(&entry.device)));
            }
            if found.devices.len() == limit || found.examined >= most {
                found.reached = Some(place());
                break;
            }
        }
        found
    }
}

/// The ids after a place.
fn ids_after(after: Option<&Place>, descending: bool) -> (Bound<&DeviceId>, Bound<&DeviceId>) {
    match (after, descending) {
        (None, _) => (Bound::Unbounded, Bound::Unbounded),
        (Some(after), false) => (Bound::Excluded(&after.id), Bound::Unbounded),
        (Some(after), true) => (Bound::Unbounded, Bound::Excluded(&after.id)),
    }
}

/// A range from its other end where the order is descending.
fn by_id<'a, T: 'a>(
    range: impl DoubleEndedIterator<Item = &'a T> + 'a,
    descending: bool,
) -> Box<dyn Iterator<Item = &'a T> + 'a> {
    if descending { Box::new(range.rev()) } else { Box::new(range) }
}

/// Whether nothing lies between two bounds; a range of a set does not take such ones.
fn is_nothing(from: Bound<&Place>, to: Bound<&Place>) -> bool {
    match (from, to) {
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => from >= to,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
