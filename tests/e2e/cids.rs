//! What is added through a peer has the CID that `ipfs add` of a real Kubo gives it with the same choices.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use cluster_client::{AddRequest, Client, ClientConfig, Source};
use cluster_tests::kubo::KuboRepository;
use cluster_tests::process::{NodeKind, ProcessCluster};
use cluster_types::{AddLayout, AddParams, UnixFsProfile};
use futures::TryStreamExt;

/// Bytes of a chunk, unless something else is chosen.
const CHUNK: usize = 262_144;
/// A file of 200 MB.
const LARGE: usize = 200_000_000;
/// Version of CIDs, and whether leaves are raw.
const VARIANTS: [(u32, bool); 4] = [(0, false), (0, true), (1, false), (1, true)];
/// A CID that nobody pins.
const UNPINNED: &str = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";
const HASHES: [&str; 14] = [
    "sha1",
    "sha2-512",
    "sha3-224",
    "sha3-256",
    "sha3-384",
    "sha3-512",
    "keccak-256",
    "keccak-512",
    "blake2b-160",
    "blake2b-256",
    "blake2b-512",
    "blake2s-256",
    "blake3",
    "dbl-sha2-256",
];

/// Something to add, and how.
struct Case {
    path: PathBuf,
    params: AddParams,
    /// `None`: the choices are flags; else those of the repository's profile.
    profile: Option<UnixFsProfile>,
    hidden: bool,
}

impl Case {
    fn new(path: &Path, params: AddParams) -> Self {
        Self { path: path.to_owned(), params, profile: None, hidden: false }
    }

    fn by_profile(path: &Path, profile: UnixFsProfile) -> Self {
        Self { profile: Some(profile), ..Self::new(path, profile.params()) }
    }

    /// The flags of `ipfs add`.
    fn flags(&self) -> Vec<String> {
        let params = &self.params;
        let mut flags: Vec<String> = ["add", "--quieter", "--recursive"].map(str::to_owned).into();
        let mut flag = |name: &str, value: &dyn Display| flags.push(format!("--{name}={value}"));
        // Kubo 0.42 does not heed limits of directories when it only hashes.
        flag("only-hash", &(params.max_directory_links == 0));
        flag("hidden", &self.hidden);
        flag("wrap-with-directory", &params.wrap_with_directory);
        if self.profile.is_none() {
            flag("cid-version", &params.cid_version);
            flag("raw-leaves", &params.raw_leaves);
            flag("chunker", &params.chunker);
            flag("hash", &params.hash);
            flag("trickle", &(params.layout == AddLayout::Trickle));
            flag("max-file-links", &params.max_file_links);
            flag("max-directory-links", &params.max_directory_links);
            flag("max-hamt-fanout", &params.max_hamt_fanout);
        }
        flags
    }

    fn request(&self) -> AddRequest {
        let name = self.path.file_name().unwrap().to_str().unwrap().to_owned();
        AddRequest {
            params: AddParams { no_pin: true, local: true, ..self.params.clone() },
            sources: vec![Source::Path { path: self.path.clone(), name }],
            recursive: true,
            hidden: self.hidden,
            nocopy: false,
        }
    }
}

fn variant((cid_version, raw_leaves): (u32, bool)) -> AddParams {
    AddParams { cid_version, raw_leaves, ..AddParams::default() }
}

