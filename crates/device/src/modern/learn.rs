//! How a device comes to know another root of its platform, so that the one it knows may be replaced (osap-wire 13.3, TLS
//! profile 4).
//!
//! In each run over TLS the device says which CA certificates it knows the platform by. The LBS answers, in the sealed grant
//! that comes with a ticket, with the root it wants to be known by. The device takes it only if that root vouches for this
//! very server too, and keeps beside it what has vouched for it so far: it never changes all of its anchors at once. What its
//! program names stays in force, whatever is learned.

use aws_lc_rs::digest::{SHA256, digest};
use osap::modern::message::AnchorId;

use super::Anchor;
use super::trust::Judge;
use crate::storage::ModernCredentials;

/// Roots that are learned and kept.
const MAX_LEARNED: usize = 2;

/// A server that was met over TLS.
#[derive(Debug, Clone)]
pub(crate) struct Met {
    judge: Judge,
    /// CAs that the program names, DER.
    own: Vec<Vec<u8>>,
    /// What was learned before, the newest first, and whether it vouches for this server.
    learned: Vec<(Vec<u8>, bool)>,
}

/// What a device knows after a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Learned {
    anchors: Vec<Vec<u8>>,
    /// A root has taken the place of the key that a first use has pinned.
    outgrown: bool,
}

impl Met {
    /// The server that is judged here, by a device that knows these anchors.
    pub(super) fn new(judge: Judge, own: &[Anchor], learned: &[Vec<u8>]) -> Met {
        let own = own.iter().filter_map(|anchor| match anchor {
            Anchor::Certificate(der) => Some(der.clone()),
            Anchor::PublicKey(_) => None,
        });
        let own = own.collect();
        let learned = learned.iter().map(|der| (der.clone(), judge.by(der))).collect();
        Met { judge, own, learned }
    }

    /// What the device says it knows the server by: everything it has learned, which the platform may have it forget, and
    /// what its program names if that is of use here.
    pub(super) fn known_by(&self) -> Vec<AnchorId> {
        let own = self.own.iter().filter(|der| self.judge.by(der));
        self.learned.iter().map(|(der, _)| der).chain(own).map(|der| id(der)).collect()
    }

    /// What the device knows once it has taken note of what this server was granted to tell it.
    pub(super) fn learn(&self, granted: &[Vec<u8>]) -> Learned {
        let outgrown = self.learned.iter().any(|(_, vouches)| *vouches);
        let kept = || self.learned.iter().map(|(der, _)| der.clone());
        // One at a time: another one takes the place of what vouches for the server now.
        let Some(wanted) = granted.first() else { return Learned { anchors: kept().collect(), outgrown } };
        let anchors = if self.learned.iter().any(|(der, vouches)| der == wanted && *vouches) {
            // The platform wants to be known by that one alone, and it has just done for this connection.
            vec![wanted.clone()]
        } else if !self.judge.by(wanted) {
            kept().collect()
        } else if self.own.contains(wanted) {
            // The program names it, so that it stays in force: what was learned besides is of no use any more.
            Vec::new()
        } else {
            let (vouching, others): (Vec<_>, Vec<_>) = self.learned.iter().cloned().partition(|(_, vouches)| *vouches);
            let before = vouching.into_iter().chain(others).map(|(der, _)| der).filter(|der| der != wanted);
            std::iter::once(wanted.clone()).chain(before).take(MAX_LEARNED).collect()
        };
        Learned { anchors, outgrown }
    }
}

impl Learned {
    /// Puts it where it is stored.
    pub(super) fn keep(self, kept: &mut ModernCredentials) {
        kept.anchors = self.anchors;
        if self.outgrown {
            kept.pin = None;
        }
    }
}

fn id(der: &[u8]) -> AnchorId {
    digest(&SHA256, der).as_ref().try_into().expect("a SHA-256 has 32 bytes")
}
