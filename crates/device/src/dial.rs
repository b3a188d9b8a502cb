//! How a device opens its connections.

use std::io;
use std::pin::Pin;

use tokio::net::TcpStream;

/// A connection that is about to be opened.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + 'a>>;

/// Opens the connections of a device, to the LBS and to the DAS the LBS named. With one of its own, a program leads them
/// over a certain interface or through a tunnel, or cuts them on purpose.
pub trait Dial: Send + Sync + 'static {
    /// Opens a TCP connection to `host`, a name or an address, at `port`. The device gives up after five seconds and drops
    /// the future.
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a>;
}

/// Connects as the operating system does.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpDial;

impl Dial for TcpDial {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> Dialing<'a> {
        Box::pin(TcpStream::connect((host, port)))
    }
}
