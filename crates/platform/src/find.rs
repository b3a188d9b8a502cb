//! Looking for devices: by presence, suite, product, hub, place, labels and text, in several orders, page by page.

mod cursor;

use std::sync::Arc;

use tokio::task::yield_now;
use vestibule_store::DeviceId;

use crate::caller::Caller;
use crate::catalogue::{Trait, Wanted, folded};
use crate::device::{Device, Family};
use crate::org::OrgPath;
use crate::platform::Platform;
use crate::presence::PresenceState;

/// The order devices are listed in. Among those that are equal in it, the one registered first comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceOrder {
    /// By the time they were registered.
    #[default]
    Added,
    /// By their serials, byte by byte.
    Serial,
    /// By their names, upper and lower case being equal; those without a name come first.
    Name,
    /// By when they were seen last: those never seen, those offline by when they went, those online by when they came.
    Seen,
}

impl DeviceOrder {
    /// Every order.
    pub const ALL: [DeviceOrder; 4] = [DeviceOrder::Added, DeviceOrder::Serial, DeviceOrder::Name, DeviceOrder::Seen];

    /// The order's name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            DeviceOrder::Added => "added",
            DeviceOrder::Serial => "serial",
            DeviceOrder::Name => "name",
            DeviceOrder::Seen => "seen",
        }
    }

    /// The order of this name.
    pub fn parse(name: &str) -> Option<DeviceOrder> {
        DeviceOrder::ALL.into_iter().find(|order| order.as_str() == name)
    }
}

/// A label that is looked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LabelFilter {
    /// Its name.
    pub name: String,
    /// What it says; none: anything.
    pub value: Option<String>,
}

/// Which devices: those to which everything that is said here applies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceFilter {
    /// Whether they are there.
    pub presence: Option<PresenceState>,
    /// The suite of their present or last session.
    pub suite: Option<String>,
    /// The product they are instances of.
    pub product: Option<String>,
    /// The family of protocols they speak.
    pub family: Option<Family>,
    /// Whether they are shut out.
    pub disabled: Option<bool>,
    /// The hub or gateway they are reached through.
    pub parent: Option<DeviceId>,
    /// The place in the organisation they belong to, or below.
    pub org: Option<OrgPath>,
    /// Labels on them, all of these.
    pub labels: Vec<LabelFilter>,
    /// What is in their serial, name, product or labels, upper and lower case being equal.
    pub text: Option<String>,
}

/// Which devices, in which order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceQuery {
    /// Which.
    pub filter: DeviceFilter,
    /// In which order.
    pub order: DeviceOrder,
    /// From its end.
    pub descending: bool,
}

/// A page of devices.
#[derive(Debug)]
pub struct DevicePage {
    /// The devices.
    pub items: Vec<Arc<Device>>,
    /// Where the next page begins; none: this is the last.
    pub next: Option<String>,
    /// How many devices were looked at to find these.
    pub examined: usize,
}

/// The cursor is none of this question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cursor is not of a page of this query")]
pub struct BadCursor;

impl DeviceFilter {
    /// Whether it leaves nothing out.
    pub fn is_empty(&self) -> bool {
        *self == DeviceFilter::default()
    }

    /// What a device must have; `None` when none can, as far as the caller sees.
    fn traits(&self, by: &Caller) -> Option<Vec<Trait>> {
        let org = match &self.org {
            None => by.subtree(),
            Some(org) if by.subtree().covers(org) => org,
            Some(org) if org.covers(by.subtree()) => by.subtree(),
            Some(_) => return None,
        };
        let mut traits = Vec::new();
        traits.extend(self.presence.map(Trait::Presence));
        traits.extend(self.suite.as_deref().map(|suite| Trait::Suite(suite.into())));
        traits.extend(self.product.as_deref().map(|product| Trait::Product(product.into())));
        traits.extend(self.family.map(Trait::Family));
        traits.extend(self.disabled.map(Trait::Disabled));
        traits.extend(self.parent.map(Trait::Parent));
        if !org.is_root() {
            traits.push(Trait::At(org.clone()));
        }
        traits.extend(self.labels.iter().map(|LabelFilter { name, value }| match value {
            None => Trait::Label(name.as_str().into()),
            Some(value) => Trait::LabelValue(name.as_str().into(), value.as_str().into()),
        }));
        Some(traits)
    }
}

impl Platform {
    /// One page of the devices that a query finds and the caller sees, at most `limit`, after the page whose `next` was
    /// `cursor`. A page is full unless it is the last.
    ///
    /// A cursor is a place in the order, not a device: what is registered or removed between two pages moves nothing else
    /// from one to the other. A device whose own place in the order changes meanwhile, as one that comes online in that of
    /// [`DeviceOrder::Seen`], may be seen twice or not at all.
    ///
    /// # Errors
    /// [`BadCursor`].
    pub async fn find_devices(
        &self,
        query: &DeviceQuery,
        cursor: Option<&str>,
        limit: usize,
        by: &Caller,
    ) -> Result<DevicePage, BadCursor> {
        let mut after = cursor.map(|cursor| cursor::read(cursor, query)).transpose()?;
        let mut page = DevicePage { items: Vec::new(), next: None, examined: 0 };
        let Some(traits) = query.filter.traits(by) else { return Ok(page) };
        let text = query.filter.text.as_deref().map(folded).unwrap_or_default();
        let wanted = Wanted { traits: &traits, text: &text, order: query.order, descending: query.descending };
        let catalogue = self.registry().catalogue();
        let mut found = Vec::new();
        loop {
            // One more than is shown says whether there are more.
            let some = catalogue.find(&wanted, after.as_ref(), limit + 1 - found.len(), page.examined);
            page.examined += some.examined;
            found.extend(some.devices);
            after = some.reached;
            if after.is_none() || found.len() > limit {
                break;
            }
            yield_now().await;
        }
        if found.len() > limit {
            found.truncate(limit);
            page.next = found.last().map(|(place, _)| cursor::write(place, query));
        }
        // One may have gone elsewhere since it was found.
        page.items.extend(found.into_iter().map(|(_, device)| device).filter(|device| by.sees(device)));
        metrics::counter!("vestibule_devices_examined_total").increment(page.examined as u64);
        metrics::counter!("vestibule_devices_found_total").increment(page.items.len() as u64);
        Ok(page)
    }
}
