//! Every key of the configuration, in the order of the file, with its kind, its default and what its absence means.
//!
//! **Invariant:** this table is the only place where a default stands. Reading, writing, the names of environment
//! variables and the list of known keys all follow from it.

use super::datastores::{BADGER, BADGER3, LEVELDB, PEBBLE};
use Kind::{
    Addresses, Bool, Credentials, Duration, Fraction, Headers, Ignored, Secret, Size, Text, TextMap, Texts, Whole,
};

/// What a value must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A text.
    Text,
    /// A text that is never printed.
    Secret,
    /// true or false.
    Bool,
    /// A whole number.
    Whole,
    /// A number with a fraction.
    Fraction,
    /// A duration as Go writes it; an empty text counts as missing.
    Duration,
    /// One multiaddress or a list of them.
    Addresses,
    /// A list of texts.
    Texts,
    /// Names and texts.
    TextMap,
    /// Users and passwords; never printed.
    Credentials,
    /// Header names, each with a list of values.
    Headers,
    /// A number of bytes, or a text like `10GB`.
    Size,
    /// Known, accepted and without effect here, whatever it holds.
    Ignored,
}

impl Kind {
    /// Whether values of this kind must not be printed.
    pub(super) fn is_secret(self) -> bool {
        matches!(self, Secret | Credentials)
    }
}

/// What it means that a key is missing although the object it belongs to is there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Absence {
    /// The default holds.
    Default,
    /// This JSON holds instead.
    Json(&'static str),
    /// It must be there.
    Error(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// Its name inside the component; `.` goes into an object.
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    /// Its default, as JSON.
    pub(super) default: &'static str,
    pub(super) absence: Absence,
    /// Whether `init` writes it.
    pub(super) written: bool,
    /// Whether anything follows from it yet; the start names those that are set and without effect.
    pub(super) served: bool,
    /// What nothing (an empty text or list, 0) means where it is written.
    pub(super) nothing: Nothing,
}

/// What nothing (an empty text or list, 0) means where it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nothing {
    /// Itself.
    Itself,
    /// The default.
    Default,
    /// The default, and so does a duration that is none; the start says so.
    DefaultWithRemark,
}

impl Field {
    const fn omitted(mut self) -> Self {
        self.written = false;
        self
    }

    /// Checked, but without effect in this version, or only partly in effect.
    const fn unserved(mut self) -> Self {
        self.served = false;
        self
    }

    const fn nothing_is_default(mut self) -> Self {
        self.nothing = Nothing::Default;
        self
    }

    const fn forgiving(mut self) -> Self {
        self.nothing = Nothing::DefaultWithRemark;
        self
    }

    const fn absent(mut self, json: &'static str) -> Self {
        self.absence = Absence::Json(json);
        self
    }

    const fn required(mut self, message: &'static str) -> Self {
        self.absence = Absence::Error(message);
        self
    }
}

const fn field(key: &'static str, kind: Kind, default: &'static str) -> Field {
    Field { key, kind, default, absence: Absence::Default, written: true, served: true, nothing: Nothing::Itself }
}

/// A key of the original that has no meaning here, with the original's default: another value is named at the start.
/// `null` as the default stands for any value.
pub(super) const fn ignored(key: &'static str, default: &'static str) -> Field {
    let mut field = field(key, Ignored, default);
    field.written = false;
    field
}

/// One component of the configuration file.
#[derive(Debug)]
pub(super) struct Component {
    /// The section it stands in.
    pub(super) section: &'static str,
    /// Its name in the section; empty when it is the section.
    pub(super) name: &'static str,
    /// Prefix of its environment variables.
    pub(super) environment: &'static str,
    pub(super) fields: &'static [Field],
}

impl Component {
    /// The component's place in the file.
    pub(super) fn path(&self) -> String {
        if self.name.is_empty() { self.section.to_owned() } else { format!("{}.{}", self.section, self.name) }
    }

    /// A key with the sections it stands in.
    pub(super) fn full_key(&self, key: &str) -> String {
        format!("{}.{key}", self.path())
    }

    /// The field with this key.
    pub(super) fn field(&self, key: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.key == key)
    }
}

