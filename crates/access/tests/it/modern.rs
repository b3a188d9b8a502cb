//! Devices of the modern suites against the real services, over plain TCP and over TLS (osap-wire 13.3).

mod certificates;
mod codes;
mod device;
mod rules;
