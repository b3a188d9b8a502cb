//! `vestibule user …`

mod add;
mod list;
mod password;
mod remove;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use zeroize::Zeroizing;

use super::connect::Connect;
use super::out::Out;
use super::token::Role;

/// More than any password has.
const MAX_PASSWORD_FILE: u64 = 4_096;

/// Let people log in with a name and a password
#[derive(clap::Args)]
#[command(after_help = "Examples:
  pass show vestibule/anna | vestibule user add anna --role operator
  vestibule user add otto --role viewer --subtree /plant-1 --password-file otto.txt
  vestibule user list
  vestibule user password anna --password-file new.txt
  vestibule user remove otto")]
pub(super) struct Args {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Add(add::Args),
    List(list::Args),
    Password(password::Args),
    Remove(remove::Args),
}

pub(super) fn run(args: Args, out: &mut Out<'_>) -> anyhow::Result<()> {
    let client = &args.connect.client()?;
    match args.command {
        Command::Add(args) => add::run(args, client, out),
        Command::List(args) => list::run(args, client, out),
        Command::Password(args) => password::run(args, client, out),
        Command::Remove(args) => remove::run(args, client, out),
    }
}

/// Where a password comes from: never from the command line, which others see.
#[derive(clap::Args)]
struct Password {
    /// File with the password in its first line; `-` is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    password_file: PathBuf,
}

impl Password {
    fn read(&self) -> anyhow::Result<Zeroizing<String>> {
        let text = from_file(&self.password_file)
            .with_context(|| format!("the password file {} cannot be read", self.password_file.display()))?;
        // A password may begin or end with a space.
        let line = text.lines().next().unwrap_or_default();
        if line.is_empty() {
            bail!("the password is empty; give it in a file (--password-file) or on standard input");
        }
        Ok(Zeroizing::new(line.to_owned()))
    }
}

fn from_file(path: &Path) -> io::Result<Zeroizing<String>> {
    // As large as it can become: growing would leave copies behind.
    let mut text = Zeroizing::new(String::with_capacity(MAX_PASSWORD_FILE as usize));
    if path == Path::new("-") {
        io::stdin().lock().take(MAX_PASSWORD_FILE).read_to_string(&mut text)?;
    } else {
        fs::File::open(path)?.take(MAX_PASSWORD_FILE).read_to_string(&mut text)?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_of_its_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let password_file = dir.path().join("password");
        let read = |text: &str| {
            fs::write(&password_file, text).expect("written");
            Password { password_file: password_file.clone() }.read().map(|password| password.to_string()).ok()
        };
        assert_eq!(read(" correct horse \r\nand a note\n").as_deref(), Some(" correct horse "));
        assert_eq!((read(""), read("\nx")), (None, None));
        let missing = Password { password_file: dir.path().join("none") }.read();
        assert!(format!("{:#}", missing.expect_err("missing")).contains("none cannot be read"));
    }
}
