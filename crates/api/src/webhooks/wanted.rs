//! What people want of a webhook.

use serde::Deserialize;
use utoipa::ToSchema;
use vestibule_platform::{Caller, DeviceId, Filter, Kinds, Platform, RecordKind, Secret, WebhookSpec};

use crate::api::Shared;
use crate::extract::Answer;
use crate::hooks::sign;
use crate::problem::{Kind, Problem};

/// A webhook to be added.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookToAdd {
    /// Where it is told: `https` or `http`, without user name and fragment, and not inside of the platform's network
    /// unless `webhooks.allow` of the configuration says so.
    #[schema(min_length = 8, max_length = 2048, format = "uri", example = "https://hall.example/vestibule")]
    url: String,
    /// A name for people.
    #[schema(min_length = 1, max_length = 128)]
    name: Option<String>,
    /// What it is told of: `event`, `attribute`, `operation`, `pass`; `event` when absent. Who adds it must be allowed to
    /// see these.
    #[schema(min_items = 1, example = json!(["event", "operation"]))]
    kinds: Option<Vec<String>>,
    /// Only of the device with this id or serial.
    device: Option<String>,
    /// Only of this area.
    #[schema(min_length = 1, max_length = 128)]
    area: Option<String>,
    /// Only with this name, of an event for example.
    #[serde(rename = "type")]
    #[schema(min_length = 1, max_length = 128, example = "Smoke")]
    event: Option<String>,
    /// What deliveries are signed with: `whsec_` and the base64 of 24 to 64 random bytes. Never shown again; drawn by the
    /// platform, and shown once, when absent.
    #[schema(format = Password)]
    pub(super) secret: Option<String>,
    /// Whether it is told from now on; it is when absent.
    pub(super) enabled: Option<bool>,
    /// Begin after this position of the journal; with what comes from now on when absent.
    #[schema(example = "0")]
    pub(super) after: Option<String>,
}

/// What a webhook is to be from now on.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookToChange {
    /// As when it is added.
    #[schema(min_length = 8, max_length = 2048, format = "uri", example = "https://hall.example/vestibule")]
    url: String,
    /// A name for people; none when absent.
    #[schema(min_length = 1, max_length = 128)]
    name: Option<String>,
    /// As when it is added.
    #[schema(min_items = 1, example = json!(["event"]))]
    kinds: Option<Vec<String>>,
    /// Only of the device with this id or serial; of all when absent.
    device: Option<String>,
    /// Only of this area; of all when absent.
    #[schema(min_length = 1, max_length = 128)]
    area: Option<String>,
    /// Only with this name; with any when absent.
    #[serde(rename = "type")]
    #[schema(min_length = 1, max_length = 128)]
    event: Option<String>,
    /// Another secret; the one it has when absent.
    #[schema(format = Password)]
    pub(super) secret: Option<String>,
}

/// What is wanted of a webhook, from what was sent.
pub(super) struct Wanted {
    url: String,
    name: Option<String>,
    kinds: Option<Vec<String>>,
    device: Option<String>,
    area: Option<String>,
    event: Option<String>,
}

impl From<WebhookToAdd> for Wanted {
    fn from(new: WebhookToAdd) -> Wanted {
        let WebhookToAdd { url, name, kinds, device, area, event, .. } = new;
        Wanted { url, name, kinds, device, area, event }
    }
}

impl From<WebhookToChange> for Wanted {
    fn from(new: WebhookToChange) -> Wanted {
        let WebhookToChange { url, name, kinds, device, area, event, .. } = new;
        Wanted { url, name, kinds, device, area, event }
    }
}

impl Wanted {
    pub(super) fn spec(self, shared: &Shared) -> Answer<WebhookSpec> {
        shared
            .hooks
            .check(&self.url)
            .map_err(|wrong| Problem::field(Kind::InvalidValue, "url", format!("url {wrong}.")))?;
        let unknown = "kinds must be of event, attribute, operation and pass.";
        let kinds = match self.kinds {
            None => Kinds::from(RecordKind::Event),
            Some(names) => names
                .iter()
                .map(|name| Kinds::named(name))
                .collect::<Option<Kinds>>()
                .ok_or_else(|| Problem::field(Kind::InvalidValue, "kinds", unknown))?,
        };
        let device = self.device.map(|key| device(&shared.platform, &key)).transpose()?;
        let filter = Filter { kinds, device, area: self.area, name: self.event };
        Ok(WebhookSpec { name: self.name, url: self.url, filter })
    }
}

fn device(platform: &Platform, key: &str) -> Answer<DeviceId> {
    let unknown = || Problem::field(Kind::InvalidValue, "device", "No device has the id or serial in device.");
    // Who manages webhooks sees all devices.
    platform.device(key, &Caller::program()).map(|device| device.id).ok_or_else(unknown)
}

pub(super) fn secret(text: &str) -> Answer<Secret> {
    sign::read(text).map_err(|wrong| Problem::field(Kind::InvalidValue, "secret", format!("secret {wrong}.")))
}
