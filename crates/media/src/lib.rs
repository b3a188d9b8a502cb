//! Pictures and files of devices, over HTTP (media 7, 10, 11).
//!
//! Whoever wants to send something asks for an offer and gets an address with a [ticket]: it is good for one object of one
//! device, once. What comes goes to a file as it comes; when all of it is here it is looked at (what it is by its own
//! signature, how large it says it is, its SHA-256), stored under its digest, and only then does its row say that it is there.
//! Nothing of it is ever in memory as a whole, and nothing is decoded before somebody asks for a thumbnail.
//!
//! An object goes through three states, in the database: offered, under way, here. Bytes are durable before the row says so
//! and the row is gone before they are, so a crash at any point leaves nothing that is seen half, and what it leaves besides is
//! removed at the next start: files of uploads that nobody knows, what the object store was writing, contents without a row.

mod blobs;
mod config;
mod content;
mod explain;
mod hex;
mod http;
mod keys;
mod media;
mod places;
mod problem;
mod s3;
mod source;
mod staging;
mod thumbnail;
pub mod ticket;
mod turns;
mod upload;
mod usage;

pub use config::MediaConfig;
pub use http::router;
pub use media::{Media, OpenError};
pub use s3::{S3Config, S3Credentials};
