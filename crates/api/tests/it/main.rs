//! The API over real sockets and a real store.

mod attributes;
mod audit;
mod bulk;
mod certificates;
mod devices;
mod errors;
mod events;
mod history;
mod imports;
mod limits;
mod operations;
mod pass;
mod rights;
mod service;
mod sessions;
mod site;
mod stream;
mod tls;
mod tokens;
