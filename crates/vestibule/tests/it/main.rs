//! The whole platform from outside: the real binary, talked to over its sockets.

mod admin;
mod applications;
mod attributes;
mod audit;
mod cache;
mod cli;
mod contract;
mod durability;
mod export;
mod firmware;
mod hostile;
mod listen;
mod lying;
mod machine;
mod mqtt;
mod network;
mod newcomer;
mod operations;
mod pass;
mod queue;
mod rounds;
mod second_device;
mod simulate;
mod support;
mod tour;
mod webhook;
