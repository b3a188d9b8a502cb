//! One connection: its task, from accept to the end.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::broker::Shared;
use crate::end::EndReason;
use crate::inflight::Inflight;
use crate::link::Link;
use crate::listener::ListenerConfig;
use crate::opening::Opening;
use crate::scratch::SCRATCH;
use crate::service::Service;
use crate::session::Session;
use crate::shards::Shard;
use crate::socket::{Socket, Turn};

/// Serves one connection until its end.
///
/// Not an `async fn`, because the arguments of one live in its future beside what is made of them.
pub(crate) fn serve<S: Service>(
    stream: TcpStream,
    peer: SocketAddr,
    shard: Arc<Shard>,
    config: Arc<ListenerConfig>,
    service: Arc<S>,
    shared: Arc<Shared>,
) -> impl Future<Output = ()> + Send {
    let inflight = Inflight::new(config.max_inflight, config.inflight_patience);
    let link = Link::new(peer, config.max_out, inflight);
    let first = config.tls.as_ref().map_or(config.connect_timeout, |tls| tls.handshake_timeout);
    link.set_deadline(shard.now() + seconds(first) + 1);
    shard.watch(&link);
    if shard.is_closing() {
        // Accepted at the last moment: nobody else tells it.
        link.end(EndReason::Shutdown);
    }
    let mut socket = Socket::new(stream, link, config.max_frame);
    async move {
        // The handshake is rare and large: boxed, it does not weigh on the connection's whole life.
        let opening = Opening { shard: Arc::clone(&shard), config, service, shared };
        let Some(mut session) = Box::pin(opening.admit(&mut socket)).await else { return };
        let reason = run(&mut socket, &mut session, &shard).await;
        // What may still be acknowledged, or was asked to be said, is tried once.
        session.release_acks();
        socket.close();
        session.finish(reason);
    }
}

/// The life of an admitted session. Returns why it ended.
async fn run<S: Service>(socket: &mut Socket, session: &mut Session<S>, shard: &Arc<Shard>) -> EndReason {
    loop {
        session.release_acks();
        let Ok(left) = socket.flush() else { return EndReason::Lost };
        let ending = socket.link.ending();
        if let Some(reason) = ending {
            // A session that ends in order keeps its promises: what becomes durable is acknowledged, as long as
            // the peer takes it; the broker's deadline bounds the wait.
            let finishing = reason == EndReason::Shutdown && (session.owes() || left > 0);
            if !finishing {
                return reason;
            }
        }
        // A peer that does not take its answers is given no more of them.
        let listen = ending.is_none() && !session.is_held() && left < session.max_out();
        session.attend(listen, shard.now());
        if session.owes() || session.is_held() {
            // A mark that has moved since the look above is not missed: who wakes the list runs on this thread,
            // and there is no await in between.
            shard.wait_for_advance(&socket.link);
        }
        if listen && socket.has_frame() {
            if let ControlFlow::Break(reason) = socket.work_off(session) {
                return reason;
            }
            session.touch(shard.now());
            if session.take_pressed() {
                tokio::task::yield_now().await;
            }
            continue;
        }
        match socket.turn(session, listen, left > 0).await {
            ControlFlow::Continue(Turn::Woken | Turn::Writable) => {}
            ControlFlow::Continue(Turn::Read(n)) => {
                session.touch(shard.now());
                // A publisher that always has more, or whose subscribers have much waiting, lets them write first.
                if session.take_pressed() || n == SCRATCH {
                    tokio::task::yield_now().await;
                }
            }
            ControlFlow::Break(reason) => return reason,
        }
    }
}

/// Whole seconds, as the shard counts them.
pub(crate) fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Admitted, Denied, Disposition, Inbound, Login, Refused, Subscription};
    use vestibule_mqtt_codec::QoS;

    struct Nothing;

    /// As large as a `DasSession` may be.
    struct Kept(#[expect(dead_code, reason = "for its size")] (Arc<str>, [u64; 9]));

    impl Service for Nothing {
        type Session = Kept;
        type Grant = ();

        async fn connect(&self, _: Login<'_>) -> Result<Admitted<Kept>, Refused> {
            Err(Refused { code: 5, reason: "test", delay: Duration::ZERO })
        }

        fn authorize(&self, _: &mut Kept, _: &str) -> Result<(), Denied> {
            Ok(())
        }

        fn publish(&self, _: &mut Kept, _: &(), _: Inbound<'_>) -> Disposition {
            Disposition::Done
        }

        fn subscribe(&self, _: &mut Kept, _: &str, _: QoS) -> Subscription {
            Subscription::Refused
        }

        fn ended(&self, _: Kept, _: EndReason) {}
    }

    fn size_of_output<A, B, C, D, E, F, Out>(_: fn(A, B, C, D, E, F) -> Out) -> usize {
        size_of::<Out>()
    }

    #[test]
    fn the_task_of_a_connection_is_small() {
        let task = size_of_output(serve::<Nothing>);
        println!("connection task {task} B, session {} B, link {} B", size_of::<Session<Nothing>>(), size_of::<Link>());
        // On 64 bits, tokio 1.54 adds 104 bytes and the shard 16, and the whole takes a multiple of 128: more than this
        // would make it 768.
        assert!(task <= 520, "{task} B for each idle connection");
    }
}
