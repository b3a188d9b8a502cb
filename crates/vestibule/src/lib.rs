//! The `vestibule` binary as a library: configuration, command line, the client of the HTTP API, and the wiring of the platform.

mod acme;
pub mod cli;
pub mod client;
pub mod config;
pub mod demo;
mod descriptors;
pub mod doctor;
pub mod logging;
mod memory;
pub mod running;
pub mod simulate;
mod tls;
pub mod up;
