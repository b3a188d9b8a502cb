//! What operators have done to the connection of a device.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::audit::Deed;
use crate::caller::Caller;
use crate::device::Device;
use crate::link::{Directive, NotSent};
use crate::platform::{Platform, to_the_end};
use crate::presence::live_link;

const MAX_HOST: usize = 63;
const MAX_DOMAINS: usize = 64;
const MAX_COMMANDS: usize = 1_024;

/// Why a device was not directed. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirectError {
    /// A value is not acceptable.
    #[error("{field} {reason}")]
    Invalid {
        /// Which value.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The device is not there.
    #[error("the device is not there")]
    Offline,
    /// It takes too little of what is sent.
    #[error("too much waits for the device already")]
    Busy,
    /// The device's protocol has nothing of the kind, or the device is reached through another one.
    #[error("the device cannot be directed so")]
    Unsupported,
    /// The caller does not see the device (any more).
    #[error("there is no such device")]
    UnknownDevice,
}

impl Platform {
    /// Directs the device; it is in the audit when this returns. OSAP devices answer nothing: that they obey shows in
    /// what they do next.
    ///
    /// # Errors
    /// [`DirectError`].
    pub async fn direct(
        self: &Arc<Self>,
        device: &Arc<Device>,
        directive: Directive,
        by: &Caller,
    ) -> Result<(), DirectError> {
        check(&directive)?;
        by.still_sees(device).map_err(|_| DirectError::UnknownDevice)?;
        let link = live_link(device).ok_or(DirectError::Offline)?;
        link.direct(&directive).map_err(|error| match error {
            NotSent::Ending => DirectError::Offline,
            NotSent::Busy => DirectError::Busy,
            NotSent::TooLarge | NotSent::NotAddressable(_) | NotSent::Unacceptable(_) | NotSent::Unsupported => {
                DirectError::Unsupported
            }
        })?;
        let (action, detail): (_, Value) = match &directive {
            Directive::Redirect { host } => ("device.redirect", json!({"host": host})),
            Directive::ForceOffline => ("device.force_offline", json!({})),
            Directive::KeepAlive { seconds } => ("device.keep_alive", json!({"seconds": seconds})),
            Directive::Silence { commands } => ("device.silence", json!({"commands": commands})),
        };
        let (auditor, device, actor) = (self.auditor(), Arc::clone(device), by.name().to_owned());
        to_the_end(async move {
            auditor.write(Deed { actor: &actor, action, device: Some(&device), detail, ok: true }).await;
        })
        .await;
        Ok(())
    }
}

fn check(directive: &Directive) -> Result<(), DirectError> {
    match directive {
        Directive::Redirect { host } if host.is_empty() || host.len() > MAX_HOST => {
            Err(DirectError::Invalid { field: "host", reason: "must have 1 to 63 bytes" })
        }
        Directive::Redirect { host }
            if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-')) =>
        {
            Err(DirectError::Invalid { field: "host", reason: "must be a name or an IPv4 address" })
        }
        Directive::KeepAlive { seconds } if !(5..=3_600).contains(seconds) => {
            Err(DirectError::Invalid { field: "seconds", reason: "must be between 5 and 3600" })
        }
        Directive::Silence { commands }
            if commands.len() > MAX_DOMAINS || commands.values().map(Vec::len).sum::<usize>() > MAX_COMMANDS =>
        {
            Err(DirectError::Invalid { field: "commands", reason: "are more than 64 domains or 1024 commands" })
        }
        _ => Ok(()),
    }
}
