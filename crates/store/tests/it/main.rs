//! The store as its users see it: the same behaviour on SQLite and on PostgreSQL.

mod bed;
mod control;
mod directory;
mod failure;
mod journal;
mod kill;
mod meter;
mod postgres;
mod segments;
mod twin;
