//! Which platform a client command talks to, and with which token.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};

use crate::client::{self, Client, Token};
use crate::config::{self, Sources};

/// Flags every client command has.
#[derive(clap::Args)]
#[command(next_help_heading = "Platform")]
pub(super) struct Connect {
    /// Address of the platform
    #[arg(long, global = true, env = "VESTIBULE_URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// PEM file of the roots that an https:// (or osaps://) address is trusted by [default: <data>/ca.pem for this machine, and otherwise the
    /// public authorities]
    #[arg(long, global = true, env = "VESTIBULE_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// File with the token [env: VESTIBULE_TOKEN_FILE, or the token itself in VESTIBULE_TOKEN] [default: <data>/token]
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl Connect {
    /// The client. The flag comes before `VESTIBULE_TOKEN`, that before `VESTIBULE_TOKEN_FILE`, and last the data directory of the
    /// configuration that `vestibule up` would find here.
    pub(super) fn client(self) -> anyhow::Result<Client> {
        let token = self.token()?;
        let roots = self.roots()?;
        Ok(Client::trusting(&self.url, token, roots.as_deref())?)
    }

    /// The file of roots that was named: the same vouch for the platform where devices come in over TLS.
    pub(super) fn ca_file(&self) -> Option<PathBuf> {
        self.ca.clone()
    }

    /// The roots to trust; none: the public ones. The platform of this machine makes its own, whose root it leaves in its data
    /// directory.
    fn roots(&self) -> anyhow::Result<Option<Vec<u8>>> {
        if !self.url.starts_with("https://") {
            return Ok(None);
        }
        let read = |file: &Path| {
            fs::read(file).map(Some).with_context(|| format!("the roots to trust, {}, cannot be read", file.display()))
        };
        if let Some(file) = &self.ca {
            return read(file);
        }
        if !client::is_on_this_machine(&self.url) {
            return Ok(None);
        }
        let config = config::load(&Sources { environment: std::env::vars_os().collect(), ..Sources::default() })?;
        let file = config.ca_file();
        if file.exists() { read(&file) } else { Ok(None) }
    }

    /// Where devices come in, if the configuration that `vestibule up` would find here says so and the platform is on this
    /// machine. A port that the system picks is in no configuration.
    pub(super) fn lbs(&self) -> anyhow::Result<Option<SocketAddr>> {
        if !client::is_on_this_machine(&self.url) {
            return Ok(None);
        }
        let config = config::load(&Sources { environment: std::env::vars_os().collect(), ..Sources::default() })?;
        Ok(config.lbs.legacy_listen.filter(|address| address.port() != 0))
    }

    fn token(&self) -> anyhow::Result<Token> {
        let path = match &self.token_file {
            Some(path) => path.clone(),
            None => {
                if let Some(token) = std::env::var_os("VESTIBULE_TOKEN") {
                    let token = token.to_str().context("VESTIBULE_TOKEN is not UTF-8")?;
                    return Token::new(token).map_err(|sentence| anyhow!("VESTIBULE_TOKEN: {sentence}"));
                }
                match std::env::var_os("VESTIBULE_TOKEN_FILE") {
                    Some(path) => PathBuf::from(path),
                    None => {
                        config::load(&Sources { environment: std::env::vars_os().collect(), ..Sources::default() })?
                            .token_file()
                    }
                }
            }
        };
        Token::read(&path).map_err(|sentence| anyhow!(sentence))
    }
}