/// Content that nothing repeats in (splitmix64).
fn generated(length: usize) -> Vec<u8> {
    let mut state = length as u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn file(folder: &Path, length: usize) -> PathBuf {
    let path = folder.join(format!("file of {length}"));
    if !path.exists() {
        fs::write(&path, generated(length)).unwrap();
    }
    path
}

fn many(folder: &Path, count: usize, width: usize) -> PathBuf {
    let path = folder.join(format!("many-{count}-{width}"));
    fs::create_dir(&path).unwrap();
    for number in 0..count {
        fs::write(path.join(format!("{number:0width$}")), number.to_string()).unwrap();
    }
    path
}

/// Folders of all sorts.
fn trees(folder: &Path) -> Vec<PathBuf> {
    let tree = |name: &str| {
        let path = folder.join(name);
        fs::create_dir(&path).unwrap();
        path
    };
    let empty = tree("empty");

    let flat = tree("flat");
    for (name, length) in [("a", 3), ("b", CHUNK), ("c", CHUNK + 1), ("a.b", 0), ("Z", 1)] {
        fs::write(flat.join(name), generated(length)).unwrap();
    }

    let deep = tree("deep");
    let mut below = deep.clone();
    for level in 0..100 {
        below = below.join(format!("level {level}"));
        fs::create_dir(&below).unwrap();
        fs::write(below.join("here"), level.to_string()).unwrap();
    }
    fs::create_dir_all(deep.join("void/void")).unwrap();

    let odd = tree("odd ñame 🦀");
    let long = "l".repeat(255);
    for name in [
        " ",
        "-n",
        "%41",
        "a%",
        "+",
        "&=?#",
        "\"",
        "'",
        "\\",
        "new\nline",
        "tab\t",
        "é",
        "e\u{301}",
        "日本語",
        "🦀🦀",
        "\u{202e}rtl",
        "*",
        "~",
        "...",
        "a;b",
        "<x>",
        &long,
    ] {
        fs::write(odd.join(name), name).unwrap();
    }

    let linked = tree("linked");
    fs::write(linked.join("target"), "target").unwrap();
    for (name, target) in [("here", "target"), ("nowhere", "/does/not/exist"), ("up", "../.."), ("ünï", "tärget 🦀")]
    {
        symlink(target, linked.join(name)).unwrap();
    }

    let dotted = tree("dotted");
    fs::create_dir(dotted.join(".folder")).unwrap();
    for name in ["seen", ".hidden", ".folder/inside", "..two"] {
        fs::write(dotted.join(name), name).unwrap();
    }
    vec![empty, flat, deep, odd, linked, dotted]
}

fn cases(folder: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    // Layouts, leaves and versions, around the ends of chunks and nodes.
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 174 * CHUNK, 174 * CHUNK + 1] {
        for choice in VARIANTS {
            for layout in [AddLayout::Balanced, AddLayout::Trickle] {
                cases.push(Case::new(&file(folder, length), AddParams { layout, ..variant(choice) }));
            }
        }
    }
    // Chunkers.
    for chunker in ["size-1000", "size-1048576", "rabin", "rabin-1000-5000-10000", "rabin-100000", "buzhash"] {
        for length in [1_000_000, 3_000_001] {
            for choice in VARIANTS {
                let params = AddParams { chunker: chunker.to_owned(), ..variant(choice) };
                cases.push(Case::new(&file(folder, length), params));
            }
            let params = AddParams { chunker: chunker.to_owned(), layout: AddLayout::Trickle, ..variant((1, true)) };
            cases.push(Case::new(&file(folder, length), params));
        }
    }
    // Hash functions.
    for hash in HASHES {
        for raw in [false, true] {
            let params = AddParams { hash: hash.to_owned(), ..variant((1, raw)) };
            cases.push(Case::new(&file(folder, 1_000_000), params));
        }
    }
    // The width of nodes.
    for max_file_links in [2, 3, 100, 1024] {
        for layout in [AddLayout::Balanced, AddLayout::Trickle] {
            let params = AddParams { max_file_links, layout, chunker: "size-100".to_owned(), ..variant((1, true)) };
            cases.push(Case::new(&file(folder, 150_001), params));
        }
    }
    // Directories.
    let trees = trees(folder);
    for tree in &trees {
        for choice in VARIANTS {
            for wrap_with_directory in [false, true] {
                let hidden = wrap_with_directory;
                let params = AddParams { wrap_with_directory, ..variant(choice) };
                cases.push(Case { hidden, ..Case::new(tree, params) });
            }
        }
    }
    for choice in VARIANTS {
        let wrapped = AddParams { wrap_with_directory: true, ..variant(choice) };
        cases.push(Case::new(&file(folder, 1), wrapped));
    }
    // Large ones.
    let largest = many(folder, 20_000, 20);
    for choice in VARIANTS {
        cases.push(Case::new(&largest, variant(choice)));
    }
    let sharded = many(folder, 3_000, 4);
    for max_hamt_fanout in [8, 16, 32, 64, 128, 256, 512, 1024] {
        let params = AddParams { max_hamt_fanout, max_directory_links: 2_999, ..variant((1, true)) };
        cases.push(Case::new(&sharded, params));
    }
    cases.push(Case::new(&sharded, AddParams { max_directory_links: 3_000, ..variant((1, true)) }));
    // Profiles: at the ends of their chunks and nodes, and of directories that one block holds.
    let at_limit: Vec<_> = [3_640, 3_641, 4_096, 4_097].into_iter().map(|count| many(folder, count, 30)).collect();
    for profile in UnixFsProfile::ALL {
        let files = [0, 1, 1 << 20, (1 << 20) + 1, LARGE].map(|length| file(folder, length));
        let all = files.iter().chain(&trees).chain(&at_limit).chain([&largest]);
        cases.extend(all.map(|path| Case::by_profile(path, profile)));
    }
    for choice in [(0, true), (1, true)] {
        cases.push(Case::new(&file(folder, LARGE), variant(choice)));
    }
    cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_choice_gives_the_cids_of_kubo() {
    let Some(repositories) =
        UnixFsProfile::ALL.into_iter().map(|profile| KuboRepository::new(profile.name())).collect::<Option<Vec<_>>>()
    else {
        return;
    };
    let cluster = ProcessCluster::start(&[NodeKind::Embedded]).await.unwrap();
    let client = Client::new(ClientConfig::new(cluster.api_address(0).parse().unwrap())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cases = cases(folder.path());
    let mut differences = Vec::new();
    for case in &cases {
        let repository = &repositories[case.profile.unwrap_or_default() as usize];
        let path = case.path.to_str().unwrap();
        let flags = case.flags();
        let words: Vec<&str> = flags.iter().map(String::as_str).chain([path]).collect();
        let wanted = repository.run(&words);
        let added: Vec<_> = client.add(case.request()).await.unwrap().try_collect().await.unwrap();
        let got = added.last().unwrap().cid.unwrap().to_string();
        if got != wanted.trim() {
            differences.push(format!("{:?} {words:?}: {got}, Kubo says {wanted}", case.profile));
        }
    }
    println!("{} combinations compared with Kubo", cases.len());
    assert!(differences.is_empty(), "{} of {}:\n{}", differences.len(), cases.len(), differences.join("\n"));
    assert!(cases.len() >= 200, "only {} combinations", cases.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_archive_of_a_pin_is_the_one_that_kubo_exports() {
    let Some(repository) = KuboRepository::new("unixfs-v0-2015") else { return };
    let cluster = ProcessCluster::start(&[NodeKind::Embedded]).await.unwrap();
    let client = Client::new(ClientConfig::new(cluster.api_address(0).parse().unwrap())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut paths = trees(folder.path());
    paths.extend([many(folder.path(), 6_000, 30), file(folder.path(), 0), file(folder.path(), 200 * CHUNK)]);
    // The same bytes over and over: a block that is linked often is in the archive once.
    let zeros = folder.path().join("zeros");
    fs::write(&zeros, vec![0; 10 * CHUNK]).unwrap();
    paths.push(zeros);
    for path in &paths {
        let mut case = Case::new(path, variant((1, true)));
        case.hidden = true;
        let request = case.request();
        let request = AddRequest { params: AddParams { no_pin: false, ..request.params }, ..request };
        let added: Vec<_> = client.add(request).await.unwrap().try_collect().await.unwrap();
        let cid = added.last().unwrap().cid.unwrap().to_string();
        let flags =
            ["add", "--quieter", "--recursive", "--hidden", "--cid-version=1", "--raw-leaves", path.to_str().unwrap()];
        assert_eq!(repository.run(&flags).trim(), cid, "{path:?}");
        let wanted = repository.run_for_bytes(&["dag", "export", "--progress=false", &cid]);
        let archive = cluster.http(0).get(cluster.url(0, &format!("/pins/{cid}/car"))).send().await.unwrap();
        assert_eq!(archive.headers()["content-type"], "application/vnd.ipld.car; version=1; order=dfs; dups=n");
        let archive = archive.bytes().await.unwrap();
        assert!(archive == wanted, "{path:?}: {} bytes, and Kubo's are {}", archive.len(), wanted.len());
    }
    let absent = cluster.http(0).get(cluster.url(0, &format!("/pins/{UNPINNED}/car"))).send().await.unwrap();
    assert_eq!(absent.status(), 404);
}
