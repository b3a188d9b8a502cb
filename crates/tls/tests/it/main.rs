//! Handshakes in memory: a client and a server that hand each other their bytes, at a time that the test sets.

mod authority;
mod clients;
mod devices;
mod handshake;
mod own_files;
mod pair;
