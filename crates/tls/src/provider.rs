//! Which cryptography is used.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};

/// What any client of today may use.
pub(crate) fn common() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What OSAP uses: the groups and suites of osap-wire 13.3, TLS profile 2.
pub(crate) fn osap() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP384R1, kx_group::SECP256R1],
        ..aws_lc_rs::default_provider()
    })
}
