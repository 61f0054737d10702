//! Which columns an answer has on a terminal. The lines that scripts read are in [`super::text`].

use std::collections::BTreeMap;

use cluster_types::{
    Alert, Bandwidth, GlobalPinInfo, GlobalRepoGc, Id, Metric, Pin, PinDepth, PinMode, Timestamp, TrackerStatus,
};

use super::humanise::{bytes, relative};
use super::table::{Cell, Table, Tone};
use super::text::{day_and_time, metric_value};

/// The width of a CID or of the id of a peer, mostly.
const ID: usize = 52;

/// Members.
pub(super) fn of_id(id: &Id) -> Table {
    let state = match (&id.error, &id.ipfs.error, id.catching_up) {
        (error, _, _) if !error.is_empty() => Cell::error(error),
        (_, error, _) if !error.is_empty() => Cell::error(&format!("IPFS: {error}")),
        (_, _, Some(_)) => Cell::of("catching up", Tone::Busy),
        _ => Cell::of("ok", Tone::Good),
    };
    let sees = id.cluster_peers.len().saturating_sub(1);
    let address = id.addresses.iter().map(ToString::to_string).min().unwrap_or_default();
    let row = vec![
        Cell::plain(id.id),
        Cell::plain(&id.peername),
        state,
        Cell::plain(sees),
        Cell::of(&id.ipfs.id, Tone::Faint),
        Cell::of(address, Tone::Faint),
    ];
    let columns = &[("PEER", ID), ("NAME", 16), ("STATE", 11), ("SEES", 4), ("IPFS NODE", ID), ("ADDRESS", 0)];
    Table { columns, rows: vec![row] }
}

fn tone_of(status: TrackerStatus) -> Tone {
    use TrackerStatus as S;
    match status {
        S::Pinned | S::Unpinned | S::Sharded => Tone::Good,
        S::Remote => Tone::Faint,
        S::Pinning | S::Unpinning | S::PinQueued | S::UnpinQueued => Tone::Busy,
        S::Undefined | S::ClusterError | S::PinError | S::UnpinError | S::UnexpectedlyUnpinned => Tone::Bad,
    }
}

/// How a pin is doing: a row for each peer, the CID in the first.
pub(super) fn of_status(info: &GlobalPinInfo) -> Table {
    let mut shown = (info.cid.to_string(), info.name.clone());
    let rows = info.peer_map.iter().map(|(peer, short)| {
        let (cid, name) = std::mem::take(&mut shown);
        vec![
            Cell::plain(cid),
            Cell::plain(name),
            Cell::plain(if short.peername.is_empty() { peer } else { &short.peername }),
            Cell::of(short.status, tone_of(short.status)),
            Cell::of(short.timestamp.whole_seconds(), Tone::Faint),
            Cell::plain(short.attempt_count),
            Cell::error(&short.error),
        ]
    });
    let rows = rows.collect();
    let columns =
        &[("CID", ID + 7), ("NAME", 16), ("PEER", 16), ("STATUS", 12), ("SINCE", 20), ("ATTEMPTS", 8), ("ERROR", 0)];
    Table { columns, rows }
}

/// An entry of the pinset.
pub(super) fn of_pin(pin: &Pin) -> Table {
    let mode = if pin.max_depth.mode() == PinMode::Direct { "-direct" } else { "" };
    let depth = match pin.max_depth {
        PinDepth::DIRECT => "direct".to_owned(),
        PinDepth::RECURSIVE => "recursive".to_owned(),
        PinDepth(levels) => format!("recursive-{levels}"),
    };
    let options = &pin.options;
    let (copies, peers) = if pin.is_everywhere() {
        ("all".to_owned(), "everywhere".to_owned())
    } else {
        let mut peers: Vec<String> = pin.allocations.iter().map(ToString::to_string).collect();
        peers.sort();
        (format!("{}-{}", options.replication_factor_min, options.replication_factor_max), peers.join(" "))
    };
    let row = vec![
        Cell::plain(pin.cid),
        Cell::plain(&options.name),
        Cell::plain(format!("{}{mode}", pin.kind)),
        Cell::plain(depth),
        Cell::plain(copies),
        Cell::plain(day_and_time(options.expire_at, "∞")),
        Cell::plain(day_and_time(pin.timestamp, "unknown")),
        Cell::of(peers, Tone::Faint),
    ];
    let columns = &[
        ("CID", ID + 7),
        ("NAME", 16),
        ("TYPE", 8),
        ("DEPTH", 9),
        ("COPIES", 6),
        ("EXPIRES", 19),
        ("ADDED", 19),
        ("PEERS", 0),
    ];
    Table { columns, rows: vec![row] }
}

