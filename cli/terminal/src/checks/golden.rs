//! Command lines and what comes of them, as files: `<command>.<case>.txt`.
//!
//! The first part of a file says what is done, line by line: `run:` words of a command line (several are run in order),
//! `env:` a variable, `file:` a file and its content, `stdin:` what is typed, `answer:` what a peer answers. What was seen
//! stands behind a line of `=====`. `UPDATE_GOLDEN=1` writes it anew; what changed must then be read.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const SEPARATOR: &str = "=====\n";

/// One file.
#[derive(Clone, Debug)]
pub struct Golden {
    /// Its name, like `pin-add.json`.
    pub name: String,
    path: PathBuf,
    script: String,
    seen: String,
}

/// Reads the files of a folder.
///
/// # Panics
/// If a file cannot be read.
pub fn goldens(folder: &Path) -> Vec<Golden> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (script, seen) = text.split_once(SEPARATOR).unwrap_or((&text, ""));
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Golden { name, script: script.to_owned(), seen: seen.to_owned(), path }
    };
    paths.into_iter().map(read).collect()
}

impl Golden {
    /// What stands behind a key, line by line.
    pub fn all(&self, key: &str) -> Vec<&str> {
        let lines = self.script.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(known, _)| *known == key).map(|(_, value)| value).collect()
    }

    /// The words of its command lines.
    fn words(&self) -> Vec<Vec<&str>> {
        self.all("run").into_iter().map(|run| run.split_whitespace().collect()).collect()
    }

    /// Runs its command lines in `folder`, and tells what came of them. `names` are texts that differ from run to run, or
    /// are long, and what stands for them in the file; in the command lines they are put in.
    ///
    /// # Panics
    /// If a program cannot be started.
    pub fn run(&self, program: &str, folder: &Path, before: &[&str], names: &[(String, &str)]) -> String {
        let filled = |text: &str| names.iter().fold(text.to_owned(), |text, (long, short)| text.replace(short, long));
        for (name, content) in self.all("file").into_iter().filter_map(|file| file.split_once('=')) {
            fs::write(folder.join(name), filled(content).replace("\\n", "\n"))
                .unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let mut told = String::new();
        for words in self.words() {
            let mut command = Command::new(program);
            for (name, _) in std::env::vars_os() {
                if ["CLUSTER_", "IPFS_"].iter().any(|known| name.to_string_lossy().starts_with(known)) {
                    command.env_remove(name);
                }
            }
            // What the width of help is made from.
            command.env("COLUMNS", "100").env("HOME", folder).current_dir(folder);
            command
                .envs(self.all("env").into_iter().filter_map(|pair| pair.split_once('=')).map(|(n, v)| (n, filled(v))));
            command.args(before).args(words.iter().map(|word| filled(word)));
            let typed = filled(&self.all("stdin").join("")).replace("\\n", "\n");
            let output = ran(command, &typed).unwrap_or_else(|error| panic!("{}: {error}", self.name));
            told.push_str(&report(&output));
        }
        names.iter().fold(told, |text, (long, short)| text.replace(long, short))
    }
}

/// Runs a command with something typed.
fn ran(mut command: Command, typed: &str) -> std::io::Result<Output> {
    use std::io::Write;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // A program that reads nothing may have closed it.
    drop(child.stdin.take().map(|mut input| input.write_all(typed.as_bytes())));
    child.wait_with_output()
}

fn report(output: &Output) -> String {
    let text = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n(no line feed)\n" };
        text + end
    };
    let code = output.status.code().map_or_else(|| "none".to_owned(), |code| code.to_string());
    format!("exit: {code}\n--- stdout\n{}--- stderr\n{}", text(&output.stdout), text(&output.stderr))
}

