//! Which DAS a device is sent to (osap-wire 5.8).

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use osap::lbs::DasInfo;

/// A DAS that devices can be sent to.
#[derive(Debug, Clone)]
pub struct DasNode {
    /// Host name or IPv4 address as devices reach it; `None` = the address at which they reached the LBS.
    pub host: Option<String>,
    /// TCP port.
    pub port: u16,
    /// Name of the node, at most 63 bytes.
    pub server_id: String,
}

/// The choice of a DAS. One node now; every instance of the LBS has to come to the same answer without talking to
/// others, so the choice stays a function of registry and device.
pub struct Assignment {
    target: Target,
    draining: AtomicBool,
}

enum Target {
    Nowhere,
    Node(DasNode),
    Exactly(DasInfo),
}

impl Assignment {
    /// All devices go to this node.
    pub fn single(node: DasNode) -> Assignment {
        Assignment::to(Target::Node(node))
    }

    /// All devices are told exactly this, wherever they reached the LBS.
    pub fn exactly(das: DasInfo) -> Assignment {
        Assignment::to(Target::Exactly(das))
    }

    /// There is no DAS: devices are told so (result 9).
    pub fn none() -> Assignment {
        Assignment::to(Target::Nowhere)
    }

    fn to(target: Target) -> Assignment {
        Assignment { target, draining: AtomicBool::new(false) }
    }

    /// Sends no more devices to the node: they get result 9 and come again later.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// The DAS for a device that reached the LBS at `local`, which is asked only where nodes have no name of their own;
    /// `None` when there is none.
    pub(crate) fn choose(&self, local: impl FnOnce() -> IpAddr) -> Option<DasInfo> {
        if self.draining.load(Ordering::Acquire) {
            return None;
        }
        let node = match &self.target {
            Target::Nowhere => return None,
            Target::Exactly(das) => return Some(das.clone()),
            Target::Node(node) => node,
        };
        let host = node.host.clone().unwrap_or_else(|| local().to_canonical().to_string());
        Some(DasInfo {
            domain: host.clone(),
            address: host,
            port: node.port,
            // Mandatory in the answer and only remembered by devices; there is no UDP service behind it.
            udp_port: node.port,
            server_id: node.server_id.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: Option<&str>) -> DasNode {
        DasNode { host: host.map(Into::into), port: 8668, server_id: "das1".to_owned() }
    }

    #[test]
    fn without_a_name_the_device_stays_at_the_address_it_knows() {
        let local = || IpAddr::from([192, 0, 2, 7]);
        let chosen = Assignment::single(node(None)).choose(local).expect("one");
        assert_eq!((chosen.address.as_str(), chosen.port), ("192.0.2.7", 8668));
    }

    #[test]
    fn a_draining_node_is_not_chosen() {
        let assignment = Assignment::single(node(Some("das.example")));
        let local = || unreachable!("it has a name");
        assert_eq!(assignment.choose(local).expect("one").address, "das.example");
        assignment.drain();
        assert!(assignment.choose(local).is_none());
    }
}
