//! Drives a [`Link`] over a TCP connection.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use osap::das::topic::GLOBAL;
use osap::lbs::client::Identity;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::task;
use tokio::time::{sleep_until, timeout};
use vestibule_mqtt_codec::{encode, frame_len};

use crate::calls::{Calls, Ended};
use crate::dial::Dial;
use crate::driver::{now, set_state};
use crate::hub::Told;
use crate::link::{Link, LinkEvent, MAX_PACKET, Note};
use crate::moving::Moving;
use crate::pass::PassThrough;
use crate::session::{Grant, LinkEnd, Session};
use crate::shared::Shared;
use crate::state::{LinkFault, State};
use crate::steering::{Steer, guarded, steer};

/// For a connection to come about (osap-wire 3.4).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the server may take to close after DISCONNECT.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What is read with one call.
const SCRATCH: usize = 4096;

/// Opens a connection that does not hold small packets back.
pub(crate) async fn connect(dial: &dyn Dial, host: &str, port: u16) -> Result<TcpStream, ErrorKind> {
    let stream = match timeout(CONNECT_TIMEOUT, dial.dial(host, port)).await {
        Ok(connected) => connected.map_err(|error| error.kind())?,
        Err(_) => return Err(ErrorKind::TimedOut),
    };
    stream.set_nodelay(true).map_err(|error| error.kind())?;
    Ok(stream)
}

/// One connection from CONNECT to its end.
pub(crate) struct Talk<'a> {
    shared: &'a Arc<Shared>,
    identity: &'a Identity,
    session: &'a mut Session,
    link: &'a mut Link,
    calls: &'a mut Option<Box<Calls>>,
    /// The way to another LBS.
    moving: Option<Moving>,
    /// The platform sent the device away.
    forced: bool,
    /// The rest of a packet the socket did not take as a whole.
    unsent: Vec<u8>,
    /// The beginning of a packet that has not arrived as a whole.
    unread: Vec<u8>,
}

impl<'a> Talk<'a> {
    pub(crate) fn new(
        shared: &'a Arc<Shared>,
        identity: &'a Identity,
        session: &'a mut Session,
        link: &'a mut Link,
        calls: &'a mut Option<Box<Calls>>,
    ) -> Self {
        if let Some(calls) = calls {
            calls.begin_connection(link.key(), shared);
        }
        let (unsent, unread) = (Vec::new(), Vec::new());
        Self { shared, identity, session, link, calls, moving: None, forced: false, unsent, unread }
    }

    /// Runs the connection to its end. An orderly goodbye ends in [`LinkEnd::Left`].
    pub(crate) async fn run(&mut self, mut stream: TcpStream) -> LinkEnd {
        let end = self.converse(&stream).await;
        if let Some(hub) = &mut *self.shared.hub.lock() {
            hub.handle_link_end();
        }
        match end {
            LinkEnd::Left | LinkEnd::ForcedOffline | LinkEnd::Lost(_) if self.link.is_closed() => {
                Box::pin(close(&mut stream)).await;
            }
            // The server may still hear it (osap-wire 9.9); whether it does is not our matter.
            LinkEnd::Lost(LinkFault::Silent | LinkFault::NoAnswer | LinkFault::Protocol) if self.unsent.is_empty() => {
                let mut goodbye = Vec::new();
                encode::disconnect(&mut goodbye);
                let _ = stream.try_write(&goodbye);
            }
            _ => {}
        }
        end
    }

    async fn converse(&mut self, stream: &TcpStream) -> LinkEnd {
        loop {
            self.collect();
            if let Err(fault) = self.transmit(stream) {
                return LinkEnd::Lost(fault);
            }
            if self.link.is_closed() && self.unsent.is_empty() {
                if self.forced {
                    return LinkEnd::ForcedOffline;
                }
                return if self.link.is_orderly() { LinkEnd::Left } else { LinkEnd::Lost(LinkFault::NoAnswer) };
            }
            let writable = self.unsent.is_empty();
            let deadline = self.link.poll_timeout(&self.shared.outbox.lock(), writable);
            let deadline = self.other_deadline().map_or(deadline, |other| other.min(deadline));
            let step = tokio::select! {
                ready = stream.ready(self.interest()) => match ready {
                    Ok(ready) if ready.is_readable() || ready.is_read_closed() => self.receive(stream),
                    Ok(_) => Ok(None),
                    Err(error) => Err(LinkFault::Io(error.kind())),
                },
                () = self.shared.wake.notified() => {
                    if self.shared.stop_requested() {
                        self.link.handle_stop(now());
                    }
                    Ok(None)
                }
                (id, body) = ended(self.calls) => {
                    if let Some(calls) = self.calls {
                        let Ended { answer, set } = calls.finish(now(), id, body, self.shared);
                        if let Some(answer) = answer {
                            self.link.answer(answer);
                        }
                        if let Some((path, value)) = set {
                            self.shared.report_set(&path, value);
                        }
                    }
                    Ok(None)
                }
                (host, grant) = moved(&mut self.moving) => {
                    self.moved(host, grant);
                    Ok(None)
                }
                () = sleep_until(deadline.into()) => self.link.handle_timeout(now()).map(|()| None),
            };
            match step {
                Ok(None) => {}
                Ok(Some(code)) => return LinkEnd::Refused(code),
                Err(fault) => return LinkEnd::Lost(fault),
            }
        }
    }

