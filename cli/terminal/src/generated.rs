//! What is made from the tree of commands: completions for shells, and man pages.

use std::io::{self, Write};
use std::path::Path;

use clap::Command;

pub use clap_complete::Shell;

/// Writes what makes a shell complete the commands and flags of a program.
pub fn completions(shell: Shell, tree: &Command, output: &mut dyn Write) -> io::Result<()> {
    let mut tree = tree.clone();
    let name = tree.get_name().to_owned();
    // The generator writes to memory first, so that a closed pipe is an error and no panic.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut tree, name, &mut text);
    output.write_all(&text)
}

/// Writes a man page of each command into a folder, or that of the program to `output` if there is none.
pub fn man_pages(tree: &Command, folder: Option<&Path>, output: &mut dyn Write) -> io::Result<()> {
    match folder {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            clap_mangen::generate_to(tree.clone(), folder)
        }
        None => clap_mangen::Man::new(tree.clone()).render(output),
    }
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    fn tree() -> Command {
        Command::new("ctl").about("Speaks").subcommand(Command::new("pin").arg(Arg::new("x").long("colour")))
    }

    #[test]
    fn every_shell_learns_commands_and_flags() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let mut text = Vec::new();
            completions(shell, &tree(), &mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            assert!(text.contains("pin") && text.contains("colour"), "{shell}: {text}");
        }
    }

    #[test]
    fn every_command_has_a_page() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("man");
        man_pages(&tree(), Some(&folder), &mut io::sink()).unwrap();
        let page = std::fs::read_to_string(folder.join("ctl-pin.1")).unwrap();
        assert!(page.contains("colour") && page.starts_with(".ie"), "{page}");
        let mut text = Vec::new();
        man_pages(&tree(), None, &mut text).unwrap();
        assert!(String::from_utf8(text).unwrap().contains("Speaks"));
    }
}
