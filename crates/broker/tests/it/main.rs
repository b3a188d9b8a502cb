//! The engine over real sockets: byte by byte, and with clients that others wrote.

mod acks;
mod client;
mod crowded;
mod delivery;
mod foreign;
mod legacy;
mod probe;
mod refusals;
mod server;
mod sessions;
mod timing;
mod tls;
mod tls_client;
