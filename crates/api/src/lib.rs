//! The platform for people and their programs: HTTP API, server-sent events, OpenAPI document, live page.
//!
//! [`Api`] holds the routes; [`serve`] answers one listener with them. A handler reads what it is given through
//! `fields` (so that every mistake is named), asks the platform, and answers in a shape of `shapes` or with a
//! `problem`; it knows nothing of sockets and limits. Which permission a route asks for is said where the route
//! is added: `routes` has no other way to add one.
//!
//! Limits stand one behind the other: `server` bounds the connections, `connection` and `socket` the time a client
//! may take, `request` the time of an answer, `extract` the body, `feed` the number of event streams.

mod access;
mod api;
mod attributes;
mod audit;
mod authority;
mod bulk;
mod certificates;
mod config;
mod connection;
mod describe;
mod devices;
mod directives;
mod events;
mod export;
mod extract;
mod feed;
mod fields;
mod find;
mod health;
mod history;
mod hooks;
mod imports;
mod jobs;
mod moment;
mod mqtt;
mod network;
mod openapi;
mod operations;
mod org;
mod page;
mod pass;
mod problem;
mod problems;
mod proxies;
mod queue;
mod request;
mod routes;
mod server;
mod sessions;
mod shapes;
mod socket;
mod strangers;
mod stream;
mod suites;
mod tokens;
mod uploads;
mod users;
mod views;
mod webhooks;

pub use api::Api;
pub use config::ApiConfig;
pub use hooks::{Authorities, AuthoritiesError, WebhookConfig};
pub use mqtt::Applications;
pub use network::{Network, NotANetwork};
pub use openapi::openapi_json;
pub use server::{serve, serve_tls};