pub(super) static CLUSTER: Component = Component {
    section: "cluster",
    name: "",
    environment: "CLUSTER",
    fields: &[
        field("id", Text, "\"\"").omitted(),
        field("private_key", Secret, "\"\"").omitted(),
        field("peername", Text, "\"\""),
        field("secret", Secret, "\"\""),
        field("leave_on_shutdown", Bool, "false"),
        field("listen_multiaddress", Addresses, r#"["/ip4/0.0.0.0/tcp/9096", "/ip4/0.0.0.0/udp/9096/quic"]"#)
            .required("cluster.listen_multiaddress is undefined"),
        field("announce_multiaddress", Addresses, "[]"),
        field("no_announce_multiaddress", Addresses, "[]"),
        // Without effect as true: nobody in a network of members needs a relay.
        field("enable_relay_hop", Bool, "true").absent("false"),
        field("connection_manager.high_water", Whole, "400").absent("0"),
        field("connection_manager.low_water", Whole, "100").absent("0"),
        field("connection_manager.grace_period", Duration, "\"2m0s\""),
        field("resource_manager.enabled", Bool, "true").absent("false"),
        field("resource_manager.memory_limit_bytes", Whole, "0").unserved(),
        field("resource_manager.file_descriptors_limit", Whole, "0"),
        field("pubsub.seen_messages_ttl", Duration, "\"30m0s\""),
        field("pubsub.heartbeat_interval", Duration, "\"10s\""),
        field("pubsub.d_factor", Whole, "4").absent("0"),
        field("pubsub.history_gossip", Whole, "2").absent("0"),
        field("pubsub.history_length", Whole, "6").absent("0"),
        field("pubsub.flood_publish", Bool, "false"),
        field("dial_peer_timeout", Duration, "\"3s\""),
        field("state_sync_interval", Duration, "\"5m0s\""),
        field("pin_recover_interval", Duration, "\"12m0s\""),
        field("replication_factor_min", Whole, "-1"),
        field("replication_factor_max", Whole, "-1"),
        field("monitor_ping_interval", Duration, "\"15s\""),
        field("peer_watch_interval", Duration, "\"5s\"").unserved(),
        field("mdns_interval", Duration, "\"10s\""),
        field("pin_only_on_trusted_peers", Bool, "false"),
        field("pin_only_on_untrusted_peers", Bool, "false"),
        // The original writes true, because its repair is dangerous. Ours is not.
        field("disable_repinning", Bool, "false"),
        // Ours: how long a silent peer keeps its share before others take it over.
        field("repinning_grace_period", Duration, "\"1m0s\""),
        field("follower_mode", Bool, "false").omitted(),
        // Ours: what a follower holds; without any, what is everywhere or names it.
        field("follower_filter.names", Texts, "[]").omitted(),
        field("follower_filter.metadata", TextMap, "{}").omitted(),
        field("follower_filter.share", Text, "\"\"").omitted(),
        field("peerstore_file", Text, "\"\"").omitted(),
        field("peer_addresses", Addresses, "[]"),
    ],
};

pub(super) static CRDT: Component = Component {
    section: "consensus",
    name: "crdt",
    environment: "CLUSTER_CRDT",
    fields: &[
        field("cluster_name", Text, "\"ipfs-cluster\"").nothing_is_default(),
        field("trusted_peers", Texts, r#"["*"]"#).absent("[]"),
        field("commit_timeout", Duration, "\"2s\""),
        field("max_voters", Whole, "5"),
        field("voter_grace_period", Duration, "\"10m0s\""),
        field("heartbeat_interval", Duration, "\"250ms\""),
        field("election_timeout_min", Duration, "\"1s\""),
        field("election_timeout_max", Duration, "\"2s\""),
        field("snapshot_threshold", Whole, "20000").omitted(),
        ignored("batching.max_batch_size", "0"),
        ignored("batching.max_batch_age", "\"0s\""),
        ignored("batching.max_queue_size", "50000"),
        ignored("rebroadcast_interval", "\"1m0s\""),
        ignored("repair_interval", "\"1h0m0s\""),
        ignored("peerset_metric", "\"ping\""),
        ignored("datastore_namespace", "\"/c\""),
    ],
};

pub(super) static RAFT: Component = Component {
    section: "consensus",
    name: "raft",
    environment: "CLUSTER_RAFT",
    fields: &[
        field("cluster_name", Text, "\"ipfs-cluster\"").nothing_is_default(),
        field("init_peerset", Texts, "[]"),
        field("wait_for_leader_timeout", Duration, "\"15s\"").forgiving(),
        field("max_voters", Whole, "5"),
        field("voter_grace_period", Duration, "\"10m0s\""),
        field("heartbeat_interval", Duration, "\"250ms\""),
        field("election_timeout_min", Duration, "\"1s\""),
        field("election_timeout_max", Duration, "\"2s\""),
        // The original's key and default.
        field("snapshot_threshold", Whole, "8192").forgiving().omitted(),
        ignored("data_folder", "\"\""),
        ignored("network_timeout", "\"10s\""),
        ignored("commit_retries", "1"),
        ignored("commit_retry_delay", "\"200ms\""),
        field("backups_rotate", Whole, "6").forgiving().omitted(),
        ignored("datastore_namespace", "\"/r\""),
        ignored("heartbeat_timeout", "\"1s\""),
        ignored("election_timeout", "\"1s\""),
        ignored("commit_timeout", "\"50ms\""),
        ignored("max_append_entries", "64"),
        ignored("trailing_logs", "10240"),
        ignored("snapshot_interval", "\"2m0s\""),
        ignored("leader_lease_timeout", "\"500ms\""),
    ],
};

/// The keys that the REST API and the pinning service API share; only the port differs.
macro_rules! http_api_fields {
    ($listen:literal) => {
        &[
            field("http_listen_multiaddress", Addresses, $listen).nothing_is_default(),
            field("ssl_cert_file", Text, "\"\"").omitted(),
            field("ssl_key_file", Text, "\"\"").omitted(),
            field("read_timeout", Duration, "\"0s\""),
            field("read_header_timeout", Duration, "\"5s\""),
            field("write_timeout", Duration, "\"0s\""),
            field("idle_timeout", Duration, "\"2m0s\""),
            field("max_header_bytes", Whole, "4096").nothing_is_default(),
            field("libp2p_listen_multiaddress", Addresses, "[]").omitted(),
            field("id", Text, "\"\"").omitted(),
            field("private_key", Secret, "\"\"").omitted(),
            field("basic_auth_credentials", Credentials, "null"),
            // Ours: what users may do, how long their tokens live, and whether everyone may ask.
            field("basic_auth_scopes", Headers, "{}").omitted(),
            field("token_lifetime", Duration, "\"0s\"").omitted(),
            field("allow_unauthenticated", Bool, "false").omitted(),
            field("http_log_file", Text, "\"\""),
            field("headers", Headers, "{}"),
            // Ours: names by which this peer may be called, and limits; 0 is none where it can be none.
            field("allowed_hosts", Texts, "[]").omitted(),
            field("max_connections", Whole, "1024").nothing_is_default().omitted(),
            field("max_connections_per_ip", Whole, "512").omitted(),
            field("max_writes", Whole, "1024").nothing_is_default().omitted(),
            field("max_upload_bytes", Size, "0").omitted(),
            field("cors_allowed_origins", Texts, r#"["*"]"#).absent("[]"),
            field("cors_allowed_methods", Texts, r#"["GET"]"#).absent("[]"),
            field("cors_allowed_headers", Texts, "[]"),
            field(
                "cors_exposed_headers",
                Texts,
                r#"["Content-Type", "X-Stream-Output", "X-Chunked-Output", "X-Content-Length"]"#,
            )
            .absent("[]"),
            field("cors_allow_credentials", Bool, "true").absent("false"),
            field("cors_max_age", Duration, "\"0s\""),
        ]
    };
}

pub(super) static RESTAPI: Component = Component {
    section: "api",
    name: "restapi",
    environment: "CLUSTER_RESTAPI",
    fields: http_api_fields!("\"/ip4/127.0.0.1/tcp/9094\""),
};

pub(super) static PINSVCAPI: Component = Component {
    section: "api",
    name: "pinsvcapi",
    environment: "CLUSTER_PINSVCAPI",
    fields: http_api_fields!("\"/ip4/127.0.0.1/tcp/9097\""),
};

pub(super) static IPFSPROXY: Component = Component {
    section: "api",
    name: "ipfsproxy",
    environment: "CLUSTER_IPFSPROXY",
    fields: &[
        field("listen_multiaddress", Addresses, "\"/ip4/127.0.0.1/tcp/9095\""),
        field("node_multiaddress", Addresses, "\"/ip4/127.0.0.1/tcp/5001\""),
        field("node_https", Bool, "false").omitted(),
        field("log_file", Text, "\"\""),
        field("read_timeout", Duration, "\"0s\""),
        field("read_header_timeout", Duration, "\"5s\""),
        field("write_timeout", Duration, "\"0s\""),
        field("idle_timeout", Duration, "\"1m0s\""),
        field("max_header_bytes", Whole, "4096").nothing_is_default(),
        field("extract_headers_extra", Texts, "[]").omitted(),
        field("extract_headers_path", Text, "\"/api/v0/version\"").nothing_is_default().omitted(),
        field("extract_headers_ttl", Duration, "\"5m0s\"").omitted(),
    ],
};

pub(super) static IPFSHTTP: Component = Component {
    section: "ipfs_connector",
    name: "ipfshttp",
    environment: "CLUSTER_IPFSHTTP",
    fields: &[
        field("node_multiaddress", Addresses, "\"/ip4/127.0.0.1/tcp/5001\"")
            .required("ipfs_connector.ipfshttp.node_multiaddress is undefined"),
        field("connect_swarms_delay", Duration, "\"30s\""),
        field("ipfs_request_timeout", Duration, "\"5m0s\""),
        field("pin_timeout", Duration, "\"2m0s\""),
        field("unpin_timeout", Duration, "\"3h0m0s\""),
        field("repogc_timeout", Duration, "\"24h0m0s\""),
        field("informer_trigger_interval", Whole, "0"),
        field("unpin_disable", Bool, "false").omitted(),
    ],
};

pub(super) static EMBEDDED: Component = Component {
    section: "ipfs_connector",
    name: "embedded",
    environment: "CLUSTER_EMBEDDED",
    fields: &[
        field("listen_multiaddress", Addresses, "\"/ip4/0.0.0.0/tcp/4001\""),
        field("storage_max", Size, "\"10GB\""),
        field("storage_gc_watermark", Whole, "0").omitted(),
        field("pin_timeout", Duration, "\"2m0s\""),
        field("rpc_listen_multiaddress", Addresses, "[]").omitted(),
    ],
};

pub(super) static STATELESS: Component = Component {
    section: "pin_tracker",
    name: "stateless",
    environment: "CLUSTER_STATELESS",
    fields: &[
        field("max_pin_queue_size", Whole, "1000000").unserved().omitted(),
        field("concurrent_pins", Whole, "10"),
        field("priority_pin_max_age", Duration, "\"24h0m0s\""),
        field("priority_pin_max_retries", Whole, "5"),
    ],
};

pub(super) static PUBSUBMON: Component = Component {
    section: "monitor",
    name: "pubsubmon",
    environment: "CLUSTER_PUBSUBMON",
    fields: &[field("check_interval", Duration, "\"15s\"").required("monitor.pubsubmon.check_interval is undefined")],
};

pub(super) static BALANCED: Component = Component {
    section: "allocator",
    name: "balanced",
    environment: "CLUSTER_BALANCED",
    fields: &[field("allocate_by", Texts, r#"["tag:group", "freespace"]"#)],
};

pub(super) static DISK: Component = Component {
    section: "informer",
    name: "disk",
    environment: "CLUSTER_DISK",
    fields: &[
        field("metric_ttl", Duration, "\"30s\"").required("informer.disk.metric_ttl is undefined"),
        field("metric_type", Text, "\"freespace\"").required("informer.disk.metric_type is undefined"),
    ],
};

pub(super) static PINQUEUE: Component = Component {
    section: "informer",
    name: "pinqueue",
    environment: "CLUSTER_PINQUEUE",
    fields: &[field("metric_ttl", Duration, "\"30s\""), field("weight_bucket_size", Whole, "100000")],
};

pub(super) static TAGS: Component = Component {
    section: "informer",
    name: "tags",
    environment: "CLUSTER_TAGS",
    fields: &[field("metric_ttl", Duration, "\"30s\""), field("tags", TextMap, r#"{"group": "default"}"#).absent("{}")],
};

pub(super) static METRICS: Component = Component {
    section: "observations",
    name: "metrics",
    environment: "CLUSTER_METRICS",
    fields: &[
        field("enable_stats", Bool, "false"),
        field("prometheus_endpoint", Addresses, "\"/ip4/127.0.0.1/tcp/8888\"")
            .required("observations.metrics.prometheus_endpoint is undefined"),
        field("reporting_interval", Duration, "\"30s\"").unserved(),
    ],
};

pub(super) static TRACING: Component = Component {
    section: "observations",
    name: "tracing",
    environment: "CLUSTER_TRACING",
    fields: &[
        field("enable_tracing", Bool, "false").unserved(),
        field("jaeger_agent_endpoint", Addresses, "\"/ip4/0.0.0.0/udp/6831\"")
            .unserved()
            .required("observations.tracing.jaeger_agent_endpoint is undefined"),
        field("sampling_prob", Fraction, "0.3").unserved(),
        field("service_name", Text, "\"cluster-daemon\"").unserved(),
    ],
};

/// Every component with keys of its own, in the order of the file.
pub(super) static COMPONENTS: [&Component; 21] = [
    &CLUSTER, &CRDT, &RAFT, &IPFSPROXY, &PINSVCAPI, &RESTAPI, &EMBEDDED, &IPFSHTTP, &STATELESS, &PUBSUBMON, &BALANCED,
    &DISK, &PINQUEUE, &TAGS, &METRICS, &TRACING, &NUMPIN, &PEBBLE, &BADGER3, &BADGER, &LEVELDB,
];

/// Known to the original's code, but without keys; accepted so that no warning names it.
pub(super) static NUMPIN: Component = Component {
    section: "informer",
    name: "numpin",
    environment: "CLUSTER_NUMPIN",
    fields: &[ignored("metric_ttl", "null")],
};

/// Storage engines of the original; their sections are accepted, their options have no effect on ours.
pub(super) static DATASTORES: [&Component; 4] = [&PEBBLE, &BADGER3, &BADGER, &LEVELDB];

/// Sections that are accepted whole, whatever they hold.
pub(super) const OPAQUE_SECTIONS: [&str; 1] = ["state"];
