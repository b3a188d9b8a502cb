//! The store as its users see it: the same behaviour on SQLite alone and with PostgreSQL.

mod audit;
mod backup;
mod bed;
mod beside;
mod check;
mod clock;
mod control;
mod damage;
mod directory;
mod failure;
mod forward;
mod idempotency;
mod journal;
mod kill;
mod meter;
mod migration;
mod parent;
mod principal;
mod proxy;
mod queue;
mod refused;
mod segments;
mod tls;
mod twin;
mod webhook;
mod wreck;