/// Compares what is seen with the files, or writes it.
///
/// # Panics
/// If something differs.
pub fn compare(goldens: &[Golden], see: impl Fn(&Golden) -> String) {
    let mut wrong = Vec::new();
    for golden in goldens {
        let seen = see(golden);
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            let text = format!("{}{SEPARATOR}{seen}", golden.script);
            fs::write(&golden.path, text).unwrap_or_else(|error| panic!("{}: {error}", golden.name));
        } else if seen != golden.seen {
            wrong.push(format!("{}\n--- expected\n{}\n--- seen\n{seen}", golden.name, golden.seen));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Entries of a list of commands and flags that no file shows. A line of the list is a command, as `pin add`, or a command
/// and a flag in all its spellings, as `pin add --name -n`; `-` stands for the program itself. Every command needs a file
/// of each of the `kinds`, every flag one that uses it.
pub fn missing(surface: &str, goldens: &[Golden], kinds: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    for line in surface.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (spellings, path): (Vec<&str>, Vec<&str>) =
            line.split_whitespace().partition(|word| word.len() > 1 && word.starts_with('-'));
        let is_program = path == ["-"];
        let stem = if is_program { "global".to_owned() } else { path.join("-") };
        let of_command: Vec<&Golden> =
            goldens.iter().filter(|golden| golden.name.split('.').next() == Some(stem.as_str())).collect();
        let is_shown = |golden: &Golden| {
            golden.words().iter().any(|words| {
                let mut rest = words.iter();
                let speaks_of_it = is_program || path.iter().all(|part| rest.any(|word| word == part));
                let uses = |spelling: &&str| {
                    words.iter().any(|word| word == spelling || word.starts_with(&format!("{spelling}=")))
                };
                speaks_of_it && (spellings.is_empty() || spellings.iter().any(uses))
            })
        };
        if !spellings.is_empty() {
            let shown = if is_program { goldens.iter().any(is_shown) } else { of_command.into_iter().any(is_shown) };
            if !shown {
                faults.push(line.to_owned());
            }
            continue;
        }
        for kind in kinds {
            let name = format!("{stem}.{kind}");
            if !is_program && !of_command.iter().any(|golden| golden.name == name && is_shown(golden)) {
                faults.push(name);
            }
        }
    }
    faults
}

/// In what a list of commands and flags, as in [`missing`], differs from the tree of commands: entries of the one that the
/// other has not. Groups of commands need not be listed.
pub fn differences(surface: &str, tree: &clap::Command) -> Vec<String> {
    let program = tree.get_name();
    let lines = surface.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let entry = |line: &str| {
        let known = |word: &&str| *word != "-" && (!word.starts_with('-') || word.starts_with("--"));
        let mut words = vec![program];
        let mut has_flag = false;
        for word in line.split_whitespace().filter(known) {
            // The first spelling is the long one of the tree.
            if !has_flag {
                words.push(word);
            }
            has_flag |= word.starts_with("--");
        }
        words.join(" ")
    };
    let listed: BTreeSet<String> = lines.map(entry).collect();
    let helps = format!("{program} --help");
    let known: BTreeSet<String> = super::entries(tree).into_iter().chain([helps]).collect();
    let below = |path: &str| known.iter().any(|other| other.starts_with(&format!("{path} ")) && !other.contains(" --"));
    let unlisted = known.difference(&listed).filter(|path| path.contains(" --") || !below(path));
    let unlisted = unlisted.map(|path| format!("not listed: {path}"));
    listed.difference(&known).map(|path| format!("not there: {path}")).chain(unlisted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden(name: &str, run: &str) -> Golden {
        let script = format!("run: {run}\nenv: A=b\nrun: second\n");
        Golden { name: name.to_owned(), path: PathBuf::new(), script, seen: String::new() }
    }

    #[test]
    fn what_no_file_shows_is_found() {
        let surface = "# a list\n- --host -l\n- --debug\npin add\npin add --name -n\npin add --wait -w\npin rm\n";
        let files = [golden("pin-add.text", "-l x pin add -n=y"), golden("pin-add.json", "pin add --name z")];
        assert_eq!(
            missing(surface, &files, &["text", "json"]),
            ["- --debug", "pin add --wait -w", "pin-rm.text", "pin-rm.json"]
        );
        assert_eq!(files[0].all("env"), ["A=b"]);
    }

    #[test]
    fn a_list_and_a_tree_are_compared() {
        use clap::{Arg, Command};
        let add = Command::new("add").arg(Arg::new("name").long("name").short('n')).arg(Arg::new("new").long("new"));
        let tree = Command::new("ctl").subcommand(Command::new("pin").subcommand(add).subcommand(Command::new("ls")));
        let surface = "- --help -h\npin add\npin add --name -n\npin rm\n";
        let expected = ["not there: ctl pin rm", "not listed: ctl pin add --new", "not listed: ctl pin ls"];
        assert_eq!(differences(surface, &tree), expected);
    }

    #[test]
    fn programs_are_run_and_names_put_in() {
        let place = tempfile::tempdir().expect("the system has temporary folders");
        let mut file = golden("x", "-c cat;echo$IFS$A;exit$IFS$CODE");
        file.script = "run: -c cat;echo${IFS}$A;exit${IFS}$CODE\nenv: A=<LONG>\nstdin: typed\\n\n".to_owned();
        let names = [("7".to_owned(), "$CODE"), ("something long".to_owned(), "<LONG>")];
        let told = file.run("sh", place.path(), &[], &names);
        assert_eq!(told, "exit: $CODE\n--- stdout\ntyped\n<LONG>\n--- stderr\n");
    }
}
