//! `hash-password`: makes what `basic_auth_credentials` takes in the place of a password.

use std::io::{self, BufRead, IsTerminal, Read};

use anyhow::{Context, bail};
use cluster_peer::hash_password;

use crate::prompt;

/// The longest password, in bytes: more would not fit into the head of a request.
const MAX_PASSWORD: u64 = 1024;

/// Runs the command.
pub(crate) fn run() -> anyhow::Result<()> {
    let password = if io::stdin().is_terminal() {
        let password = prompt::hidden("Password: ")?;
        if prompt::hidden("Once more: ")? != password {
            bail!("reading the password: the two differ");
        }
        password.into_bytes()
    } else {
        first_line(&mut io::stdin().lock()).context("reading the password")?
    };
    let hash = hash_password(&checked(password)?).map_err(anyhow::Error::from_boxed).context("hashing the password")?;
    println!("{hash}");
    Ok(())
}

/// The first line without its end, or a little more than the longest password.
fn first_line(input: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    input.take(MAX_PASSWORD + 2).read_until(b'\n', &mut line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

fn checked(password: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    if password.is_empty() {
        bail!("reading the password: it is empty, and nobody is let in with an empty one");
    }
    if password.len() as u64 > MAX_PASSWORD {
        bail!("reading the password: it is longer than {MAX_PASSWORD} bytes");
    }
    Ok(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line() {
        let read = |text: &str| first_line(&mut text.as_bytes()).unwrap();
        for text in ["a b", "a b\n", "a b\r\n", "a b\nc\n"] {
            assert_eq!(read(text), b"a b", "{text:?}");
        }
        assert!(checked(read("\n")).is_err());
        assert!(checked(read(&"x".repeat(1024))).is_ok());
        assert!(checked(read(&"x".repeat(5000))).is_err());
    }
}