    /// What the children, the program and unanswered questions have to say by now.
    fn collect(&mut self) {
        if !self.link.is_online() {
            return;
        }
        let now = now();
        self.shared.ask_again(now);
        for note in self.shared.steering.lock().take_notes() {
            self.note(note);
        }
        while let Some(note) = self.shared.hub.lock().as_mut().and_then(|hub| hub.poll(now)) {
            self.note(note);
        }
        let told = self.shared.hub.lock().as_mut().map(|hub| hub.take_told()).unwrap_or_default();
        for Told { serial, lane, report } in told {
            if report {
                self.shared.report_all(now, &serial);
            }
            self.shared.outbox.lock().open_lane(lane);
        }
    }

    /// When [`collect`](Self::collect) has something to do without anything else happening.
    fn other_deadline(&self) -> Option<Instant> {
        if !self.link.is_online() {
            return None;
        }
        let children = self.shared.hub.lock().as_ref().and_then(|hub| hub.deadline());
        [self.shared.attributes.lock().queries.deadline(), children].into_iter().flatten().min()
    }

    /// Sends a command, unless the platform forbade it (osap-wire 10.5).
    fn note(&mut self, note: Note) {
        let (domain, number) = (note.command.domain(), note.command.number());
        if self.shared.steering.lock().risk.forbids(domain, number) {
            self.shared.count(|count| &count.forbidden);
            tracing::debug!(serial = %self.shared.profile.serial, command = note.command.name(), "forbidden");
        } else {
            self.link.note(note);
        }
    }

    fn interest(&self) -> Interest {
        match (self.unsent.is_empty(), self.link.is_congested()) {
            (true, _) => Interest::READABLE,
            (false, false) => Interest::READABLE | Interest::WRITABLE,
            (false, true) => Interest::WRITABLE,
        }
    }

