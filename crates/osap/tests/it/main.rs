//! Both ends of the protocol against the recorded frames, against each other and against
//! anything.

mod bodies;
mod bodies_channels;
mod bodies_domains;
mod commands;
mod corpus;
mod crash;
mod generations;
mod messages;
mod modern_vectors;
mod old_device;
mod older_messages;
mod pair;
mod recorded_client;
mod recorded_das;
mod recorded_server;
mod recovery;
mod refusals;
mod replay;
mod stun;
mod vectors;
