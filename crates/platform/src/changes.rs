//! Following which devices there are and whether they are there, as far as somebody sees them.

use std::sync::Arc;

use tokio::sync::broadcast::{self, error::RecvError};

use crate::caller::Caller;
use crate::device::Device;
use crate::org::OrgPath;
use crate::platform::Platform;

/// A device that went to another place, and from where.
pub(crate) type Move = (Arc<Device>, OrgPath);

/// What has changed.
pub enum Change {
    /// The presence of a device, or what is said of it; or it is new.
    Device(Arc<Device>),
    /// A device is there no longer: removed, or moved out of sight.
    Gone(Arc<Device>),
    /// So many changes were lost: the registry has the truth. For who sees a part of the organisation only it is one, of
    /// however many.
    Lagged(u64),
}

/// Changes of devices, from now on, as far as one caller sees them.
pub struct Changes {
    all: broadcast::Receiver<Arc<Device>>,
    /// Moves matter to who does not see everything.
    moves: Option<broadcast::Receiver<Move>>,
    by: Caller,
}

impl Platform {
    /// Follows changes of devices that `by` sees.
    pub fn changes(&self, by: &Caller) -> Changes {
        let moves = (!by.subtree().is_root()).then(|| self.moves().subscribe());
        Changes { all: self.presence_changes(), moves, by: by.clone() }
    }
}

impl Changes {
    /// The next change; waits for it, for ever once the platform is gone. Cancel safe.
    pub async fn next(&mut self) -> Change {
        let Changes { all, moves, by } = self;
        loop {
            let left = async {
                match moves {
                    Some(moves) => moves.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // A move comes before what else is told of the device.
                biased;
                moved = left => match moved {
                    Ok((device, from)) if by.subtree().covers(&from) && !by.sees(&device) => return Change::Gone(device),
                    Ok(_) => {}
                    Err(RecvError::Lagged(_)) => return Change::Lagged(1),
                    Err(RecvError::Closed) => std::future::pending().await,
                },
                changed = all.recv() => match changed {
                    Ok(device) if !by.sees(&device) => {}
                    Ok(device) if device.is_removed() => return Change::Gone(device),
                    Ok(device) => return Change::Device(device),
                    Err(RecvError::Lagged(missed)) if by.subtree().is_root() => return Change::Lagged(missed),
                    Err(RecvError::Lagged(_)) => return Change::Lagged(1),
                    Err(RecvError::Closed) => std::future::pending().await,
                },
            }
        }
    }
}