    /// Writes what is due, each packet with a call of its own.
    fn transmit(&mut self, stream: &TcpStream) -> Result<(), LinkFault> {
        let mut packet = std::mem::take(&mut self.unsent);
        loop {
            let mut written = 0;
            while let Some(rest) = packet.get(written..).filter(|rest| !rest.is_empty()) {
                match stream.try_write(rest) {
                    Ok(0) => return Err(LinkFault::Closed),
                    Ok(count) => written += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        packet.drain(..written);
                        self.unsent = packet;
                        return Ok(());
                    }
                    Err(error) => return Err(fault(&error)),
                }
            }
            packet.clear();
            if !self.link.poll_transmit(now(), &mut self.shared.outbox.lock(), &mut packet) {
                return Ok(());
            }
        }
    }

    /// Reads once and takes the packets that are complete. `Some` is the code of a refusal.
    fn receive(&mut self, stream: &TcpStream) -> Result<Option<u8>, LinkFault> {
        let mut scratch = [0; SCRATCH];
        let count = match stream.try_read(&mut scratch) {
            Ok(0) => return Err(LinkFault::Closed),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(fault(&error)),
        };
        // `try_read` gives at most what the buffer holds.
        let fresh = scratch.get(..count).unwrap_or_default();
        if self.unread.is_empty() {
            let (used, refused) = self.packets(fresh)?;
            self.unread = fresh.get(used..).unwrap_or_default().to_vec();
            return Ok(refused);
        }
        let mut buffer = std::mem::take(&mut self.unread);
        buffer.extend_from_slice(fresh);
        let (used, refused) = self.packets(&buffer)?;
        buffer.drain(..used);
        // An idle connection owns no buffer.
        self.unread = if buffer.is_empty() { Vec::new() } else { buffer };
        Ok(refused)
    }

    /// Takes the complete packets at the beginning of `bytes` and says how long they are.
    fn packets(&mut self, bytes: &[u8]) -> Result<(usize, Option<u8>), LinkFault> {
        let mut used = 0;
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            let len = frame_len(rest, MAX_PACKET).map_err(|_| LinkFault::Protocol)?;
            let Some(frame) = len.and_then(|len| rest.get(..len)) else { return Ok((used, None)) };
            used += frame.len();
            if let Some(code) = self.packet(frame)? {
                return Ok((used, Some(code)));
            }
        }
    }

    fn packet(&mut self, frame: &[u8]) -> Result<Option<u8>, LinkFault> {
        let event = self.link.handle_frame(now(), frame, &mut self.shared.outbox.lock())?;
        match event {
            None => {}
            Some(LinkEvent::Accepted { ready }) => {
                self.shared.count(|count| &count.logins);
                self.session.handle_accepted();
                if ready {
                    self.ready();
                }
            }
            Some(LinkEvent::Ready) => self.ready(),
            Some(LinkEvent::Refused(code)) => return Ok(Some(code)),
            Some(LinkEvent::Acknowledged(token)) => {
                self.shared.count(|count| &count.acknowledged);
                // Nobody may be waiting any more; the event is stored all the same.
                let _ = token.send(());
            }
            Some(LinkEvent::Operate(call)) => {
                let calls = self.calls.get_or_insert_with(|| Box::new(Calls::new(self.link.key().clone())));
                if let Some(answer) = calls.take(now(), *call, self.shared) {
                    self.link.answer(answer);
                }
            }
            Some(LinkEvent::Wish(wishes)) => {
                let calls = self.calls.get_or_insert_with(|| Box::new(Calls::new(self.link.key().clone())));
                if wishes.seq.is_none() {
                    self.shared.attributes.lock().queries.answered(&wishes.place);
                }
                for answer in calls.take_wishes(now(), *wishes, self.shared) {
                    self.link.answer(answer);
                }
            }
            Some(LinkEvent::Command { command, seq, body }) => match steer(self.shared, command, seq, &body) {
                Some(steer) => self.steer(steer),
                None => self.shared.count(|count| &count.ignored),
            },
            Some(LinkEvent::Pass { seq, pass }) => self.pass(seq, *pass),
            Some(LinkEvent::Ignored) => self.shared.count(|count| &count.ignored),
        }
        Ok(None)
    }

    fn ready(&mut self) {
        let (now, full) = (now(), self.link.is_full_login());
        self.session.handle_ready(now);
        if full {
            self.shared.report_all(now, GLOBAL);
        }
        // In this order: a program that makes the device a hub right now looks at the state.
        set_state(self.shared, State::Online);
        if let Some(hub) = &mut *self.shared.hub.lock() {
            hub.handle_ready(now, full);
        }
    }

    fn steer(&mut self, steer: Steer) {
        match steer {
            Steer::Done => {}
            Steer::Answer(note) => self.note(note),
            Steer::KeepAlive(seconds) => {
                self.link.set_keep_alive(seconds);
                self.session.handle_keep_alive(seconds);
            }
            Steer::Leave => {
                self.forced = true;
                self.link.leave(now());
            }
            Steer::Move(host) => self.begin_move(host),
            Steer::Verdict { serial, accepted } => {
                let verdict = self.shared.hub.lock().as_mut().and_then(|hub| hub.handle_verdict(&serial, accepted));
                match verdict {
                    Some(None) => {}
                    Some(Some(lane)) => {
                        tracing::warn!(hub = %self.shared.profile.serial, child = %serial, "the child is refused");
                        self.shared.outbox.lock().drop_lane(lane);
                    }
                    None => self.shared.count(|count| &count.ignored),
                }
            }
        }
    }

    /// Hands bytes of an application to the program, once.
    fn pass(&mut self, seq: u64, pass: PassThrough) {
        let calls = self.calls.get_or_insert_with(|| Box::new(Calls::new(self.link.key().clone())));
        let operations = self.shared.operations_of(pass.child.as_deref().unwrap_or(GLOBAL));
        match operations.as_ref().and_then(|operations| operations.pass()) {
            Some(handler) if calls.is_new_pass(seq) => {
                self.shared.count(|count| &count.passed);
                guarded(self.shared, || handler(pass));
            }
            _ => self.shared.count(|count| &count.ignored),
        }
    }

    /// The platform sends the device to another LBS. The present connection goes on until that one has taken it.
    fn begin_move(&mut self, host: Box<str>) {
        let profile = &self.shared.profile;
        let present = self.session.lbs_host().unwrap_or(&profile.lbs_host);
        let under_way = self.moving.as_ref().is_some_and(|moving| moving.host == host);
        if *host == *present || under_way {
            return;
        }
        let Some((dev_id, case)) = self.session.dev_id() else { return };
        tracing::info!(serial = %profile.serial, %host, "sent to another LBS");
        self.moving = Some(Moving::new(Arc::clone(self.shared), host, self.identity.clone(), dev_id, case));
    }

    /// The attempts at another LBS are over.
    fn moved(&mut self, host: Box<str>, grant: Option<Grant>) {
        self.moving = None;
        if let Some(grant) = grant {
            self.shared.count(|count| &count.authentications);
            let host = (host != self.shared.profile.lbs_host).then_some(host);
            self.session.handle_moved(host, grant);
            self.link.handle_stop(now());
        }
    }
}

