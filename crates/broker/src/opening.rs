//! From accept to a session: one CONNECT, judged by the service.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vestibule_mqtt_codec::{Packet, decode};

use crate::broker::Shared;
use crate::connection::seconds;
use crate::listener::ListenerConfig;
use crate::service::{Login, Refused, Service};
use crate::session::Session;
use crate::shards::Shard;
use crate::socket::Socket;
use crate::strangers::Place;
use crate::tls::Tls;

/// The longest a service may take over a CONNECT. Legacy devices give up after 6 s (osap-wire 9.3).
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What the handshake needs; the session takes most of it over.
pub(crate) struct Opening<S: Service> {
    pub(crate) shard: Arc<Shard>,
    pub(crate) config: Arc<ListenerConfig>,
    pub(crate) service: Arc<S>,
    pub(crate) shared: Arc<Shared>,
}

impl<S: Service> Opening<S> {
    /// Reads the CONNECT and has the service judge it. `None`: the connection is over, counted and logged.
    pub(crate) async fn admit(self, socket: &mut Socket) -> Option<Session<S>> {
        let (listener, peer) = (self.config.name, socket.link.peer());
        match self.judge(socket).await {
            Ok(session) => Some(session),
            Err(reason) => {
                metrics::counter!("vestibule_connections_ended_total", "listener" => listener, "reason" => reason, "phase" => "connect")
                    .increment(1);
                tracing::debug!(listener, %peer, reason, "connection ended before it was a session");
                None
            }
        }
    }

    /// Makes the TLS handshake where the listener has one; then the CONNECT has its time. Until its login the peer has a place
    /// among the strangers there.
    async fn secure(&self, socket: &mut Socket) -> Result<Option<Place<'_>>, &'static str> {
        let Some(listener) = &self.config.tls else { return Ok(None) };
        let counted = |result: &'static str| {
            metrics::counter!("vestibule_tls_handshakes_total", "listener" => self.config.name, "result" => result)
                .increment(1);
        };
        let mut place = listener.enter(&socket.link).inspect_err(|&reason| counted(reason))?;
        let tls = Tls::new(&listener.config).map_err(|error| {
            tracing::error!(listener = self.config.name, %error, "the TLS configuration cannot be used");
            "internal_error"
        })?;
        // Large, and needed for a moment only.
        let secured = Box::pin(socket.secure(tls, || place.advance(Instant::now()))).await;
        counted(secured.err().unwrap_or("ok"));
        secured?;
        place.advance(Instant::now());
        socket.link.set_deadline(self.shard.now() + seconds(self.config.connect_timeout) + 1);
        Ok(Some(place))
    }

    /// An error is the reason for the end, as a short code.
    async fn judge(self, socket: &mut Socket) -> Result<Session<S>, &'static str> {
        let mut place = self.secure(socket).await?;
        let frame = socket.first_frame(self.config.max_connect).await?;
        if let Some(place) = &mut place {
            place.advance(Instant::now());
        }
        // From here on the login has its own limit of time.
        socket.link.set_deadline(0);
        let connect = match decode(&frame, self.config.profile.rules()) {
            Ok(Packet::Connect(connect)) => connect,
            Ok(_) => return Err("not_connect"),
            Err(error) => {
                tracing::debug!(listener = self.config.name, peer = %socket.link.peer(), %error, "CONNECT refused");
                if let Some(code) = error.connack_code() {
                    refuse(socket, code);
                }
                return Err("malformed_connect");
            }
        };
        if self.shard.is_closing() {
            refuse(socket, self.config.profile.going_down());
            return Err("shutdown");
        }
        let login = Login { connect: &connect, peer: socket.link.peer(), link: &socket.link, tls: socket.tls() };
        let judged = tokio::time::timeout(LOGIN_TIMEOUT, self.service.connect(login)).await;
        if let (Some(place), Ok(Ok(_))) = (place, &judged) {
            place.keep();
        }
        let admitted = match judged {
            Ok(Ok(admitted)) => admitted,
            Ok(Err(Refused { code, reason, delay })) => {
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                refuse(socket, code);
                return Err(reason);
            }
            Err(_) => return Err("login_timeout"),
        };
        let guest = admitted.guest;
        // From here on the service is told of the end in any case.
        let session =
            Session::open(admitted, Arc::clone(&socket.link), self.config, self.service, self.shared, &connect);
        socket.link.welcome();
        match guest {
            Some(patience) => socket.link.set_deadline(self.shard.now() + seconds(patience) + 1),
            None => session.touch(self.shard.now()),
        }
        self.shard.watch_sooner(&socket.link);
        Ok(session)
    }
}

fn refuse(socket: &mut Socket, code: u8) {
    socket.link.refuse(code);
    socket.close();
}
