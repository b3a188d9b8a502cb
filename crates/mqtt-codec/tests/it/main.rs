//! The codec from outside: recorded frames, generated packets, and the fuzzers' corpora.

mod any_bytes;
mod corpus;
mod generated;
mod laws;
mod recorded;
