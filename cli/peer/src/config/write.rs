//! What `init` writes: a new configuration from the table's defaults and the caller's wishes.
//!
//! The text keeps the order of the table, so that a reader finds the keys where the original has them.

use std::collections::BTreeMap;

use cluster_types::{Multiaddr, PeerId, Protocol};
use serde_json::{Value, json};

use super::environment::{Environment, NotText, not_text, parse_variable, variable_name};
use super::error::ConfigError;
use super::folder::{ConfigFolder, random_free_port};
use super::load::{Loaded, check_text};
use super::sections::hostname;
use super::table::{
    BALANCED, CLUSTER, CRDT, Component, DISK, EMBEDDED, Field, IPFSHTTP, IPFSPROXY, Kind, METRICS, PINQUEUE, PINSVCAPI,
    PUBSUBMON, RAFT, RESTAPI, STATELESS, TAGS, TRACING,
};
use super::value::ClusterSecret;

/// Which consensus section is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConsensusName {
    /// `crdt`.
    #[default]
    Crdt,
    /// `raft`.
    Raft,
}

/// Which datastore section is written; the choice has no effect on how state is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DatastoreName {
    /// `pebble`.
    #[default]
    Pebble,
    /// `badger3`.
    Badger3,
    /// `badger`.
    Badger,
    /// `leveldb`.
    LevelDb,
}

/// Which node the peer looks after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NodeKind {
    /// A Kubo beside the peer.
    #[default]
    Kubo,
    /// A node inside the peer.
    Embedded,
}

/// A configuration that does not exist yet.
#[derive(Clone, Debug)]
#[must_use]
pub struct NewConfig {
    /// Which consensus section it has.
    pub consensus: ConsensusName,
    /// Which datastore section it has, in crdt.
    pub datastore: DatastoreName,
    /// Which node the peer looks after.
    pub node: NodeKind,
    /// Key of the private network.
    pub secret: ClusterSecret,
    /// Whether somebody chose the secret: then it is written, whatever the environment says.
    pub secret_is_chosen: bool,
    /// Known peers: they become the trusted peers, and the first members in raft, whatever the environment says.
    pub peers: Vec<PeerId>,
    /// Listen on free ports instead of the usual ones.
    pub random_ports: bool,
}

/// Writes a configuration that is fetched from `url` at every start.
pub fn write_source(folder: &ConfigFolder, url: &str) -> Result<(), ConfigError> {
    folder.create()?;
    let mut root = Node::default();
    *root.entry("source") = Node::Leaf(Value::from(url));
    let mut text = String::new();
    root.print(0, &mut text);
    text.push('\n');
    folder.write_file(&folder.config_file(), text.as_bytes())
}

impl NewConfig {
    /// The defaults, with a new secret.
    pub fn with_new_secret() -> Self {
        Self {
            consensus: ConsensusName::default(),
            datastore: DatastoreName::default(),
            node: NodeKind::default(),
            secret: ClusterSecret::generate(),
            secret_is_chosen: false,
            peers: Vec::new(),
            random_ports: false,
        }
    }

    /// Writes the configuration into a folder, the environment's wishes included, and returns it checked. What a peer
    /// would refuse is not written.
    pub fn write(&self, folder: &ConfigFolder, environment: &dyn Environment) -> Result<Loaded, ConfigError> {
        let text = self.text(folder, environment)?;
        let checked = check_text(&text, folder, environment)?;
        folder.create()?;
        folder.write_file(&folder.config_file(), text.as_bytes())?;
        Ok(checked)
    }

    fn text(&self, folder: &ConfigFolder, environment: &dyn Environment) -> Result<String, ConfigError> {
        let mut root = Node::default();
        for component in self.components() {
            let object = root.entry(component.section);
            let object = if component.name.is_empty() { object } else { object.entry(component.name) };
            for field in component.fields {
                if let Some(value) = self.value(component, field, folder, environment)? {
                    let place = field.key.split('.').fold(&mut *object, |node, part| node.entry(part));
                    *place = Node::Leaf(value);
                }
            }
        }
        if self.consensus == ConsensusName::Crdt {
            let options = root.entry("datastore").entry(self.datastore.key());
            options.make_object();
            if let Some((key, value)) = self.datastore.options() {
                *options.entry(key) = Node::Leaf(value);
            }
        }
        let mut text = String::new();
        root.print(0, &mut text);
        text.push('\n');
        Ok(text)
    }

    fn components(&self) -> Vec<&'static Component> {
        let consensus = match self.consensus {
            ConsensusName::Crdt => &CRDT,
            ConsensusName::Raft => &RAFT,
        };
        let node = match self.node {
            NodeKind::Kubo => &IPFSHTTP,
            NodeKind::Embedded => &EMBEDDED,
        };
        vec![
            &CLUSTER, consensus, &IPFSPROXY, &PINSVCAPI, &RESTAPI, node, &STATELESS, &PUBSUBMON, &BALANCED, &DISK,
            &PINQUEUE, &TAGS, &METRICS, &TRACING,
        ]
    }

    /// Whether the caller chose this value: what is asked for here and now comes before the environment.
    fn chooses(&self, component: &Component, field: &Field) -> bool {
        match (component.name, field.key) {
            ("", "secret") => self.secret_is_chosen,
            ("crdt", "trusted_peers") | ("raft", "init_peerset") => !self.peers.is_empty(),
            _ => false,
        }
    }

    fn value(
        &self,
        component: &Component,
        field: &Field,
        folder: &ConfigFolder,
        environment: &dyn Environment,
    ) -> Result<Option<Value>, ConfigError> {
        // An identity belongs into its own file, also when the environment brings it.
        if component.name.is_empty() && matches!(field.key, "id" | "private_key") {
            return Ok(None);
        }
        let variable = variable_name(component, field);
        if let Some(value) = environment.variable(&variable).filter(|_| !self.chooses(component, field)) {
            let text = value.map_err(|NotText| not_text(component, field, &variable))?;
            return parse_variable(component, field, &variable, &text);
        }
        if !field.written {
            return Ok(None);
        }
        let peers = || Value::from(self.peers.iter().map(ToString::to_string).collect::<Vec<_>>());
        let mut value = match (component.name, field.key) {
            ("", "peername") => Value::from(hostname()),
            ("", "secret") => Value::from(self.secret.to_hex()),
            ("crdt", "trusted_peers") if !self.peers.is_empty() => peers(),
            ("raft", "init_peerset") => peers(),
            _ => serde_json::from_str(field.default).expect("the defaults of the table are JSON, as a test shows"),
        };
        let listens = field.key.ends_with("listen_multiaddress");
        if self.random_ports && field.kind == Kind::Addresses && listens {
            let fail = |cause| ConfigError::Unwritable { path: folder.config_file(), cause };
            value = with_port(&value, random_free_port().map_err(fail)?);
        }
        Ok(Some(value))
    }
}

