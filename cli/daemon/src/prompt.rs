//! Questions on the terminal.

use std::io::{self, BufRead, Write};

use anyhow::{Context, bail};

/// How often a question is asked before it counts as no.
const TRIES: usize = 3;

/// Asks until the answer is yes or no; an empty answer is no.
pub(crate) fn yes_or_no(question: &str, input: &mut dyn BufRead, output: &mut dyn Write) -> io::Result<bool> {
    for _ in 0..TRIES {
        write!(output, "{question} [y/n]:")?;
        output.flush()?;
        let mut answer = String::new();
        if input.read_line(&mut answer)? == 0 {
            return Ok(false);
        }
        match answer.trim() {
            "y" | "Y" => return Ok(true),
            "n" | "N" | "" => return Ok(false),
            _ => {}
        }
    }
    Ok(false)
}

/// Asks for one line.
pub(crate) fn line(question: &str, input: &mut dyn BufRead, output: &mut dyn Write) -> anyhow::Result<String> {
    write!(output, "{question}")?;
    output.flush()?;
    let mut answer = String::new();
    if input.read_line(&mut answer).context("reading the answer")? == 0 {
        bail!("reading the answer: there is none");
    }
    Ok(answer.trim().to_owned())
}

/// Asks for one line on the standard error without showing what is typed.
pub(crate) fn hidden(question: &str) -> anyhow::Result<String> {
    let terminal = console::Term::stderr();
    if !terminal.is_term() {
        bail!("reading the answer: the standard error is not a terminal, so nobody could be asked");
    }
    terminal.write_str(question).context("asking")?;
    terminal.read_secure_line().context("reading the answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(answers: &str) -> (bool, String) {
        let mut output = Vec::new();
        let answer = yes_or_no("Continue?", &mut answers.as_bytes(), &mut output).unwrap();
        (answer, String::from_utf8(output).unwrap())
    }

    #[test]
    fn only_a_clear_yes_is_a_yes() {
        assert!(ask("y\n").0);
        assert!(ask("what\nY\n").0);
        for no in ["", "\n", "n\n", "a\nb\nc\ny\n"] {
            assert!(!ask(no).0, "{no:?}");
        }
        assert_eq!(ask("a\nb\nc\ny\n").1, "Continue? [y/n]:".repeat(3));
    }
}
