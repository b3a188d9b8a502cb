//! Why a connection ended.

/// The end of a connection, as the service is told and as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// The peer said goodbye with DISCONNECT.
    Disconnect,
    /// The peer closed the connection or the network lost it.
    Lost,
    /// Nothing was heard for one and a half times the keep-alive.
    KeepAlive,
    /// The peer broke the protocol; the text says how.
    Protocol(&'static str),
    /// The service or the platform asked for the end; a short code.
    Closed(&'static str),
    /// The server is going down.
    Shutdown,
    /// A defect of ours: the connection's task panicked.
    Panic,
}

impl EndReason {
    /// Short code, snake_case, for presence and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            EndReason::Disconnect => "disconnect",
            EndReason::Lost => "connection_lost",
            EndReason::KeepAlive => "keep_alive_timeout",
            EndReason::Protocol(_) => "protocol_error",
            EndReason::Closed(reason) => reason,
            EndReason::Shutdown => "shutdown",
            EndReason::Panic => "internal_error",
        }
    }

    /// Whether the peer left in good order, so that its will is not published (MQTT 3.1.1, 3.1.2.5).
    pub fn is_orderly(self) -> bool {
        self == EndReason::Disconnect
    }
}
