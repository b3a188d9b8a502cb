//! One order at an ACME server, from the account to the certificate.

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Error, ExternalAccountKey, Identifier, NewAccount, NewOrder,
    OrderStatus, RetryPolicy,
};
use vestibule_platform::{Acquired, Certificates, Secret};
use vestibule_tls::rustls::pki_types::PrivatePkcs8KeyDer;
use vestibule_tls::{Key, server_request};
use zeroize::Zeroizing;

use super::challenge::Challenges;
use super::transport::Transport;
use crate::config::Acme;

/// What the account is kept as.
const ACCOUNT: &str = "acme-account";
/// What a server says that does not know the account (RFC 8555 6.7).
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// A certificate that was issued: its chain, PEM, leaf first, and its key.
pub(super) struct Issued {
    pub(super) chain: String,
    pub(super) key: Key,
}

/// Orders a certificate for the names of the configuration.
pub(super) async fn order(
    config: &Acme,
    transport: impl Fn() -> Transport,
    certificates: &Certificates,
    challenges: &Challenges,
) -> anyhow::Result<Issued> {
    let account = account(config, transport(), certificates).await.context("the account")?;
    let identifiers: Vec<Identifier> = config.names.iter().cloned().map(Identifier::Dns).collect();
    let new = NewOrder::new(&identifiers);
    let mut order = match account.new_order(&new).await {
        // The server has lost it, or taken it away.
        Err(Error::Api(problem)) if problem.r#type.as_deref() == Some(NO_ACCOUNT) => {
            let account = new_account(config, transport(), certificates).await.context("another account")?;
            account.new_order(&new).await
        }
        other => other,
    }
    .context("the order")?;
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.context("an authorization")?;
        match authorization.status {
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Valid => continue,
            status => bail!("an authorization is {status:?}"),
        }
        let mut challenge =
            authorization.challenge(ChallengeType::Http01).ok_or_else(|| anyhow!("the server offers no HTTP-01"))?;
        challenges.put(challenge.token.clone(), challenge.key_authorization().as_str().to_owned());
        challenge.set_ready().await.context("a challenge")?;
    }
    let retries = RetryPolicy::default();
    let status = order.poll_ready(&retries).await.context("the challenges")?;
    if status != OrderStatus::Ready {
        bail!("the order is {status:?}: could the server reach tls.acme.challenge_listen by each of the names?");
    }
    let key = Key::generate()?;
    let request = server_request(&key, &config.names)?;
    order.finalize_csr(&request).await.context("the request")?;
    let chain = order.poll_certificate(&retries).await.context("the certificate")?;
    Ok(Issued { chain, key })
}

/// The account that was kept, or a new one, which is.
async fn account(config: &Acme, transport: Transport, certificates: &Certificates) -> anyhow::Result<Account> {
    let directory = config.directory.clone().unwrap_or_default();
    if let Some(Acquired { text, key }) = certificates.acquired(ACCOUNT).await?
        && let Some((of, id)) = text.split_once('\n')
        && of == directory
    {
        let key = PrivatePkcs8KeyDer::from(key.expose());
        let builder = Account::builder_with_http(Box::new(transport));
        return Ok(builder.from_parts(id.to_owned(), key, directory).await?);
    }
    new_account(config, transport, certificates).await
}

async fn new_account(config: &Acme, transport: Transport, certificates: &Certificates) -> anyhow::Result<Account> {
    let directory = config.directory.clone().unwrap_or_default();
    let contact: Vec<&str> = config.contact.as_deref().into_iter().collect();
    let new =
        NewAccount { contact: &contact, terms_of_service_agreed: config.accept_terms, only_return_existing: false };
    let external = match (&config.eab_key_id, &config.eab_key) {
        (Some(id), Some(key)) => {
            let key = key.expose().trim_end_matches('=');
            let key = Zeroizing::new(URL_SAFE_NO_PAD.decode(key).context("tls.acme.eab_key is not base64url")?);
            Some(ExternalAccountKey::new(id.clone(), &key))
        }
        _ => None,
    };
    let builder = Account::builder_with_http(Box::new(transport));
    let (account, credentials) = builder.create(&new, directory.clone(), external.as_ref()).await?;
    let key = Secret::new(credentials.private_key().secret_pkcs8_der());
    let text = format!("{directory}\n{}", account.id());
    certificates.keep_acquired(ACCOUNT, Acquired { text, key }).await?;
    Ok(account)
}