/// Waits for the end of the attempts at another LBS; for ever when there are none.
async fn moved(moving: &mut Option<Moving>) -> (Box<str>, Option<Grant>) {
    match moving {
        Some(moving) => {
            let grant = moving.ended().await;
            (moving.host.clone(), grant)
        }
        None => std::future::pending().await,
    }
}

/// Waits until an operation has ended; for ever when none is under way.
async fn ended(calls: &mut Option<Box<Calls>>) -> (task::Id, Box<[u8]>) {
    match calls {
        Some(calls) => calls.ended().await,
        None => std::future::pending().await,
    }
}

/// Closes so that DISCONNECT arrives: a socket with unread bytes would be reset.
async fn close(stream: &mut TcpStream) {
    let drain = async {
        stream.shutdown().await?;
        let mut scratch = [0; 256];
        while stream.read(&mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    // However this ends, the goodbye has been said.
    let _ = timeout(CLOSE_TIMEOUT, drain).await;
}

fn fault(error: &io::Error) -> LinkFault {
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => LinkFault::Closed,
        kind => LinkFault::Io(kind),
    }
}

#[cfg(test)]
mod tests {
    use osap::das::cipher::SessionCipher;
    use osap::{Code, DevId, Serial, SessionKey};
    use tokio::net::{TcpListener, TcpSocket};
    use tokio::sync::oneshot;
    use vestibule_mqtt_codec::{Packet, Rules, decode};

    use super::*;
    use crate::clock::SystemClock;
    use crate::outbox::{DEVICE, Limits};
    use crate::profile::Profile;
    use crate::session::Login;

    const EVENTS: usize = 128;

    /// Reads until all events have come; gives their packet ids.
    async fn read_events(listener: TcpListener, begin: oneshot::Receiver<()>) -> Vec<u16> {
        let (mut stream, _) = listener.accept().await.unwrap();
        begin.await.unwrap();
        let (mut buffer, mut ids) = (Vec::new(), Vec::new());
        while ids.len() < EVENTS {
            assert_ne!(stream.read_buf(&mut buffer).await.unwrap(), 0);
            while let Some(len) = frame_len(&buffer, MAX_PACKET).unwrap().filter(|&len| len <= buffer.len()) {
                let frame: Vec<u8> = buffer.drain(..len).collect();
                if let Packet::Publish(publish) = decode(&frame, &Rules::OSAP_LEGACY).unwrap() {
                    ids.extend(publish.head.packet_id);
                }
            }
        }
        ids
    }

    #[tokio::test]
    async fn a_packet_the_socket_takes_in_part_is_continued() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_send_buffer_size(4096).unwrap();
        let address = listener.local_addr().unwrap();
        let (begin, begun) = oneshot::channel();
        let peer = tokio::spawn(read_events(listener, begun));
        let stream = socket.connect(address).await.unwrap();

        let profile = Profile {
            serial: Serial::new("SN0000001").unwrap(),
            lbs_host: "lbs.example".into(),
            lbs_port: 8666,
            keep_alive: 30,
            firmware: "1.2.3".into(),
            device_type: "Camera".into(),
            mac: "".into(),
        };
        let limits = Limits { events: EVENTS, bytes: usize::MAX, window: EVENTS };
        let shared = Arc::new(Shared::new(profile, Arc::new(SystemClock), Arc::default(), limits));
        let identity = Identity::new(shared.profile.serial.clone(), Code::new("ABCDEF").unwrap());
        let cipher = SessionCipher::new(SessionKey::from_bytes(&[7; 16]).unwrap());
        let dev_id = DevId::parse(&[b'1'; 32]).unwrap();
        let login = Login { full: false, subscribe: false, first: false };
        let mut link = Link::new(now(), Arc::clone(&shared.profile), cipher, dev_id, login);
        let mut session = Session::new(None);
        let mut calls = None;
        let mut talk = Talk::new(&shared, &identity, &mut session, &mut link, &mut calls);

        talk.transmit(&stream).unwrap();
        talk.packets(&[0x20, 2, 0, 0]).unwrap();
        for _ in 0..EVENTS {
            let (token, _) = oneshot::channel();
            shared.outbox.lock().push(DEVICE, "t".into(), "x".repeat(14_000).into_bytes().into(), token).unwrap();
        }
        stream.writable().await.unwrap();
        talk.transmit(&stream).unwrap();
        assert!(!talk.unsent.is_empty(), "nobody reads, so the socket is full");
        assert!(talk.interest().is_writable());

        begin.send(()).unwrap();
        while !talk.unsent.is_empty() {
            stream.writable().await.unwrap();
            talk.transmit(&stream).unwrap();
        }
        assert!(!talk.interest().is_writable());
        let ids = peer.await.unwrap();
        assert_eq!(ids, (1..=EVENTS as u16).collect::<Vec<_>>());
    }
}
