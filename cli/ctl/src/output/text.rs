//! Answers for people, line by line in the formats of the original: scripts read them too.
//!
//! **Invariant:** names and errors come from other machines; no control character of theirs reaches a terminal.

use std::collections::BTreeMap;

use cluster_client::ApiFailure;
use cluster_types::{
    AddedOutput, Alert, Bandwidth, CatchUp, Event, GlobalPinInfo, GlobalRepoGc, Id, Metric, Multiaddr, Pin, PinDepth,
    PinMode, Timestamp,
};
use serde::Serialize;

use super::humanise::{bytes, relative};
use super::{Show, Table, tables};

/// One thing that was added.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct Added<'a> {
    /// What.
    pub(crate) output: &'a AddedOutput,
    /// Whether its CID is enough.
    #[serde(skip)]
    pub(crate) quiet: bool,
}

/// Everything that was added.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct AddedList<'a>(pub(crate) Vec<Added<'a>>);

/// The version of a peer.
#[derive(Debug, Serialize)]
pub(crate) struct PeerVersion {
    /// As the peer says it.
    pub(crate) version: String,
}

/// Names of metrics.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub(crate) struct MetricNames(pub(crate) Vec<String>);

/// The text of lines, without control characters.
pub(crate) fn joined(lines: &[String]) -> String {
    let mut text = String::new();
    for line in lines {
        text.extend(line.chars().map(|letter| if letter.is_control() { ' ' } else { letter }));
        text.push('\n');
    }
    text
}

impl Show for ApiFailure {
    fn lines(&self, _now: Timestamp) -> Vec<String> {
        vec!["An error occurred:".to_owned(), format!("  Code: {}", self.code), format!("  Message: {}", self.message)]
    }
}

impl Show for Id {
    fn lines(&self, _now: Timestamp) -> Vec<String> {
        if !self.error.is_empty() {
            return vec![format!("{} | ERROR: {}", self.id, self.error)];
        }
        let others = self.cluster_peers.len().saturating_sub(1);
        let mut lines = vec![format!("{} | {} | Sees {others} other peers", self.id, self.peername)];
        lines.push("  > Addresses:".to_owned());
        lines.extend(address_lines(&self.addresses));
        if self.ipfs.error.is_empty() {
            lines.push(format!("  > IPFS: {}", self.ipfs.id));
            lines.extend(address_lines(&self.ipfs.addresses));
        } else {
            lines.push(format!("  > IPFS ERROR: {}", self.ipfs.error));
        }
        lines.extend(self.catching_up.as_ref().map(catch_up_line));
        lines
    }

    fn table(&self, _now: Timestamp) -> Option<Table> {
        Some(tables::of_id(self))
    }
}

fn catch_up_line(progress: &CatchUp) -> String {
    let CatchUp { shards_done, shards_total, lag_entries, lag_seconds, .. } = progress;
    let rest = match (progress.installing, progress.eta_seconds) {
        (true, _) => "putting them in place".to_owned(),
        (false, Some(seconds)) => format!("about {seconds}s left"),
        (false, None) => "just begun".to_owned(),
    };
    let came = bytes(progress.bytes);
    format!(
        "  > Catching up: {shards_done}/{shards_total} shards, {came}, {lag_entries} entries ({lag_seconds}s) behind, {rest}"
    )
}

fn address_lines(addresses: &[Multiaddr]) -> Vec<String> {
    let mut lines: Vec<String> = addresses.iter().map(|address| format!("    - {address}")).collect();
    lines.sort();
    lines
}

impl Show for GlobalPinInfo {
    fn lines(&self, _now: Timestamp) -> Vec<String> {
        let name = if self.name.is_empty() { String::new() } else { format!(" | {}", self.name) };
        let mut lines = vec![format!("{}{name}:", self.cid)];
        for (peer, info) in &self.peer_map {
            let peer = if info.peername.is_empty() { peer } else { &info.peername };
            let error = if info.error.is_empty() { String::new() } else { format!(": {}", info.error) };
            lines.push(format!(
                "    > {peer:<20} : {}{error} | {} | Attempts: {} | Priority: {}",
                info.status.as_str().to_uppercase(),
                info.timestamp.whole_seconds(),
                info.attempt_count,
                info.priority_pin
            ));
        }
        lines
    }

    fn table(&self, _now: Timestamp) -> Option<Table> {
        Some(tables::of_status(self))
    }
}

impl Show for Pin {
    fn lines(&self, _now: Timestamp) -> Vec<String> {
        let direct = if self.max_depth.mode() == PinMode::Direct { "-DIRECT" } else { "" };
        let (factor, allocations) = if self.is_everywhere() {
            ("-1".to_owned(), "[everywhere]".to_owned())
        } else {
            let mut peers: Vec<String> = self.allocations.iter().map(ToString::to_string).collect();
            peers.sort();
            let (least, most) = (self.options.replication_factor_min, self.options.replication_factor_max);
            (format!("{least}--{most}"), format!("[{}]", peers.join(" ")))
        };
        let depth = match self.max_depth {
            PinDepth::DIRECT => "Direct".to_owned(),
            PinDepth::RECURSIVE => "Recursive".to_owned(),
            PinDepth(levels) => format!("Recursive-{levels}"),
        };
        vec![format!(
            "{} | {} | {}{direct} | Repl. Factor: {factor} | Allocations: {allocations} | {depth} | Metadata: {} | \
             Exp: {} | Added: {}",
            self.cid,
            self.options.name,
            self.kind.as_str().to_uppercase(),
            if self.options.metadata.is_empty() { "no" } else { "yes" },
            day_and_time(self.options.expire_at, "∞"),
            day_and_time(self.timestamp, "unknown"),
        )]
    }

