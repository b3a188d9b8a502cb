//! The store as its users see it: the same behaviour on SQLite and on PostgreSQL.

mod audit;
mod bed;
mod control;
mod directory;
mod failure;
mod idempotency;
mod journal;
mod kill;
mod meter;
mod migration;
mod parent;
mod postgres;
mod queue;
mod segments;
mod twin;
