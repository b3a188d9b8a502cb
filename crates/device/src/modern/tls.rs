//! TLS from the side of a device (osap-wire 13.3, TLS profile).

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use osap::modern::Exporter;
use osap::modern::schedule::MAC_LEN;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use vestibule_tls::rustls::pki_types::ServerName;
use vestibule_tls::rustls::{CertificateError, ClientConfig, ClientConnection, Error};
use zeroize::Zeroizing;

use crate::state::TlsFault;

/// How long a handshake may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why no TLS connection came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Io(ErrorKind),
    Tls(TlsFault),
}

/// Makes a TLS connection to the server of this name, which has to speak `protocol`.
pub(crate) async fn secure(
    tcp: TcpStream,
    config: Arc<ClientConfig>,
    name: &str,
    protocol: &[u8],
) -> Result<TlsStream<TcpStream>, End> {
    let stream = handshake(tcp, config, name).await?;
    // A library may go on without one when the peer offers none.
    if stream.get_ref().1.alpn_protocol() != Some(protocol) {
        return Err(End::Tls(TlsFault::Protocol));
    }
    Ok(stream)
}

/// Makes a TLS connection to the server of this name.
pub(crate) async fn handshake(
    tcp: TcpStream,
    config: Arc<ClientConfig>,
    name: &str,
) -> Result<TlsStream<TcpStream>, End> {
    let name = ServerName::try_from(name.to_owned()).map_err(|_| End::Tls(TlsFault::Name))?;
    let connect = Box::pin(TlsConnector::from(config).connect(name, tcp));
    match timeout(TIMEOUT, connect).await {
        Ok(connected) => connected.map_err(|error| end(&error)),
        Err(_) => Err(End::Io(ErrorKind::TimedOut)),
    }
}

/// Exports keying material of a connection whose handshake is complete.
pub(crate) fn export(tls: &ClientConnection, label: &[u8], context: &[u8]) -> Result<Exporter, TlsFault> {
    let material = tls
        .export_keying_material(Zeroizing::new([0; MAC_LEN]), label, Some(context))
        .map_err(|_| TlsFault::Handshake)?;
    Exporter::from_bytes(&*material).map_err(|_| TlsFault::Handshake)
}

fn end(error: &io::Error) -> End {
    fault_of(error).map_or(End::Io(error.kind()), End::Tls)
}

/// What of TLS is wrong, if it is that.
pub(crate) fn fault_of(error: &io::Error) -> Option<TlsFault> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match error {
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => TlsFault::Name,
        Error::InvalidCertificate(_) | Error::NoCertificatesPresented => TlsFault::Untrusted,
        Error::NoApplicationProtocol => TlsFault::Protocol,
        Error::AlertReceived(alert) => alert_fault(*alert),
        _ => TlsFault::Handshake,
    })
}

fn alert_fault(alert: vestibule_tls::rustls::AlertDescription) -> TlsFault {
    use vestibule_tls::rustls::AlertDescription as Alert;
    match alert {
        Alert::NoApplicationProtocol => TlsFault::Protocol,
        Alert::BadCertificate
        | Alert::UnsupportedCertificate
        | Alert::CertificateRevoked
        | Alert::CertificateExpired
        | Alert::CertificateUnknown
        | Alert::UnknownCA
        | Alert::AccessDenied
        | Alert::CertificateRequired => TlsFault::Refused,
        _ => TlsFault::Handshake,
    }
}
