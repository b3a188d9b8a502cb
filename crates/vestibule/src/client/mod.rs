//! The client commands' side of the HTTP API: requests, problems in words, event streams.

mod follow;
mod http;
mod problem;
mod sse;
mod uri;

pub use follow::{Follow, Followed};
pub use http::{Client, ClientError, Token, is_on_this_machine};
pub use problem::Refusal;
pub use sse::{Message, SseError, SseParser};
pub use uri::Route;
