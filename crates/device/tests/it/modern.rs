//! The modern suites, against a platform in the same process over real sockets.

mod anchors;
mod das;
mod downgrade;
mod enrol;
mod house;
mod lbs;
mod peer;
mod pictures;
mod plain;
mod session;
mod storage;
