//! Which requests the cluster answers itself: commands of Kubo's RPC that are about pins.

use http::Method;

use super::kubo::Refusal;
use crate::query::Query;

/// Where Kubo's commands are.
const ROOT: &str = "/api/v0/";

/// A command that is not passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// `pin/add`, with the argument that stands in the path.
    PinAdd(Option<String>),
    /// `pin/rm`, with the argument that stands in the path.
    PinRemove(Option<String>),
    /// `pin/ls`, with the argument that stands in the path.
    PinList(Option<String>),
    /// `pin/update`.
    PinUpdate,
    /// `add`.
    Add,
    /// `repo/stat`.
    RepoStat,
    /// `repo/gc`.
    RepoGc,
    /// `block/put` with `pin=true`.
    BlockPut,
    /// `dag/put` with `pin=true`.
    DagPut,
}

/// The command that a request is for, if it is one of ours. `path` has no escapes any more.
pub(super) fn find(method: &Method, path: &str, query: &Query) -> Option<Command> {
    if ![Method::POST, Method::GET, Method::PUT].contains(method) {
        return None;
    }
    let words: Vec<&str> = path.strip_prefix(ROOT)?.trim_end_matches('/').split('/').collect();
    let pins = || flag(query, "pin") == Some(true);
    match words.as_slice() {
        ["pin", "update"] => Some(Command::PinUpdate),
        ["pin", command] => pin_command(command, None),
        ["pin", command, argument] if !argument.is_empty() => pin_command(command, Some((*argument).to_owned())),
        ["add"] => Some(Command::Add),
        ["repo", "stat"] => Some(Command::RepoStat),
        ["repo", "gc"] => Some(Command::RepoGc),
        ["block", "put"] if pins() => Some(Command::BlockPut),
        ["dag", "put"] if pins() => Some(Command::DagPut),
        _ => None,
    }
}

fn pin_command(name: &str, argument: Option<String>) -> Option<Command> {
    match name {
        "add" => Some(Command::PinAdd(argument)),
        "rm" => Some(Command::PinRemove(argument)),
        "ls" => Some(Command::PinList(argument)),
        _ => None,
    }
}

/// A yes or no as Kubo reads it: a name without a value is a yes. Nothing if it is not there, or neither.
pub(super) fn flag(query: &Query, name: &str) -> Option<bool> {
    let (_, value) = query.pairs().find(|(known, _)| *known == name)?;
    match value {
        "" | "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

/// The arguments of a command: the one in its path, or all those of the query.
pub(super) fn arguments(in_path: Option<&str>, query: &Query) -> Vec<String> {
    match in_path {
        Some(argument) => vec![argument.to_owned()],
        None => query
            .pairs()
            .filter(|(name, value)| *name == "arg" && !value.is_empty())
            .map(|(_, arg)| arg.to_owned())
            .collect(),
    }
}

/// An argument as a path: `/ipfs/`, `/ipns/` and `/ipld/` stay, everything else begins with a CID.
pub(super) fn path(argument: &str) -> Result<String, Refusal> {
    let wrong = |why: String| Refusal::new(format!("Error parsing IPFS Path: invalid path \"{argument}\": {why}"));
    let full = if argument.starts_with('/') { argument.to_owned() } else { format!("/ipfs/{argument}") };
    let mut parts = full.split('/').skip(1);
    let (space, root) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    match space {
        "ipfs" | "ipld" => match root.parse::<cluster_types::Cid>() {
            Ok(_) => Ok(full),
            Err(error) => Err(wrong(format!("invalid cid: {error}"))),
        },
        "ipns" if !root.is_empty() => Ok(full),
        _ => Err(wrong("it needs a namespace and a root".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";

    fn found(method: &Method, target: &str) -> Option<Command> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        find(method, path, &Query::parse(query).unwrap())
    }

    #[test]
    fn commands_about_pins_are_found() {
        for (target, command) in [
            ("/api/v0/pin/add?arg=x", Command::PinAdd(None)),
            ("/api/v0/pin/rm/x", Command::PinRemove(Some("x".to_owned()))),
            ("/api/v0/pin/ls", Command::PinList(None)),
            ("/api/v0/pin/ls/", Command::PinList(None)),
            ("/api/v0/pin/update?arg=x&arg=y", Command::PinUpdate),
            ("/api/v0/add", Command::Add),
            ("/api/v0/repo/stat", Command::RepoStat),
            ("/api/v0/repo/gc", Command::RepoGc),
            ("/api/v0/block/put?pin=true", Command::BlockPut),
            ("/api/v0/dag/put?pin", Command::DagPut),
        ] {
            for method in [Method::POST, Method::GET, Method::PUT] {
                assert_eq!(found(&method, target), Some(command.clone()), "{target}");
            }
            assert_eq!(found(&Method::OPTIONS, target), None);
            assert_eq!(found(&Method::HEAD, target), None);
        }
    }

    #[test]
    fn everything_else_is_passed_on() {
        for target in [
            "/api/v0/pin/verify",
            "/api/v0/pin/remote/add",
            "/api/v0/pin/add/a/b",
            "/api/v0/pin",
            "/api/v0/block/put",
            "/api/v0/block/put?pin=false",
            "/api/v0/dag/put?pin=perhaps",
            "/api/v0/dag/import",
            "/api/v0/cat",
            "/api/v1/add",
            "/add",
            "/ipfs/x",
            "/",
            "*",
        ] {
            assert_eq!(found(&Method::POST, target), None, "{target}");
        }
    }

    #[test]
    fn an_argument_is_a_path_or_begins_with_a_cid() {
        assert_eq!(path(CID).unwrap(), format!("/ipfs/{CID}"));
        assert_eq!(path(&format!("{CID}/a/b")).unwrap(), format!("/ipfs/{CID}/a/b"));
        assert_eq!(path("/ipns/example.org/x").unwrap(), "/ipns/example.org/x");
        for bad in ["nonsense", "/ipfs/nonsense", "/ipfs", "/other/x", "/", ""] {
            let refusal = path(bad).unwrap_err();
            assert!(refusal.status == 500 && refusal.message.starts_with("Error parsing IPFS Path: "), "{bad}");
        }
    }
}
