//! Whole imports into real folders.

use std::collections::BTreeMap;
use std::fs;

use cluster_types::PinDepth;
use futures::TryStreamExt;
use tempfile::TempDir;

use super::*;
use crate::config::{ConfigFolder, ConsensusName, NewConfig, ensure_identity};
use crate::state::{StoppedState, set_aside};

const CIDS: [&str; 3] = [
    "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH",
    "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
    "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
];

fn configured(place: &TempDir, consensus: ConsensusName) -> Config {
    let folder = ConfigFolder::new(place.path());
    let new = NewConfig { consensus, ..NewConfig::with_new_secret() };
    let loaded = new.write(&folder, &BTreeMap::<String, String>::new()).unwrap();
    ensure_identity(&folder, &loaded.config.cluster.identity).unwrap();
    loaded.config
}

async fn import_text(config: &Config, text: &str) -> Result<Imported, ImportError> {
    import(config, io::Cursor::new(text.to_owned()), ImportOptions::default()).await
}

async fn exported(config: &Config) -> BTreeMap<String, Pin> {
    let Some(stopped) = StoppedState::open(&config.state_folder).await.unwrap() else { return BTreeMap::new() };
    let pins = stopped.pins().map_ok(|pin| (pin.cid.to_string(), pin)).try_collect().await.unwrap();
    stopped.close().await.unwrap();
    pins
}

fn line(cid: &str, name: &str) -> String {
    format!("{{\"cid\":\"{cid}\",\"name\":\"{name}\",\"replication_factor_min\":-1,\"replication_factor_max\":-1}}\n")
}

#[tokio::test]
async fn what_is_imported_is_what_is_exported() {
    let place = TempDir::new().unwrap();
    let config = configured(&place, ConsensusName::Crdt);
    assert!(exported(&config).await.is_empty());
    // Pretty-printed, in one line, without type and depth, and a CID that comes twice: the last one counts.
    let text = [
        format!("{{\n  \"cid\": \"{}\",\n  \"mode\": \"direct\"\n}}{}", CIDS[0], line(CIDS[1], "first").trim()),
        line(CIDS[1], "second"),
        line(CIDS[2], "third"),
    ];
    let imported = import_text(&config, &text.concat()).await.unwrap();
    assert_eq!((imported.pins, imported.members.len()), (3, 1));
    let pins = exported(&config).await;
    assert_eq!(pins[CIDS[0]].max_depth, PinDepth::DIRECT);
    assert_eq!(pins[CIDS[1]].options.name, "second");
    let lines: Vec<String> = pins.values().map(|pin| serde_json::to_string(pin).unwrap()).collect();
    import_text(&config, &lines.join("")).await.unwrap();
    assert_eq!(exported(&config).await, pins);
    assert!(config.state_folder.join("old.0/state").exists(), "the state before is kept");

    assert!(set_aside(&config.state_folder, config.consensus.backups).unwrap().is_some());
    assert!(exported(&config).await.is_empty());
}

#[tokio::test]
async fn an_error_anywhere_leaves_the_state_as_it_was() {
    let place = TempDir::new().unwrap();
    let config = configured(&place, ConsensusName::Crdt);
    import_text(&config, &line(CIDS[0], "kept")).await.unwrap();
    let before = exported(&config).await;
    let good = line(CIDS[1], "good").repeat(3 * BATCH);
    for (bad, at, what) in [
        ("{\"cid\":", 1, "the input ends"),
        ("{\n\"cid\": 7\n}", 1, "invalid type"),
        ("{\n\n\"cid\" 7\n}", 3, "expected `:`"),
        ("nonsense", 1, "found 'n'"),
        ("{\"name\":\"x\"}", 1, "missing field `cid`"),
    ] {
        let error = import_text(&config, &[good.as_str(), bad].concat()).await.unwrap_err().to_string();
        let expected = format!("line {}: ", 3 * BATCH + at);
        assert!(error.starts_with(&expected) && error.contains(what), "{error}, not {expected}{what}");
        assert_eq!(exported(&config).await, before);
    }
    let left: Vec<_> = fs::read_dir(&config.state_folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("import")), "{left:?}");
}

#[test]
#[expect(clippy::print_stdout, reason = "a failing run must name its seed")]
fn no_input_makes_the_reader_panic() {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};
    let seed: u64 = rand::random::<u32>().into();
    println!("seed {seed}");
    let mut chance = StdRng::seed_from_u64(seed);
    let good = [line(CIDS[0], "x"), line(CIDS[1], "{\\\"}"), line(CIDS[2], "\\u00e9")].concat();
    let mut read_whole = 0;
    for _ in 0..2_000 {
        let mut bytes = good.clone().into_bytes();
        for _ in 0..chance.random_range(0..4) {
            let place = chance.random_range(0..bytes.len());
            match chance.random_range(0..3) {
                0 => bytes[place] = chance.random(),
                1 => drop(bytes.remove(place)),
                _ => bytes.insert(place, b"{}[]\",:\\"[chance.random_range(0..8)]),
            }
        }
        let mut documents = Documents::new(bytes.as_slice());
        let mut pins = 0;
        while let Ok(Some(document)) = documents.next() {
            pins += usize::from(record::read(document, &ImportOptions::default()).is_ok());
        }
        read_whole += usize::from(pins == 3);
    }
    assert!((100..2_000).contains(&read_whole), "{read_whole} of 2000 were still whole");
}

#[tokio::test]
async fn in_raft_mode_the_cluster_has_the_peers_of_the_peerstore() {
    let other = "QmaFyXjZUNaUwYF8rBtbc7foEJ46aD52AKSvkMqPnBYnnR";
    let place = TempDir::new().unwrap();
    let config = configured(&place, ConsensusName::Raft);
    let store = format!("/ip4/10.0.0.2/tcp/9096/p2p/{other}\n# not an address\n/dns4/x/tcp/9096/p2p/{other}\n");
    fs::write(&config.cluster.peerstore_file, store).unwrap();
    let imported = import_text(&config, &line(CIDS[0], "x")).await.unwrap();
    assert_eq!(imported.members.len(), 2);
    assert!(imported.members.contains(&other.parse().unwrap()));

    let crdt = configured(&TempDir::new().unwrap(), ConsensusName::Crdt);
    let own: PeerId = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA".parse().unwrap();
    fs::create_dir_all(crdt.cluster.peerstore_file.parent().unwrap()).unwrap();
    fs::write(&crdt.cluster.peerstore_file, format!("/ip4/10.0.0.2/tcp/9096/p2p/{other}\n")).unwrap();
    assert_eq!(members(&crdt, own).unwrap().into_keys().collect::<Vec<_>>(), [own]);
}
