//! How a device comes in at an LBS, and from there to a DAS: by the legacy suite, or by a modern one.

use std::sync::Arc;

use osap::CodeCase;
use osap::das::cipher::SessionCipher;
#[cfg(feature = "legacy")]
use osap::lbs::client::Identity;
use osap::lbs::client::Stored;

use crate::keyring::Keyring;
#[cfg(feature = "legacy")]
use crate::lbs;
use crate::link::Channel;
use crate::modern::{Closed, Modern, Opened, Web};
use crate::session::{Access, Denied, Grant, Secret, Session};
use crate::shared::Shared;
use crate::socket;

/// One of the two, for as long as the device runs: what a server says never leads from one to the other (osap-wire 13.4).
pub(crate) enum Entrance {
    /// The legacy suite.
    #[cfg(feature = "legacy")]
    Legacy { identity: Identity, keyring: Arc<Keyring> },
    /// The modern suites.
    Modern(Modern),
}

impl Entrance {
    /// What the device decides from.
    pub(crate) fn session(&self) -> Session {
        match self {
            #[cfg(feature = "legacy")]
            Self::Legacy { keyring, .. } => Session::new(keyring.legacy()),
            Self::Modern(_) => Session::modern(),
        }
    }

    pub(crate) fn keyring(&self) -> &Arc<Keyring> {
        match self {
            #[cfg(feature = "legacy")]
            Self::Legacy { keyring, .. } => keyring,
            Self::Modern(modern) => &modern.keyring,
        }
    }

    /// Whom to believe where pictures go.
    pub(crate) fn web(&self) -> Option<Box<Web>> {
        match self {
            #[cfg(feature = "legacy")]
            Self::Legacy { .. } => None,
            Self::Modern(modern) => modern.web(),
        }
    }

    /// Tries to come in at the LBS `host`. Where to start from is a matter of the legacy suite.
    pub(crate) async fn authenticate(
        &self,
        shared: &Shared,
        host: &str,
        #[cfg_attr(not(feature = "legacy"), expect(unused_variables, reason = "see above"))] start: (Stored, CodeCase),
    ) -> Result<Grant, Denied> {
        match self {
            #[cfg(feature = "legacy")]
            Self::Legacy { identity, .. } => {
                let (stored, case) = start;
                Box::pin(lbs::authenticate(shared, host, identity, stored, case)).await
            }
            Self::Modern(modern) => Box::pin(modern.authenticate(shared, host)).await,
        }
    }

    /// Opens a connection to the DAS.
    pub(crate) async fn open(&self, shared: &Shared, access: &Access) -> Result<Opened, Closed> {
        let place = (&*access.address, access.port);
        match (self, &access.secret) {
            (Self::Modern(modern), Secret::Modern(admission)) => {
                modern.open(shared, place, access.dev_id, admission).await
            }
            (_, Secret::Legacy(key)) => {
                let tcp = socket::connect(&*shared.dial, place.0, place.1).await.map_err(Closed::Unreachable)?;
                Ok(Opened { stream: tcp.into(), channel: Channel::Legacy(SessionCipher::new(key.clone())) })
            }
            #[cfg(feature = "legacy")]
            (Self::Legacy { .. }, Secret::Modern(_)) => Err(Closed::Tls(crate::state::TlsFault::Missing)),
        }
    }
}
