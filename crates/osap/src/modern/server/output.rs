//! What the machine asks of its driver.

use super::CloseReason;
use crate::id::Serial;
use crate::modern::secret::TicketId;
use crate::modern::ticket::Stage;

/// What the driver has to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Read one complete frame, at most [`max_frame`](super::Server::max_frame) bytes, and hand it to
    /// [`handle_frame`](super::Server::handle_frame).
    Read,
    /// Find the device and call [`handle_record`](super::Server::handle_record), or
    /// [`handle_unavailable`](super::Server::handle_unavailable).
    Lookup(Serial),
    /// Whether this ticket has shown this nonce among its last 64: [`handle_fresh`](super::Server::handle_fresh).
    Fresh {
        /// The ticket, whose binder was right.
        ticket: TicketId,
        /// The nonce of AUTH-I.
        nonce: [u8; 32],
    },
    /// Call [`compute`](super::Server::compute), an agreement; or
    /// [`handle_unavailable`](super::Server::handle_unavailable) when too many wait for theirs.
    Compute,
    /// Export 48 bytes of the TLS connection, [`EXPORTER_LABEL`](super::EXPORTER_LABEL) with this serial as the
    /// context: [`handle_exporter`](super::Server::handle_exporter).
    Export(Serial),
    /// A code is about to be looked at: [`handle_attempt`](super::Server::handle_attempt).
    Attempt {
        /// It is one that can be guessed: it is looked at within a window alone, and a wrong one counts against that.
        short: bool,
    },
    /// The device asks for a certificate with this PKCS #10 request:
    /// [`handle_certificate`](super::Server::handle_certificate).
    Certify(Vec<u8>),
    /// Choose a DAS and call [`handle_das`](super::Server::handle_das).
    Assign,
    /// Make this durable and call [`handle_staged`](super::Server::handle_staged), or
    /// [`handle_unavailable`](super::Server::handle_unavailable).
    Stage(Stage),
    /// Write these bytes, in one piece. Given once.
    Send(Vec<u8>),
    /// The device has everything; it closes the connection.
    Done,
    /// Close the connection.
    Close(CloseReason),
}

/// What the driver says of a code that is about to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// It may be looked at.
    Go,
    /// The window has closed since the record was read, or its last wrong code was used up: what a wrong code gets.
    Closed,
    /// The address has sent too many wrong ones: sealed result 6, and nothing is computed. Never because of a budget of
    /// the serial, or the answer would tell that there is one.
    Spent,
}