    fn table(&self, _now: Timestamp) -> Option<Table> {
        Some(tables::of_pin(self))
    }
}

/// `2006-01-02 15:04:05` in UTC, or `none` when there is no time.
pub(super) fn day_and_time(time: Timestamp, none: &str) -> String {
    if time.is_zero() { none.to_owned() } else { time.inner().strftime("%Y-%m-%d %H:%M:%S").to_string() }
}

impl Show for Added<'_> {
    fn lines(&self, _now: Timestamp) -> Vec<String> {
        let cid = self.output.cid.map(|cid| cid.to_string()).unwrap_or_default();
        vec![if self.quiet { cid } else { format!("added {cid} {}", self.output.name) }]
    }
}

impl Show for AddedList<'_> {
    fn lines(&self, now: Timestamp) -> Vec<String> {
        self.0.iter().flat_map(|added| added.lines(now)).collect()
    }
}

impl Show for PeerVersion {
    fn lines(&self, _now: Timestamp) -> Vec<String> {
        vec![self.version.clone()]
    }
}

impl Show for MetricNames {
    fn lines(&self, _now: Timestamp) -> Vec<String> {
        self.0.clone()
    }
}

impl Show for Vec<Metric> {
    fn lines(&self, now: Timestamp) -> Vec<String> {
        self.iter().map(|metric| metric_line(metric, now)).collect()
    }

    fn table(&self, now: Timestamp) -> Option<Table> {
        Some(tables::of_metrics(self, now))
    }
}

fn metric_line(metric: &Metric, now: Timestamp) -> String {
    let expires = relative(Timestamp::from_unix_nanos(metric.expire.into()), now);
    format!("{} | {}: {} | Expires in: {expires}", metric.peer, metric.name, metric_value(metric))
}

/// The value of a metric; sizes are humanised.
pub(super) fn metric_value(metric: &Metric) -> String {
    let size = u64::try_from(metric.weight).ok().filter(|size| metric.name == Metric::FREESPACE && *size > 0);
    size.map_or_else(|| metric.value.clone(), bytes)
}

impl Show for Vec<Alert> {
    fn lines(&self, now: Timestamp) -> Vec<String> {
        let line = |alert: &Alert| {
            let expired = relative(Timestamp::from_unix_nanos(alert.metric.expire.into()), now);
            let triggered = relative(alert.triggered_at, now);
            let (peer, name) = (alert.metric.peer, &alert.metric.name);
            format!("{peer}: {name}. Expired at: {expired}. Triggered at: {triggered}")
        };
        self.iter().map(line).collect()
    }

    fn table(&self, now: Timestamp) -> Option<Table> {
        Some(tables::of_alerts(self, now))
    }
}

impl Show for BTreeMap<String, Bandwidth> {
    fn lines(&self, _now: Timestamp) -> Vec<String> {
        let line = |(protocol, counted): (&String, &Bandwidth)| {
            let Bandwidth { total_in, total_out, rate_in, rate_out } = counted;
            format!(
                "{protocol:>25}: In: {:>7}. Out: {:>7}. RateIn: {rate_in:.2}B/s. RateOut: {rate_out:.2}B/s",
                bytes(*total_in),
                bytes(*total_out)
            )
        };
        self.iter().map(line).collect()
    }

    fn table(&self, _now: Timestamp) -> Option<Table> {
        Some(tables::of_bandwidth(self))
    }
}

impl Show for Event {
    fn lines(&self, _now: Timestamp) -> Vec<String> {
        vec![format!("{} | {} | {}", self.at(), self.time, self.message)]
    }
}

impl Show for GlobalRepoGc {
    fn lines(&self, _now: Timestamp) -> Vec<String> {
        let mut lines = Vec::new();
        for (peer, done) in &self.peer_map {
            let peer = if done.peername.is_empty() { peer } else { &done.peername };
            let error = if done.error.is_empty() { String::new() } else { format!(" | ERROR: {}", done.error) };
            lines.push(format!("{peer:<15}{error}"));
            lines.push("  > CIDs:".to_owned());
            lines.extend(done.keys.iter().map(|key| match (&key.key, key.error.as_str()) {
                (Some(cid), "") => format!("    - {cid}"),
                (None, "") => "    - ".to_owned(),
                (_, error) => format!("    - ERROR: {error}"),
            }));
        }
        lines
    }

    fn table(&self, _now: Timestamp) -> Option<Table> {
        Some(tables::of_gc(self))
    }
}

#[cfg(test)]
mod tests;
