//! What this node is: `id`, `version`, `commands`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cluster_core::ports::IpfsNode;
use cluster_types::VERSION;
use http::Response;
use serde_json::{Value, json};

use super::Rpc;
use super::call::Call;
use super::reply::{self, Answer, Body, Failure};
use crate::embedded::wire::PROTOCOLS;

/// Every command.
pub(super) const COMMANDS: &[&str] = &[
    "add",
    "block/get",
    "block/put",
    "block/rm",
    "block/stat",
    "cat",
    "commands",
    "dag/export",
    "dag/get",
    "dag/import",
    "dag/put",
    "dag/resolve",
    "dag/stat",
    "get",
    "id",
    "ls",
    "pin/add",
    "pin/ls",
    "pin/rm",
    "pin/update",
    "pin/verify",
    "refs",
    "refs/local",
    "repo/gc",
    "repo/stat",
    "repo/verify",
    "repo/version",
    "resolve",
    "swarm/addrs",
    "swarm/addrs/listen",
    "swarm/addrs/local",
    "swarm/connect",
    "swarm/disconnect",
    "swarm/peers",
    "version",
];
/// The version of Kubo's repository whose commands these are.
pub(super) const REPO_VERSION: &str = "18";

impl Rpc {
    /// `id`, of this node only.
    pub(super) async fn id(&self, mut call: Call) -> Answer {
        let own = self.node.peer_id().to_string();
        if call.optional_arguments().first().is_some_and(|asked| *asked != own) {
            return Err(Failure::new("the embedded IPFS node looks up no other peers"));
        }
        let addresses = self.node.id().await?.addresses;
        let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let protocols: Vec<String> = PROTOCOLS.iter().map(|(name, _version)| name.to_string()).collect();
        Ok(reply::one(&json!({
            "ID": own,
            "PublicKey": STANDARD.encode(&self.node.public_key),
            "Addresses": addresses,
            "AgentVersion": self.node.agent,
            "Protocols": protocols,
        })))
    }
}

/// `version`.
pub(super) fn version() -> Response<Body> {
    reply::one(&json!({
        "Version": VERSION,
        "Commit": "",
        "Repo": REPO_VERSION,
        "System": format!("{}/{}", std::env::consts::ARCH, std::env::consts::OS),
        "Golang": "",
    }))
}

/// `repo version`.
pub(super) fn repo_version() -> Response<Body> {
    reply::one(&json!({ "Version": REPO_VERSION }))
}

/// `commands`: a tree of names.
pub(super) fn commands() -> Response<Body> {
    reply::one(&tree("ipfs", ""))
}

fn tree(name: &str, prefix: &str) -> Value {
    let mut names: Vec<&str> = COMMANDS
        .iter()
        .filter_map(|command| command.strip_prefix(prefix))
        .map(|rest| rest.split('/').next().unwrap_or(rest))
        .filter(|name| !name.is_empty())
        .collect();
    names.dedup();
    let below: Vec<Value> = names.into_iter().map(|name| tree(name, &format!("{prefix}{name}/"))).collect();
    json!({ "Name": name, "Subcommands": below, "Options": [] })
}
