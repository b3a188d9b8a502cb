//! The LBS and the DAS over real sockets, with a platform over SQLite behind them.

mod attack;
mod attributes;
mod device;
mod generations;
mod hub;
mod modern;
mod mqtt;
mod operations;
mod recorded;
mod rules;
mod session_keys;
mod site;
mod steer;
mod uplink;
