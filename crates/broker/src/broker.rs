//! The engine: shards, sessions and router of one process.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::connection;
use crate::end::EndReason;
use crate::listener::ListenerConfig;
use crate::router::Router;
use crate::service::Service;
use crate::sessions::Sessions;
use crate::shards::{Shards, ShardsConfig};

/// The MQTT engine of a process. Listeners share its shards, its sessions and its router.
pub struct Broker {
    shards: Arc<Shards>,
    shared: Arc<Shared>,
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) sessions: Sessions,
    pub(crate) router: Router,
}

impl Broker {
    /// Starts the shards.
    pub fn start(config: &ShardsConfig) -> io::Result<Broker> {
        let shared = Arc::new(Shared { sessions: Sessions::new(), router: Router::default() });
        Ok(Broker { shards: Arc::new(Shards::start(config)?), shared })
    }

    /// The runtimes.
    pub fn shards(&self) -> &Arc<Shards> {
        &self.shards
    }

    /// The subscriptions, for messages that the server itself has to say.
    pub fn router(&self) -> &Router {
        &self.shared.router
    }

    /// Serves MQTT on an address. Port 0 picks a free one. Returns the address in use.
    pub fn listen<S: Service>(
        &self,
        address: SocketAddr,
        config: ListenerConfig,
        service: Arc<S>,
    ) -> io::Result<SocketAddr> {
        let (name, max_connections) = (config.name, config.max_connections);
        let config = Arc::new(config);
        let shared = Arc::clone(&self.shared);
        self.shards.listen(address, max_connections, name, move |stream, peer, shard| {
            connection::serve(stream, peer, shard, Arc::clone(&config), Arc::clone(&service), Arc::clone(&shared))
        })
    }

    /// Stops accepting, has every session end in order (what is owed is acknowledged first) and waits for them
    /// until the deadline. Connections left after it are cut by [`Shards::stop`].
    pub async fn shut_down(&self, patience: Duration) {
        self.shards.close_listeners();
        // A connection that is not on the wheels yet finds the listeners closed.
        self.shards.for_each_link(|link| link.end(EndReason::Shutdown));
        self.shards.shut_down(patience).await;
    }
}