impl DatastoreName {
    fn key(self) -> &'static str {
        match self {
            Self::Pebble => "pebble",
            Self::Badger3 => "badger3",
            Self::Badger => "badger",
            Self::LevelDb => "leveldb",
        }
    }

    /// The options that the original writes, for whoever goes back to it: those whose defaults it does not leave to its
    /// engine. They have no effect here.
    fn options(self) -> Option<(&'static str, Value)> {
        match self {
            Self::Pebble => Some((
                "pebble_options",
                json!({
                    "cache_size_bytes": 1 << 30, "bytes_per_sync": 1 << 20, "disable_wal": false,
                    "flush_delay_delete_range": 0, "flush_delay_range_key": 0, "flush_split_bytes": 4 << 20,
                    "l0_compaction_file_threshold": 750, "l0_compaction_threshold": 4, "l0_stop_writes_threshold": 12,
                    "l_base_max_bytes": 128 << 20, "max_open_files": 1000, "mem_table_size": 64 << 20,
                    "mem_table_stop_writes_threshold": 20, "read_only": false, "wal_bytes_per_sync": 0,
                }),
            )),
            Self::LevelDb => Some(("leveldb_options", json!({}))),
            Self::Badger3 | Self::Badger => None,
        }
    }
}

/// The same addresses on another port.
fn with_port(addresses: &Value, port: u16) -> Value {
    match addresses {
        Value::String(text) => Value::from(match text.parse::<Multiaddr>() {
            Ok(address) => replace_port(&address, port).to_string(),
            Err(_) => text.clone(),
        }),
        Value::Array(all) => Value::Array(all.iter().map(|one| with_port(one, port)).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => addresses.clone(),
    }
}

fn replace_port(address: &Multiaddr, port: u16) -> Multiaddr {
    address.iter().fold(Multiaddr::empty(), |mut replaced, part| {
        if matches!(part, Protocol::Tcp(_)) {
            replaced.push(Protocol::Tcp(port));
        } else if matches!(part, Protocol::Udp(_)) {
            replaced.push(Protocol::Udp(port));
        } else {
            replaced.push(part);
        }
        replaced
    })
}

/// A JSON document that keeps the order in which keys were entered.
enum Node {
    Object(Vec<(String, Node)>),
    Leaf(Value),
}

impl Default for Node {
    fn default() -> Self {
        Self::Object(Vec::new())
    }
}

impl Node {
    /// The entry of this name, new if there is none; a leaf becomes an object.
    fn entry(&mut self, name: &str) -> &mut Self {
        let entries = self.make_object();
        let place = entries.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            entries.push((name.to_owned(), Self::default()));
            entries.len() - 1
        });
        &mut entries[place].1
    }

    fn make_object(&mut self) -> &mut Vec<(String, Self)> {
        if let Self::Leaf(_) = self {
            *self = Self::default();
        }
        match self {
            Self::Object(entries) => entries,
            Self::Leaf(_) => unreachable!("a leaf was replaced by an object above"),
        }
    }

    fn print(&self, depth: usize, text: &mut String) {
        match self {
            Self::Leaf(value) => print_value(value, depth, text),
            Self::Object(entries) => {
                print_block(entries.iter(), depth, text, ('{', '}'), |(name, node), depth, text| {
                    text.push_str(&format!("{}: ", Value::from(name.as_str())));
                    node.print(depth, text);
                });
            }
        }
    }
}

fn print_value(value: &Value, depth: usize, text: &mut String) {
    match value {
        Value::Array(items) => {
            print_block(items.iter(), depth, text, ('[', ']'), print_value);
        }
        Value::Object(entries) => {
            let sorted: BTreeMap<&String, &Value> = entries.iter().collect();
            print_block(sorted.into_iter(), depth, text, ('{', '}'), |(name, item), depth, text| {
                text.push_str(&format!("{}: ", Value::from(name.as_str())));
                print_value(item, depth, text);
            });
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => text.push_str(&value.to_string()),
    }
}

fn print_block<T>(
    items: impl ExactSizeIterator<Item = T>,
    depth: usize,
    text: &mut String,
    (open, close): (char, char),
    print: impl Fn(T, usize, &mut String),
) {
    let count = items.len();
    text.push(open);
    for (place, item) in items.enumerate() {
        text.push('\n');
        text.push_str(&"  ".repeat(depth + 1));
        print(item, depth + 1, text);
        if place + 1 < count {
            text.push(',');
        }
    }
    if count > 0 {
        text.push('\n');
        text.push_str(&"  ".repeat(depth));
    }
    text.push(close);
}
