//! TLS configurations, the certificates behind them, and the authority that issues them.
//!
//! [`Authority`] holds the roots and intermediates of one purpose, servers or devices; it has no clock and no disk: what it
//! makes is returned, to be kept by whoever owns it, and given back at the next start. [`Resolver`] is the certificate that
//! a server shows at this moment. [`ServerTls`] makes configurations for the listeners, [`ClientTls`] those of a device, a
//! tool or a test. The rules for OSAP are those of osap-wire 13.3, "TLS profile".

mod anchor;
mod authority;
mod certificate;
mod client;
mod device;
mod files;
mod first_use;
mod identity;
mod key;
mod provider;
mod resolver;
mod server;
mod signatures;

pub use anchor::Anchor;
pub use authority::{
    Authority, Ca, CsrError, IssueError, MAX_CSR, Purpose, Rank, certificate_request, is_name, server_request,
};
pub use certificate::{CertificateFacts, Unreadable, covers, pem, read_pem, spki_sha256};
pub use client::{ClientError, ClientTls};
pub use device::{DeviceVerifier, NotADevice, VerifierError, device_serial, device_uri};
pub use files::{FilesError, OwnFiles};
pub use first_use::{first_use_http, first_use_lbs};
pub use identity::{Identity, IdentityError};
pub use key::Key;
pub use resolver::Resolver;
pub use server::{ALPN_DAS, ALPN_HTTP, ALPN_LBS, ALPN_MQTT, ServerTls};

pub use rustls;
