//! The platform over a store in a temporary directory, on a clock that only the test moves.

mod bed;
mod credentials;
mod events;
mod facts;
mod follow;
mod invoke;
mod presence;
mod registry;
mod set;
mod token;
