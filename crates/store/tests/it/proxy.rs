//! A way to a server that a test can cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Passes connections on to a server. Ends with the test's runtime.
pub struct Proxy {
    pub port: u16,
    way: Arc<Way>,
}

struct Way {
    server: SocketAddr,
    /// Counts the cuts; a connection made before the last one is dead.
    cuts: watch::Sender<u64>,
    /// Bytes towards the server that still pass; below 0 nothing does.
    budget: AtomicI64,
}

impl Proxy {
    pub async fn before(server: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let way = Arc::new(Way { server, cuts: watch::Sender::new(0), budget: AtomicI64::new(i64::MAX) });
        let accepting = way.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().pass(client));
            }
        });
        Proxy { port, way }
    }

    /// Ends every connection and lets no new one through.
    pub fn cut(&self) {
        self.way.cut();
    }

    /// Lets connections through again.
    pub fn heal(&self) {
        self.way.budget.store(i64::MAX, Ordering::SeqCst);
    }

    /// Lets connections through until this many bytes have gone to the server; then it is cut in the middle of whatever
    /// is said.
    pub fn heal_for(&self, bytes: i64) {
        self.way.budget.store(bytes, Ordering::SeqCst);
    }

    pub fn is_cut(&self) -> bool {
        self.way.budget.load(Ordering::SeqCst) < 0
    }
}

impl Way {
    fn cut(&self) {
        self.budget.store(-1, Ordering::SeqCst);
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    async fn pass(self: Arc<Way>, client: TcpStream) {
        let mut cuts = self.cuts.subscribe();
        if self.budget.load(Ordering::SeqCst) < 0 {
            return;
        }
        let Ok(server) = TcpStream::connect(self.server).await else { return };
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let up = async {
            let mut bytes = [0; 4096];
            loop {
                let Ok(read @ 1..) = from_client.read(&mut bytes).await else { return };
                let left = self.budget.fetch_sub(read as i64, Ordering::SeqCst);
                let passing = usize::try_from(left).unwrap_or(0).min(read);
                if to_server.write_all(&bytes[..passing]).await.is_err() {
                    return;
                }
                if passing < read {
                    return self.cut();
                }
            }
        };
        let down = async {
            let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
        };
        tokio::select! {
            () = up => {}
            () = down => {}
            _ = cuts.changed() => {}
        }
    }
}
