//! The API over real sockets and a real store.

mod attributes;
mod devices;
mod errors;
mod events;
mod limits;
mod operations;
mod service;
mod site;
mod stream;
