//! Pin options and add parameters as they stand in a query.

use cluster_types::{
    AddFormat, AddLayout, AddParams, Cid, GoDuration, Multiaddr, PinMode, PinOptions, Protocol, Timestamp,
    UnixFsProfile, parse_peer_id,
};

use crate::error::Failure;
use crate::query::Query;

/// The shortest `expire-in`.
const SHORTEST_EXPIRY: std::time::Duration = std::time::Duration::from_secs(1);

/// Reads the options of a pin; `now` is what `expire-in` counts from.
pub(crate) fn pin_options(query: &Query, now: Timestamp) -> Result<PinOptions, Failure> {
    let both = query.value("replication").map(|_| query.int("replication", 0)).transpose()?;
    let mut options = PinOptions {
        name: query.value("name").unwrap_or_default().to_owned(),
        mode: PinMode::from_lossy(query.value("mode").unwrap_or_default()),
        replication_factor_min: both.map_or_else(|| query.int("replication-min", 0), Ok)?,
        replication_factor_max: both.map_or_else(|| query.int("replication-max", 0), Ok)?,
        expire_at: expiry(query, now)?,
        origins: origins(query)?,
        ..PinOptions::default()
    };
    if let Some(size) = query.value("shard-size") {
        options.shard_size = size.parse().map_err(|_| Failure::bad_request("parameter shard_size is invalid"))?;
    }
    if let Some(peers) = query.value("user-allocations") {
        options.user_allocations = peers.split(',').filter_map(|peer| parse_peer_id(peer).ok()).collect();
    }
    if let Some(cid) = query.value("pin-update") {
        let cid: Cid = cid
            .parse()
            .map_err(|error| Failure::bad_request(format!("error decoding update option parameter: {error}")))?;
        options.pin_update = Some(cid);
    }
    for (name, value) in query.pairs() {
        if let Some(key) = name.strip_prefix("meta-").filter(|key| !key.is_empty()) {
            options.metadata.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    Ok(options)
}

fn expiry(query: &Query, now: Timestamp) -> Result<Timestamp, Failure> {
    if let Some(text) = query.value("expire-at") {
        return text.parse().map_err(|error| Failure::bad_request(format!("expire-at cannot be parsed: {error}")));
    }
    Ok(expire_in(query)?.map_or(Timestamp::ZERO, |duration| now.saturating_add(duration)))
}

/// The duration `expire-in`, if it is there.
pub(crate) fn expire_in(query: &Query) -> Result<Option<std::time::Duration>, Failure> {
    let Some(text) = query.value("expire-in") else { return Ok(None) };
    if text.starts_with('-') {
        return Err(Failure::bad_request("expire-in duration too short"));
    }
    let GoDuration(duration) =
        text.parse().map_err(|error| Failure::bad_request(format!("expire-in cannot be parsed: {error}")))?;
    if duration < SHORTEST_EXPIRY {
        return Err(Failure::bad_request("expire-in duration too short"));
    }
    Ok(Some(duration))
}

fn origins(query: &Query) -> Result<Vec<Multiaddr>, Failure> {
    let Some(list) = query.value("origins") else { return Ok(Vec::new()) };
    list.split(',')
        .map(|text| {
            let address: Multiaddr = text
                .parse()
                .map_err(|error| Failure::bad_request(format!("error decoding origins parameter: {error}")))?;
            if address.iter().any(|part| matches!(part, Protocol::P2p(_))) {
                Ok(address)
            } else {
                Err(Failure::bad_request(format!("multiaddress does not contain peer ID: {text}")))
            }
        })
        .collect()
}

/// Reads what `POST /add` is asked to do.
pub(crate) fn add_params(query: &Query, now: Timestamp) -> Result<AddParams, Failure> {
    let format = match query.value("format") {
        None | Some("unixfs") => AddFormat::UnixFs,
        Some("car") => AddFormat::Car,
        Some(_) => return Err(Failure::bad_request("format parameter is invalid")),
    };
    let layout = match query.value("layout") {
        None | Some("balanced") => AddLayout::Balanced,
        Some("trickle") => AddLayout::Trickle,
        Some(_) => return Err(Failure::bad_request("layout parameter is invalid")),
    };
    let defaults = match query.value("profile").map(UnixFsProfile::by_name) {
        None => AddParams::default(),
        Some(Some(profile)) => profile.params(),
        Some(None) => return Err(Failure::bad_request("profile parameter is invalid")),
    };
    let cid_version = match query.int("cid-version", i32::try_from(defaults.cid_version).unwrap_or(0))? {
        0 => 0,
        1 => 1,
        _ => return Err(Failure::bad_request("parameter cid-version invalid")),
    };
    // What only matters to clients is checked all the same: a typing error should not pass in silence.
    for name in ["recursive", "hidden"] {
        query.bool(name, false)?;
    }
    // The blocks are copied all the same, as they were by the original: what remains are leaves that could be referred to.
    let raw_leaves = cid_version > 0 || query.bool("nocopy", false)?;
    let mut options = pin_options(query, now)?;
    options.pin_update = None;
    options.mode = PinMode::Recursive;
    Ok(AddParams {
        options,
        format,
        layout,
        chunker: query.value("chunker").map_or(defaults.chunker, str::to_owned),
        raw_leaves: query.bool("raw-leaves", raw_leaves)?,
        cid_version,
        hash: query.value("hash").map_or(defaults.hash, str::to_ascii_lowercase),
        max_file_links: count(query, "max-file-links", defaults.max_file_links)?,
        max_directory_links: count(query, "max-directory-links", defaults.max_directory_links)?,
        max_hamt_fanout: count(query, "max-hamt-fanout", defaults.max_hamt_fanout)?,
        directory_size: defaults.directory_size,
        wrap_with_directory: query.bool("wrap-with-directory", false)?,
        local: query.bool("local", false)?,
        no_pin: query.bool("no-pin", false)?,
        shard: query.bool("shard", false)?,
        progress: query.bool("progress", false)?,
        stream_channels: query.bool("stream-channels", true)?,
    })
}

/// A number that is not negative; 0 stands for the default, as in Kubo.
fn count(query: &Query, name: &str, default: usize) -> Result<usize, Failure> {
    match usize::try_from(query.int(name, 0)?) {
        Ok(0) => Ok(default),
        Ok(count) => Ok(count),
        Err(_) => Err(Failure::bad_request(format!("parameter {name} invalid"))),
    }
}

#[cfg(test)]
mod tests {
    use cluster_types::DirectorySize;

    use super::*;

    const CID: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";
    const PEER: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    fn options(query: &str) -> Result<PinOptions, String> {
        pin_options(&Query::parse(query).unwrap(), Timestamp::from_unix_seconds(1_000)).map_err(|failure| {
            assert_eq!(failure.status, 400);
            failure.message
        })
    }

    fn params(query: &str) -> Result<AddParams, String> {
        add_params(&Query::parse(query).unwrap(), Timestamp::ZERO).map_err(|failure| failure.message)
    }

    #[test]
    fn every_option_is_read() {
        let query = format!(
            "name=n&mode=direct&replication-min=1&replication-max=2&shard-size=7&user-allocations={PEER},junk&\
             expire-in=1h30m&meta-a=1&meta-a=2&meta-=x&pin-update={CID}&origins=/ip4/1.2.3.4/tcp/4001/p2p/{PEER}"
        );
        let read = options(&query).unwrap();
        assert_eq!((read.replication_factor_min, read.replication_factor_max), (1, 2));
        assert_eq!((read.name.as_str(), read.mode, read.shard_size), ("n", PinMode::Direct, 7));
        assert_eq!(read.user_allocations.len(), 1);
        assert_eq!(read.expire_at.unix_seconds(), 1_000 + 5_400);
        assert_eq!(read.metadata.into_iter().collect::<Vec<_>>(), [("a".to_owned(), "1".to_owned())]);
        assert_eq!(read.pin_update, Some(CID.parse().unwrap()));
        assert_eq!(read.origins.len(), 1);
    }

    #[test]
    fn one_factor_for_both_overrides_the_pair() {
        let read = options("replication=3&replication-min=x&replication-max=1").unwrap();
        assert_eq!((read.replication_factor_min, read.replication_factor_max), (3, 3));
        let at = options("expire-at=2030-01-02T03:04:05.000000006Z&expire-in=bad").unwrap();
        assert_eq!(at.expire_at.to_string(), "2030-01-02T03:04:05.000000006Z");
        assert_eq!(options("mode=sideways").unwrap().mode, PinMode::Recursive);
    }

    #[test]
    fn what_is_wrong_is_said_in_the_words_clients_know() {
        let cases = [
            ("replication=x", "parameter replication invalid"),
            ("replication-min=1.5", "parameter replication-min invalid"),
            ("replication-max=99999999999", "parameter replication-max invalid"),
            ("shard-size=-1", "parameter shard_size is invalid"),
            ("expire-at=tomorrow", "expire-at cannot be parsed"),
            ("expire-in=never", "expire-in cannot be parsed"),
            ("expire-in=300ms", "expire-in duration too short"),
            ("expire-in=-1h", "expire-in duration too short"),
            ("pin-update=x", "error decoding update option parameter: "),
            ("origins=/ip4/1.2.3.4/tcp/1", "multiaddress does not contain peer ID: /ip4/1.2.3.4/tcp/1"),
            ("origins=nonsense", "error decoding origins parameter: "),
        ];
        for (query, text) in cases {
            let said = options(query).unwrap_err();
            assert!(said.starts_with(text), "{query}: {said}");
        }
    }

    #[test]
    fn add_parameters_have_the_defaults_of_the_original() {
        assert_eq!(params("").unwrap(), AddParams::default());
        assert!(params("cid-version=1").unwrap().raw_leaves);
        assert!(!params("cid-version=1&raw-leaves=false").unwrap().raw_leaves);
        assert!(params("nocopy=true").unwrap().raw_leaves);
        assert!(!params("nocopy=true&raw-leaves=false").unwrap().raw_leaves);
        assert_eq!(params("hash=SHA2-512").unwrap().hash, "sha2-512");
        assert_eq!(params("profile=unixfs-v0-2015").unwrap(), AddParams::default());
        let newer = params("profile=unixfs-v1-2025").unwrap();
        assert_eq!((newer.chunker.as_str(), newer.max_file_links, newer.cid_version), ("size-1048576", 1024, 1));
        assert!(newer.raw_leaves && newer.directory_size == DirectorySize::Block);
        let other =
            params("profile=unixfs-v1-2025&cid-version=0&raw-leaves=0&max-file-links=3&chunker=buzhash").unwrap();
        assert_eq!((other.chunker.as_str(), other.max_file_links, other.raw_leaves), ("buzhash", 3, false));
        assert_eq!(params(&format!("pin-update={CID}&mode=direct")).unwrap().options, PinOptions::default());
        let cases = [
            ("format=zip", "format parameter is invalid"),
            ("layout=flat", "layout parameter is invalid"),
            ("profile=unixfs-v2", "profile parameter is invalid"),
            ("max-file-links=-1", "parameter max-file-links invalid"),
            ("progress=perhaps", "parameter progress invalid"),
            ("hidden=2", "parameter hidden invalid"),
            ("cid-version=7", "parameter cid-version invalid"),
            ("shard-size=x", "parameter shard_size is invalid"),
        ];
        for (query, text) in cases {
            assert_eq!(params(query).unwrap_err(), text);
        }
    }
}
