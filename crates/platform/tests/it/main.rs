//! The platform over a store in a temporary directory, on a clock that only the test moves.

mod any_order;
mod audit;
mod bed;
mod certificates;
mod children;
mod credentials;
mod events;
mod facts;
mod find;
mod follow;
mod history;
mod import;
mod invoke;
mod once;
mod org;
mod pass;
mod presence;
mod queue;
mod registry;
mod set;
mod token;
mod user;
