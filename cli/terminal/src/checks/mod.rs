//! What the tests of all programs check: their trees of commands, and what comes of command lines.

pub mod golden;

use clap::Command;

/// The widest a line of help may be, in columns.
const WIDEST: usize = 120;

/// What is wrong with the helps of a tree, one line each: lines that are too wide on any terminal, and commands without
/// examples. Commands that are groups or hidden need none.
pub fn faults_of_help(tree: &Command) -> Vec<String> {
    // What a terminal of any greater width gets.
    let mut tree = tree.clone().term_width(WIDEST);
    tree.build();
    let mut faults = Vec::new();
    visit(&tree, &mut faults);
    faults
}

fn visit(command: &Command, faults: &mut Vec<String>) {
    let path = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    for text in [command.clone().render_help(), command.clone().render_long_help()].map(|text| text.to_string()) {
        let wide = text.lines().filter(|line| line.chars().count() > WIDEST);
        faults.extend(wide.map(|line| format!("{path}: wider than {WIDEST} columns: {line}")));
        let is_plain = !command.has_subcommands() && command.get_name() != "help" && !command.is_hide_set();
        if is_plain && !text.contains("\nExample") {
            faults.push(format!("{path}: no examples"));
        }
    }
    command.get_subcommands().filter(|below| below.get_name() != "help").for_each(|below| visit(below, faults));
}

/// Every command and every flag of a tree, as `ctl pin add` and `ctl pin add --name`, hidden ones included.
pub fn entries(tree: &Command) -> Vec<String> {
    let mut tree = tree.clone();
    tree.build();
    let mut all = Vec::new();
    list(&tree, tree.get_name(), &mut all);
    all
}

fn list(command: &Command, path: &str, all: &mut Vec<String>) {
    all.push(path.to_owned());
    let flags = command.get_arguments().filter_map(clap::Arg::get_long);
    all.extend(flags.filter(|flag| *flag != "help").map(|flag| format!("{path} --{flag}")));
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        list(below, &format!("{path} {}", below.get_name()), all);
    }
}

#[cfg(test)]
mod tests {
    use clap::Arg;

    use super::*;

    #[test]
    fn faults_are_found_and_entries_listed() {
        let good = Command::new("a").after_help("Examples:\n  x").arg(Arg::new("n").long("name"));
        let tree = Command::new("t").subcommand(good.clone()).subcommand(Command::new("b"));
        let faults = faults_of_help(&tree);
        assert!(faults.len() == 2 && faults.iter().all(|fault| fault == "t b: no examples"), "{faults:?}");
        let wide = Command::new("t").subcommand(good.about("x".repeat(200)));
        assert!(faults_of_help(&wide).iter().any(|fault| fault.contains("wider")));
        assert_eq!(entries(&tree), ["t", "t a", "t a --name", "t b"]);
    }
}
