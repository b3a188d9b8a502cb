//! Which devices: the parameters by which they are looked for, the same for a list, an export and a change of many.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use vestibule_platform::{
    Caller, Device, DeviceFilter, DeviceOrder, DeviceQuery, Family, LabelFilter, Platform, PresenceState,
};

use crate::extract::Answer;
use crate::org::OrgParam;
use crate::problem::{Kind, Problem};

/// The longest text that is looked for, in bytes.
const MAX_TEXT: usize = 256;
/// The most labels that are looked for.
const MAX_LABELS: usize = 32;

/// What devices are looked for by, as it was sent.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) presence: Option<String>,
    pub(crate) suite: Option<String>,
    pub(crate) product: Option<String>,
    pub(crate) family: Option<String>,
    pub(crate) disabled: Option<Flag>,
    pub(crate) parent: Option<String>,
    pub(crate) org: Option<OrgParam>,
    pub(crate) label: Vec<String>,
    pub(crate) text: Option<String>,
}

/// Defines the parameters of a query string that says which devices, with those given beside them.
macro_rules! asking_for_devices {
    ($(#[$meta:meta])* $name:ident { $($(#[$of:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(serde::Deserialize, utoipa::IntoParams)]
        #[serde(deny_unknown_fields)]
        #[into_params(parameter_in = Query)]
        pub(crate) struct $name {
            /// Only those that are `online`, `offline` (were online once), or `never_seen`.
            #[param(pattern = "^(online|offline|never_seen)$", example = "online")]
            presence: Option<String>,
            /// Only those whose present or last session has this security suite.
            #[param(example = "legacy")]
            suite: Option<String>,
            /// Only those of this product.
            product: Option<String>,
            /// Only those that speak the protocols of this family.
            #[param(pattern = "^osap$", example = "osap")]
            family: Option<String>,
            /// Only those that are shut out, or only those that are not.
            #[param(value_type = Option<bool>)]
            disabled: Option<$crate::find::Flag>,
            /// Only those that are reached through the device with this id or serial.
            parent: Option<String>,
            /// Only those at this place in the organisation, or below.
            #[param(value_type = Option<String>, example = "/plant-1")]
            org: Option<$crate::org::OrgParam>,
            /// Only those with a label of this name, or, as `name:value`, that says this. May be there more than once:
            /// then all apply. A name ends at the first `:`.
            #[serde(default)]
            #[param(required = false, example = json!(["floor:2"]))]
            label: Vec<String>,
            /// Only those that have this text in their serial, name, product or labels, in upper or lower case.
            #[param(min_length = 1, max_length = 256)]
            text: Option<String>,
            $($(#[$of])* $field: $type,)*
        }

        impl $name {
            /// Takes out which devices are asked for.
            fn asked(&mut self) -> $crate::find::Asked {
                $crate::find::Asked {
                    presence: self.presence.take(),
                    suite: self.suite.take(),
                    product: self.product.take(),
                    family: self.family.take(),
                    disabled: self.disabled.take(),
                    parent: self.parent.take(),
                    org: self.org.take(),
                    label: std::mem::take(&mut self.label),
                    text: self.text.take(),
                }
            }
        }
    };
}
pub(crate) use asking_for_devices;

/// Which devices: those to which all of this applies. The fields are the parameters of the list of devices.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = DeviceFilter)]
pub(crate) struct FilterToApply {
    /// `online`, `offline` or `never_seen`.
    #[schema(pattern = "^(online|offline|never_seen)$")]
    presence: Option<String>,
    /// The suite of their present or last session.
    suite: Option<String>,
    /// Their product.
    product: Option<String>,
    /// The family of protocols they speak.
    #[schema(pattern = "^osap$")]
    family: Option<String>,
    /// Whether they are shut out.
    disabled: Option<bool>,
    /// Id or serial of the device they are reached through.
    parent: Option<String>,
    /// The place in the organisation they are at, or below.
    #[schema(value_type = Option<String>, example = "/plant-1")]
    org: Option<OrgParam>,
    /// Labels on them: `name`, or `name:value`.
    #[serde(default)]
    #[schema(max_items = 32)]
    label: Vec<String>,
    /// Text in their serial, name, product or labels.
    #[schema(min_length = 1, max_length = 256)]
    text: Option<String>,
}

impl From<FilterToApply> for Asked {
    fn from(filter: FilterToApply) -> Asked {
        let FilterToApply { presence, suite, product, family, disabled, parent, org, label, text } = filter;
        Asked { presence, suite, product, family, disabled: disabled.map(Flag), parent, org, label, text }
    }
}

impl Asked {
    /// The filter it stands for.
    pub(crate) fn filter(self, platform: &Platform, by: &Caller) -> Answer<DeviceFilter> {
        let wrong = |field, detail: &'static str| Problem::field(Kind::InvalidValue, field, detail);
        let presence = self.presence.map(|name| {
            PresenceState::parse(&name)
                .ok_or_else(|| wrong("presence", "presence must be online, offline or never_seen."))
        });
        let family =
            self.family.map(|name| Family::parse(&name).ok_or_else(|| wrong("family", "family must be osap.")));
        if self.label.len() > MAX_LABELS {
            return Err(wrong("label", "label may be there 32 times."));
        }
        let is_text = |text: &String| !text.is_empty() && text.len() <= MAX_TEXT && !text.contains(char::is_control);
        if self.text.as_ref().is_some_and(|text| !is_text(text)) {
            return Err(wrong("text", "text must have 1 to 256 bytes without control characters."));
        }
        let parent = self.parent.map(|key| platform.device(&key, by).ok_or_else(Problem::unknown_device));
        Ok(DeviceFilter {
            presence: presence.transpose()?,
            suite: self.suite,
            product: self.product,
            family: family.transpose()?,
            disabled: self.disabled.map(|flag| flag.0),
            parent: parent.transpose()?.map(|parent: Arc<Device>| parent.id),
            org: self.org.map(|org| org.0),
            labels: self.label.iter().map(|label| label_filter(label)).collect(),
            text: self.text,
        })
    }
}

/// `name` or `name:value`.
fn label_filter(text: &str) -> LabelFilter {
    match text.split_once(':') {
        Some((name, value)) => LabelFilter { name: name.to_owned(), value: Some(value.to_owned()) },
        None => LabelFilter { name: text.to_owned(), value: None },
    }
}

/// The query of a filter and the name of an order, a `-` before it meaning from its end.
pub(crate) fn query(filter: DeviceFilter, order: Option<&str>) -> Answer<DeviceQuery> {
    let (name, descending) = match order {
        None => return Ok(DeviceQuery { filter, ..DeviceQuery::default() }),
        Some(order) => order.strip_prefix('-').map_or((order, false), |name| (name, true)),
    };
    let order = DeviceOrder::parse(name).ok_or_else(|| {
        let detail = "order must be added, serial, name or seen, or one of these with a \"-\" before it.";
        Problem::field(Kind::InvalidValue, "order", detail)
    })?;
    Ok(DeviceQuery { filter, order, descending })
}

/// Yes or no in a query string.
pub(crate) struct Flag(pub(crate) bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Flag, D::Error> {
        match &*String::deserialize(deserializer)? {
            "true" => Ok(Flag(true)),
            "false" => Ok(Flag(false)),
            _ => Err(serde::de::Error::custom("must be true or false")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_a_name_and_after_the_first_colon_a_value() {
        let (name, value) = ("floor".to_owned(), |text: &str| Some(text.to_owned()));
        assert_eq!(label_filter("floor"), LabelFilter { name: name.clone(), value: None });
        assert_eq!(label_filter("floor:"), LabelFilter { name: name.clone(), value: value("") });
        assert_eq!(label_filter("floor:2:b"), LabelFilter { name, value: value("2:b") });
    }

    #[test]
    fn an_order_has_a_name_and_two_ways() {
        let read = |order| query(DeviceFilter::default(), order).map(|query| (query.order, query.descending)).ok();
        assert_eq!(read(None), Some((DeviceOrder::Added, false)));
        assert_eq!(read(Some("seen")), Some((DeviceOrder::Seen, false)));
        assert_eq!(read(Some("-name")), Some((DeviceOrder::Name, true)));
        for wrong in ["", "-", "--name", "Name", "id"] {
            assert_eq!(read(Some(wrong)), None, "{wrong}");
        }
    }
}
