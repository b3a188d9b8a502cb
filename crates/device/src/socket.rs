//! Drives a [`Link`] over a connection.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use osap::das::topic::GLOBAL;
use tokio::net::TcpStream;
use tokio::task;
use tokio::time::{sleep_until, timeout};
use vestibule_mqtt_codec::{encode, frame_len};

use crate::calls::{Calls, Ended};
use crate::dial::Dial;
use crate::driver::{now, set_state};
use crate::entrance::Entrance;
use crate::link::{Link, LinkEvent, MAX_PACKET};
use crate::moving::Moving;
use crate::session::{LinkEnd, Session};
use crate::shared::Shared;
use crate::state::{LinkFault, State};
use crate::steering::steer;
use crate::stream::Stream;

mod steered;

/// For a connection to come about (osap-wire 3.4).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

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
    entrance: &'a Arc<Entrance>,
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
        entrance: &'a Arc<Entrance>,
        session: &'a mut Session,
        link: &'a mut Link,
        calls: &'a mut Option<Box<Calls>>,
    ) -> Self {
        if let Some(calls) = calls {
            calls.begin_connection(link.epoch(), shared);
        }
        let (unsent, unread) = (Vec::new(), Vec::new());
        Self { shared, entrance, session, link, calls, moving: None, forced: false, unsent, unread }
    }

    /// Runs the connection to its end. An orderly goodbye ends in [`LinkEnd::Left`].
    pub(crate) async fn run(&mut self, mut stream: Stream) -> LinkEnd {
        let mut end = self.converse(&mut stream).await;
        if self.forced {
            // The DAS may hang up before the goodbye is out (osap-wire 10.5).
            end = LinkEnd::ForcedOffline;
        }
        if let Some(hub) = &mut *self.shared.hub.lock() {
            hub.handle_link_end();
        }
        self.shared.steering.lock().handle_link_end();
        match end {
            LinkEnd::Left | LinkEnd::ForcedOffline | LinkEnd::Lost(_) if self.link.is_closed() => {
                Box::pin(stream.close()).await;
            }
            // The server may still hear it (osap-wire 9.9); whether it does is not our matter.
            LinkEnd::Lost(
                LinkFault::Silent
                | LinkFault::NoAnswer
                | LinkFault::Protocol
                | LinkFault::NoReceipt
                | LinkFault::Exhausted,
            ) if self.unsent.is_empty() => {
                let mut goodbye = Vec::new();
                encode::disconnect(&mut goodbye);
                let _ = stream.try_write(&goodbye);
            }
            _ => {}
        }
        end
    }

    async fn converse(&mut self, stream: &mut Stream) -> LinkEnd {
        loop {
            self.collect();
            if let Err(fault) = self.transmit(stream) {
                return LinkEnd::Lost(fault);
            }
            let writable = self.unsent.is_empty() && !stream.is_behind();
            if self.link.is_closed() && writable {
                return if self.link.is_orderly() { LinkEnd::Left } else { LinkEnd::Lost(LinkFault::NoAnswer) };
            }
            let deadline = self.link.poll_timeout(&self.shared.outbox.lock(), writable);
            let deadline = self.other_deadline().map_or(deadline, |other| other.min(deadline));
            let step = tokio::select! {
                ready = stream.ready(self.wants_read(writable), !writable) => match ready {
                    Ok(ready) if ready.readable => self.receive(stream),
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
                (host, grant) = steered::moved(&mut self.moving) => {
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

    /// While nothing can be said, too much to be said stops the reading.
    fn wants_read(&self, writable: bool) -> bool {
        writable || !self.link.is_congested()
    }

    /// Writes what is due, each packet with a call of its own.
    fn transmit(&mut self, stream: &mut Stream) -> Result<(), LinkFault> {
        match stream.try_flush() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            flushed => flushed.map_err(|error| fault(&error))?,
        }
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
            // What is sealed goes out at once or not at all.
            if stream.is_behind() || !self.link.poll_transmit(now(), &mut self.shared.outbox.lock(), &mut packet)? {
                return Ok(());
            }
        }
    }

    /// Reads once and takes the packets that are complete. `Some` is the code of a refusal.
    fn receive(&mut self, stream: &mut Stream) -> Result<Option<u8>, LinkFault> {
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
                self.shared.handle_acknowledged(token);
            }
            Some(LinkEvent::Received(tokens)) => {
                for token in tokens {
                    self.shared.count(|count| &count.acknowledged);
                    self.shared.handle_acknowledged(token);
                }
            }
            Some(LinkEvent::Operate(call)) => {
                let calls = self.calls.get_or_insert_with(|| Box::new(Calls::new(self.link.epoch())));
                if let Some(answer) = calls.take(now(), *call, self.shared) {
                    self.link.answer(answer);
                }
            }
            Some(LinkEvent::Wish(wishes)) => {
                let calls = self.calls.get_or_insert_with(|| Box::new(Calls::new(self.link.epoch())));
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
            Some(LinkEvent::Upgrade { seq, body }) => {
                let calls = self.calls.get_or_insert_with(|| Box::new(Calls::new(self.link.epoch())));
                if let Some(answer) = calls.take_upgrade(now(), seq, &body, self.shared) {
                    self.link.answer(answer);
                }
            }
            Some(LinkEvent::Granted { seq, body }) => {
                let mut steering = self.shared.steering.lock();
                let is_awaited = steering.asking.as_mut().is_some_and(|asking| asking.handle_answer(seq, &body));
                drop(steering);
                if !is_awaited {
                    self.shared.count(|count| &count.ignored);
                }
            }
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
        if let Some(firmware) = &self.shared.firmware {
            firmware.handle_login(self.shared);
        }
        // In this order: a program that makes the device a hub right now looks at the state.
        set_state(self.shared, State::Online);
        if let Some(hub) = &mut *self.shared.hub.lock() {
            hub.handle_ready(now, full);
        }
    }
}

/// Waits until an operation has ended; for ever when none is under way.
async fn ended(calls: &mut Option<Box<Calls>>) -> (task::Id, Box<[u8]>) {
    match calls {
        Some(calls) => calls.ended().await,
        None => std::future::pending().await,
    }
}

fn fault(error: &io::Error) -> LinkFault {
    match error.kind() {
        ErrorKind::ConnectionReset
        | ErrorKind::BrokenPipe
        | ErrorKind::ConnectionAborted
        | ErrorKind::UnexpectedEof => LinkFault::Closed,
        kind => LinkFault::Io(kind),
    }
}

#[cfg(test)]
mod tests;
