//! The load balancing service: drives OSAP's server machine over TCP (osap-wire 3 to 5).

mod connection;
mod modern;
mod threads;
mod visit;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use osap::lbs::Decoy;
use osap::lbs::server::ServerPolicy;
use osap::{Random, SystemRandom};
use tokio::net::TcpStream;
use vestibule_platform::Platform;

pub use self::modern::{ModernLbs, ModernLbsConfig};
pub use self::threads::LbsThreads;

use self::connection::{Connection, Failure};
use self::visit::Visit;
use crate::agreements::Agreements;
use crate::assignment::Assignment;
use crate::attempts::Attempts;
use crate::crowd::{Crowd, Limits};
use crate::origin::Origin;
use crate::repeats::Repeats;

/// Limits of the LBS.
#[derive(Debug, Clone)]
pub struct LbsConfig {
    /// From one frame to the next (osap-wire 3.4).
    pub frame_timeout: Duration,
    /// From accept to the end of the run.
    pub run_timeout: Duration,
    /// Longest frame, header included (osap-wire 5.13).
    pub max_frame: usize,
    /// A refused code is answered no sooner than this after the request (osap-wire 13.2.3): what is read of a known serial
    /// from the disk, and not of an unknown one, does not show.
    pub refusal_pace: Duration,
    /// Connections open at once. Past it one whose device has not proven yet who it is makes room for each newcomer, so the
    /// listener should take some more.
    pub max_connections: usize,
    /// Connections open at once from one address, or one /64 of IPv6.
    pub max_per_address: usize,
    /// Connections open at once from one network (/24, or /48 of IPv6).
    pub max_per_network: usize,
    /// How often a code may be tried: what is left of it here and at the other doors.
    pub attempts: Arc<Attempts>,
    /// Whether generation G0 is served (osap-wire 7).
    pub g0: bool,
}

impl Default for LbsConfig {
    fn default() -> Self {
        LbsConfig {
            frame_timeout: Duration::from_secs(10),
            run_timeout: Duration::from_secs(30),
            max_frame: ServerPolicy::MAX_FRAME,
            refusal_pace: Duration::from_millis(25),
            max_connections: 3_840,
            max_per_address: 1_024,
            max_per_network: 2_048,
            attempts: Arc::default(),
            g0: false,
        }
    }
}

/// Where the randomness of a run comes from: one source for each connection.
pub type RandomSource = Arc<dyn Fn() -> Box<dyn Random + Send> + Send + Sync>;

/// The load balancing service.
pub struct Lbs {
    platform: Arc<Platform>,
    assignment: Arc<Assignment>,
    config: LbsConfig,
    random: RandomSource,
    decoy: Decoy,
    crowd: Crowd,
    repeats: Repeats,
}

impl Lbs {
    /// A service over the platform.
    pub fn new(platform: Arc<Platform>, assignment: Arc<Assignment>, config: LbsConfig) -> Arc<Lbs> {
        Lbs::with_random(platform, assignment, config, Arc::new(|| Box::new(SystemRandom)))
    }

    /// The same with keys, DevIDs and challenges drawn from another source than the system's, so that a recorded
    /// exchange can be repeated byte for byte.
    pub fn with_random(
        platform: Arc<Platform>,
        assignment: Arc<Assignment>,
        config: LbsConfig,
        random: RandomSource,
    ) -> Arc<Lbs> {
        let decoy = Decoy::draw(&mut SystemRandom);
        let LbsConfig { max_connections: total, max_per_address: per_host, max_per_network: per_site, .. } = config;
        let crowd = Crowd::new(Limits { total, per_host, per_site });
        let repeats = Repeats::default();
        Arc::new(Lbs { platform, assignment, config, random, decoy, crowd, repeats })
    }

    /// Serves one connection: one run of one device. Its key agreement is done by `agreements`, which are this thread's.
    pub async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, agreements: Arc<Agreements>) {
        let origin = Origin::from(peer.ip());
        let Some((place, notice)) = self.crowd.enter(origin) else {
            metrics::counter!("vestibule_lbs_refused_total", "reason" => "crowd").increment(1);
            return;
        };
        let mut connection = Connection::new(stream);
        let mut visit = Visit::new(&self, &place, origin, &agreements);
        let outcome = tokio::select! {
            run = tokio::time::timeout(self.config.run_timeout, visit.run(&mut connection)) => {
                run.unwrap_or(Err(Failure::TimedOut))
            }
            () = notice.given() => {
                metrics::counter!("vestibule_lbs_made_room_total").increment(1);
                Err(Failure::MadeRoom)
            }
        };
        visit.charge(&outcome);
        // When a refused one ends tells nothing of what is noted, which is more for a serial that exists (osap-wire 13.2.3).
        drop(connection);
        visit.note(outcome);
    }
}
