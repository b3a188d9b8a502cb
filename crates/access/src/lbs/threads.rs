//! The threads of the LBS.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use vestibule_broker::{Shards, ShardsConfig};

use crate::agreements::Agreements;

/// The threads of the LBS. A device that comes in is served by one of them from its first byte to its last. What takes long
/// about it, a key agreement or a TLS handshake, is done there too, and not on a thread that serves devices that are in.
pub struct LbsThreads {
    shards: Shards,
    agreements: Arc<[Arc<Agreements>]>,
}

impl LbsThreads {
    /// Starts `threads` of them; at each, `max_waiting` devices wait at most for a key agreement.
    ///
    /// # Errors
    /// When the system has no more threads or descriptors.
    pub fn start(threads: usize, max_waiting: usize) -> io::Result<LbsThreads> {
        let shards = Shards::start(&ShardsConfig { shards: threads, name: "lbs" })?;
        let agreements = (0..shards.len()).map(|_| Agreements::new(max_waiting)).collect();
        Ok(LbsThreads { shards, agreements })
    }

    /// Listens on an address and calls `serve` for each connection, on its thread and with what that does key agreements by.
    /// Port 0 picks a free one. Returns the address in use.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub fn listen<F, Fut>(
        &self,
        address: SocketAddr,
        max_connections: usize,
        name: &'static str,
        serve: F,
    ) -> io::Result<SocketAddr>
    where
        F: Fn(TcpStream, SocketAddr, Arc<Agreements>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let agreements = Arc::clone(&self.agreements);
        self.shards.listen(address, max_connections, name, move |stream, peer, shard| {
            serve(stream, peer, Arc::clone(&agreements[shard.number()]))
        })
    }

    /// What each thread does key agreements by.
    pub fn agreements(&self) -> &[Arc<Agreements>] {
        &self.agreements
    }

    /// Stops accepting and waits for the connections that are open, until the deadline.
    pub async fn shut_down(&self, patience: Duration) {
        self.shards.shut_down(patience).await;
    }

    /// Ends the threads. Connections still open are cut.
    pub fn stop(&self) {
        self.shards.stop();
    }
}
