//! Networks that are slow to pass anything on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;
use vestibule_device::{Device, Dial, Dialing, MemoryStorage};

use crate::fault_proxy::{FaultProxy, Faults};
use crate::life::first_connection;
use crate::server::{CODE, SERIAL, Server};
use crate::soon;

/// Has every connection go through one of two proxies.
struct Detour {
    lbs: SocketAddr,
    to_lbs: FaultProxy,
    to_das: FaultProxy,
}

/// The device keeps its way to the network, the test looks at it.
struct Shared(Arc<Detour>);

impl Dial for Shared {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a> {
        let target = SocketAddr::new(host.parse().expect("a number"), port);
        let proxy = if target == self.0.lbs { &self.0.to_lbs } else { &self.0.to_das };
        proxy.lead_to(target);
        Box::pin(TcpStream::connect(proxy.address()))
    }
}

#[tokio::test]
async fn a_device_lives_on_a_network_that_passes_single_bytes() {
    let mut server = Server::start().await;
    let byte_by_byte = Faults { pieces: 1, delay: Duration::from_micros(20), ..Faults::default() };
    let [to_lbs, to_das] = [1, 2].map(|seed| FaultProxy::start(seed, byte_by_byte.clone()));
    let detour = Arc::new(Detour { lbs: server.lbs, to_lbs, to_das });
    let builder = Device::builder(SERIAL, CODE).lbs(server.lbs.to_string()).legacy().storage(MemoryStorage::new());
    let device = builder.dial(Shared(Arc::clone(&detour))).start().unwrap();
    server.expect(first_connection()).await;
    let event = device.event("Camera", 0, "Detection", "Motion");
    let receipt = soon(event.report(&json!({"level": 3}))).await.unwrap();
    assert_eq!(server.event().await.id, receipt.id);
    // Twice at the LBS, twice at the DAS: the first login is sent back.
    assert_eq!((detour.to_lbs.counts(), detour.to_das.counts()), ((2, 0, 0), (2, 0, 0)));
    detour.to_lbs.heal();
}
