//! The connection of a device, with somebody's hand on the cable.
//!
//! Where connections are to be interfered with, the device talks to a relay in this process, and the relay to the
//! DAS. It costs two descriptors more for each device. The short conversations with the LBS go past it: thousands of
//! them would use up the machine's ports.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use vestibule_device::{Dial, Dialing};

/// What the relay holds of each direction: thousands of them wait in one process.
const BUFFER: usize = 1_024;

/// What happens to the cable.
#[derive(Debug, Clone, Copy)]
enum Order {
    /// Nothing yet.
    Carry,
    /// Both ends are closed, and nobody says goodbye.
    Cut,
    /// Nothing passes until then.
    Silence(Instant),
}

/// The cable of one device: every connection to a DAS that it opens from now on is relayed.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    orders: Arc<watch::Sender<Order>>,
    /// `host:port`.
    lbs: Arc<str>,
}

impl Wire {
    pub(crate) fn new(lbs: &Arc<str>) -> Wire {
        Wire { orders: Arc::new(watch::Sender::new(Order::Carry)), lbs: Arc::clone(lbs) }
    }

    /// Cuts the open connection; `false` when there is none.
    pub(crate) fn cut(&self) -> bool {
        self.order(Order::Cut)
    }

    /// Lets nothing pass for so long; `false` when there is no connection.
    pub(crate) fn silence(&self, time: Duration) -> bool {
        self.order(Order::Silence(Instant::now() + time))
    }

    fn order(&self, order: Order) -> bool {
        self.orders.send(order).is_ok()
    }

    async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        let far = TcpStream::connect((host, port)).await?;
        if self.is_lbs(host, port) {
            return Ok(far);
        }
        let (near, end) = pair().await?;
        for stream in [&far, &near] {
            stream.set_nodelay(true)?;
        }
        // An order given before this moment was for another connection.
        tokio::spawn(relay(near, far, self.orders.subscribe()));
        Ok(end)
    }

    fn is_lbs(&self, host: &str, port: u16) -> bool {
        let lbs = self.lbs.strip_prefix("osaps://").unwrap_or(&self.lbs).rsplit_once(':');
        lbs.is_some_and(|(name, number)| name.trim_matches(['[', ']']) == host && number.parse() == Ok(port))
    }
}

impl Dial for Wire {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a> {
        Box::pin(self.connect(host, port))
    }
}

/// The two ends of a connection within this machine.
async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let end = TcpStream::connect(listener.local_addr()?).await?;
    let ours = end.local_addr()?;
    loop {
        // Somebody else may have been faster.
        let (near, peer) = listener.accept().await?;
        if peer == ours {
            return Ok((near, end));
        }
    }
}

/// Carries bytes until an end closes or the cable is cut.
async fn relay(mut near: TcpStream, mut far: TcpStream, mut orders: watch::Receiver<Order>) {
    let mut carry = std::pin::pin!(copy_bidirectional_with_sizes(&mut near, &mut far, BUFFER, BUFFER));
    loop {
        tokio::select! {
            _ = &mut carry => return,
            changed = orders.changed() => {
                let order = *orders.borrow_and_update();
                match order {
                    // The device is gone, and its connection with it.
                    _ if changed.is_err() => return,
                    Order::Cut => return,
                    Order::Silence(until) => {
                        tokio::select! {
                            () = sleep_until(until) => {}
                            // The next order does not wait; it is read in the next turn.
                            _ = orders.changed() => orders.mark_changed(),
                        }
                    }
                    Order::Carry => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn connected() -> (Wire, TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a listener");
        let wire = Wire::new(&"lbs.example:8666".into());
        let port = listener.local_addr().expect("an address").port();
        let end = wire.dial("127.0.0.1", port).await.expect("a connection");
        let (platform, _) = listener.accept().await.expect("a connection");
        (wire, end, platform)
    }

    #[tokio::test]
    async fn bytes_pass_until_the_cable_is_cut() {
        let (wire, mut device, mut platform) = connected().await;
        let mut byte = [0];
        device.write_all(b"a").await.expect("written");
        platform.read_exact(&mut byte).await.expect("read");
        platform.write_all(b"b").await.expect("written");
        device.read_exact(&mut byte).await.expect("read");
        assert_eq!(byte, *b"b");
        assert!(wire.cut());
        assert_eq!(platform.read(&mut byte).await.ok(), Some(0), "the platform sees an end");
        assert_eq!(device.read(&mut byte).await.ok(), Some(0), "and so does the device");
        while wire.cut() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_holds_what_is_sent_and_then_lets_it_pass() {
        let (wire, mut device, mut platform) = connected().await;
        assert!(wire.silence(Duration::from_secs(5)));
        let begun = Instant::now();
        // The relay has to see the order before the byte.
        tokio::time::sleep(Duration::from_millis(1)).await;
        device.write_all(b"a").await.expect("written");
        let mut byte = [0];
        platform.read_exact(&mut byte).await.expect("read");
        assert!(begun.elapsed() >= Duration::from_secs(5));
    }

    #[tokio::test]
    async fn a_cut_ends_a_silence() {
        let (wire, _device, mut platform) = connected().await;
        assert!(wire.silence(Duration::from_secs(3_600)) && wire.cut());
        assert_eq!(platform.read(&mut [0]).await.ok(), Some(0));
    }

    #[tokio::test]
    async fn without_a_connection_there_is_nothing_to_cut() {
        let wire = Wire::new(&"lbs.example:8666".into());
        assert!(!wire.cut() && !wire.silence(Duration::from_secs(1)));
    }

    #[tokio::test]
    async fn a_conversation_with_the_lbs_goes_past_the_relay() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let wire = Wire::new(&address.to_string().into());
        let end = wire.dial("127.0.0.1", address.port()).await.expect("a connection");
        assert_eq!(end.peer_addr().expect("connected"), address);
        assert!(!wire.cut());
        let wire = Wire::new(&"[::1]:8666".into());
        assert!(wire.is_lbs("::1", 8666) && !wire.is_lbs("::1", 8667) && !wire.is_lbs("::2", 8666));
    }
}