/// Metrics of a name.
pub(super) fn of_metrics(metrics: &[Metric], now: Timestamp) -> Table {
    let row = |metric: &Metric| {
        let tone = if metric.is_usable(now) { Tone::Good } else { Tone::Bad };
        let expires = relative(Timestamp::from_unix_nanos(metric.expire.into()), now);
        vec![
            Cell::plain(metric.peer),
            Cell::plain(&metric.name),
            Cell::of(expires, tone),
            Cell::plain(metric_value(metric)),
        ]
    };
    let columns = &[("PEER", ID), ("METRIC", 12), ("EXPIRES", 20), ("VALUE", 0)];
    Table { columns, rows: metrics.iter().map(row).collect() }
}

/// Metrics that were not renewed.
pub(super) fn of_alerts(alerts: &[Alert], now: Timestamp) -> Table {
    let row = |alert: &Alert| {
        let expired = relative(Timestamp::from_unix_nanos(alert.metric.expire.into()), now);
        vec![
            Cell::plain(alert.metric.peer),
            Cell::of(&alert.metric.name, Tone::Bad),
            Cell::plain(expired),
            Cell::plain(relative(alert.triggered_at, now)),
        ]
    };
    let columns = &[("PEER", ID), ("METRIC", 12), ("EXPIRED", 20), ("TRIGGERED", 0)];
    Table { columns, rows: alerts.iter().map(row).collect() }
}

/// What collecting garbage did: a row for each peer.
pub(super) fn of_gc(collected: &GlobalRepoGc) -> Table {
    let rows = collected.peer_map.iter().map(|(peer, done)| {
        let failed = done.keys.iter().filter(|key| !key.error.is_empty()).count();
        let removed = done.keys.len() - failed;
        let first = done.keys.iter().map(|key| key.error.as_str()).find(|error| !error.is_empty()).unwrap_or_default();
        vec![
            Cell::plain(if done.peername.is_empty() { peer } else { &done.peername }),
            Cell::of(removed, Tone::Good),
            Cell::of(failed, if failed > 0 { Tone::Bad } else { Tone::Faint }),
            Cell::error(if done.error.is_empty() { first } else { &done.error }),
        ]
    });
    let rows = rows.collect();
    Table { columns: &[("PEER", 20), ("REMOVED", 8), ("FAILED", 8), ("ERROR", 0)], rows }
}

/// What went over each protocol.
pub(super) fn of_bandwidth(counted: &BTreeMap<String, Bandwidth>) -> Table {
    let rows = counted.iter().map(|(protocol, counted)| {
        vec![
            Cell::plain(protocol),
            Cell::plain(bytes(counted.total_in)),
            Cell::plain(bytes(counted.total_out)),
            Cell::plain(format!("{:.2} B/s", counted.rate_in)),
            Cell::plain(format!("{:.2} B/s", counted.rate_out)),
        ]
    });
    let rows = rows.collect();
    Table { columns: &[("PROTOCOL", 32), ("IN", 8), ("OUT", 8), ("RATE IN", 14), ("RATE OUT", 0)], rows }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CID: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";

    #[test]
    fn a_pin_that_fails_somewhere_is_seen_at_a_glance() {
        let json = format!(
            r#"{{"cid":"{CID}","name":"notes","peer_map":{{"a":{{"peername":"one","status":"pinned","timestamp":"2026-05-11T08:00:00.5Z","error":"","attempt_count":0,"priority_pin":false}},"b":{{"peername":"","status":"pin_error","timestamp":"2026-05-11T08:00:00Z","error":"no route","attempt_count":3,"priority_pin":false}}}}}}"#
        );
        let table = of_status(&serde_json::from_str(&json).unwrap());
        let text = table.rendered(true);
        assert_eq!(text.lines().count(), 3);
        assert_eq!(text.matches(CID).count(), 1);
        assert!(text.contains("\x1b[32mpinned\x1b[0m") && text.contains("2026-05-11T08:00:00Z"), "{text}");
        assert!(text.contains("\x1b[31mpin_error\x1b[0m") && text.contains("\x1b[31mno route\x1b[0m"), "{text}");
        for table in
            [table, of_pin(&Pin::new(CID.parse().unwrap(), Default::default())), of_gc(&GlobalRepoGc::default())]
        {
            assert!(table.rows.iter().all(|row| row.len() == table.columns.len()));
        }
    }

    #[test]
    fn a_peer_is_well_only_if_its_node_is() {
        let peer = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".parse().unwrap();
        let mut id = Id::unreachable(peer, "away".to_owned());
        assert!(of_id(&id).rendered(false).contains("\x1b[31maway"));
        id.error.clear();
        assert!(of_id(&id).rendered(false).contains("\x1b[32mok"));
        id.ipfs.error = "refused".to_owned();
        assert!(of_id(&id).rendered(false).contains("\x1b[31mIPFS: refused"));
    }
}
