//! What it takes to add content through the cluster, beside what `ipfs add` takes for the same on the same machine, and how
//! much memory an add with three copies takes.

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cluster_tests::kubo::KuboDaemon;
use cluster_tests::process::{NodeKind, ProcessCluster, binary};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::multipart::{Form, Part};
use tokio::time::Instant;

use crate::memory::Memory;
use crate::report::{self, Goal};
use crate::{PEERS, setting};

/// Bytes of a small file.
const SMALL: usize = 1024;
/// Small files of one folder.
const PER_FOLDER: u64 = 1000;
/// Bytes that are made at a time.
const PIECE: usize = 1024 * 1024;
/// The most that a process may take.
const MEMORY_MIB: f64 = 192.0;
/// Longer than an add of a test machine's disk takes.
const UPLOAD_LIMIT: Duration = Duration::from_secs(3600);

/// Measures and prints.
pub(crate) async fn measure() -> Result<()> {
    let bytes = setting("CLUSTER_BENCH_ADD_BYTES", 1 << 30)?;
    let files = setting("CLUSTER_BENCH_ADD_FILES", 50_000)?;
    let folder = tempfile::tempdir()?;
    let (large, many) = (folder.path().join("large"), folder.path().join("many"));
    write_large(&large, bytes)?;
    write_many(&many, files)?;
    println!("add: one peer; {bytes} bytes in one file, and {files} files of {SMALL} bytes, by the command lines");
    if let Some(kubo) = KuboDaemon::start().await {
        let first = run(kubo.command().args(["add", "-Q", "-r"]).arg(&large))?;
        let first_many = run(kubo.command().args(["add", "-Q", "-r"]).arg(&many))?;
        report::line("ipfs add, one file", &first.pace(bytes, "B"));
        report::line("ipfs add, many files", &first_many.pace(files, "files"));
        drop(kubo);
        let kubo = KuboDaemon::start().await.context("there was a Kubo")?;
        let with_kubo = NodeKind::Kubo(kubo.rpc().to_owned());
        for (name, node) in [("with Kubo", with_kubo), ("with the embedded node", NodeKind::Embedded)] {
            let cluster = ProcessCluster::start(&[node]).await?;
            for (what, path, count, unit, theirs, goal) in [
                ("one file", &large, bytes, "B", &first, 0.95),
                ("many files", &many, files, "files", &first_many, 1.5),
            ] {
                let ours = run(ctl(&cluster)?.args(["add", "-Q", "-r"]).arg(path))?;
                ensure!(ours.root == theirs.root, "{what}: {} and not {}", ours.root, theirs.root);
                let ratio = theirs.time.as_secs_f64() / ours.time.as_secs_f64();
                let (what, pace) = (format!("{name}, {what}"), ours.pace(count, unit));
                report::judged(&what, &pace, ratio, "times ipfs add", Goal::AtLeast(goal));
            }
            let peak = Memory::peak(&cluster, 0)? as f64 / MIB;
            report::judged(&format!("{name}, peak of the peer"), "", peak, "MiB", Goal::AtMost(MEMORY_MIB));
        }
    }
    Ok(())
}

const MIB: f64 = 1024.0 * 1024.0;

/// Measures an add with a copy on each of three peers.
pub(crate) async fn measure_copies() -> Result<()> {
    let bytes = setting("CLUSTER_BENCH_ADD_COPIED_BYTES", 4 << 30)?;
    println!("add: {bytes} bytes with {PEERS} copies, at one of {PEERS} peers with embedded nodes");
    let cluster = ProcessCluster::start(&vec![NodeKind::Embedded; PEERS]).await?;
    let mut chance = StdRng::seed_from_u64(1);
    let pieces = (0..bytes.div_ceil(PIECE as u64)).map(move |_| {
        let mut piece = vec![0; PIECE];
        chance.fill_bytes(&mut piece);
        Ok::<_, Infallible>(Bytes::from(piece))
    });
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    let form = Form::new().part("file", Part::stream(body).file_name("file"));
    let url = cluster.url(0, &format!("/add?replication-min={PEERS}&replication-max={PEERS}"));
    let began = Instant::now();
    let answer = cluster.http(0).post(url).timeout(UPLOAD_LIMIT).multipart(form).send().await?;
    let (status, body) = (answer.status(), answer.text().await?);
    ensure!(status.is_success(), "{status}: {body}");
    let added = Added { root: String::new(), time: began.elapsed() };
    report::line("all copies", &added.pace(bytes, "B"));
    for peer in 0..PEERS {
        let peak = Memory::peak(&cluster, peer)? as f64 / MIB;
        let role = if peer == 0 { ", which was asked" } else { "" };
        report::judged(&format!("peak of peer {peer}{role}"), "", peak, "MiB", Goal::AtMost(MEMORY_MIB));
    }
    Ok(())
}

/// What an add came to.
struct Added {
    root: String,
    time: Duration,
}

impl Added {
    fn pace(&self, count: u64, unit: &str) -> String {
        let seconds = self.time.as_secs_f64();
        let rate = count as f64 / seconds;
        if unit == "B" {
            format!("{:.1} MB/s in {seconds:.1} s", rate / 1e6)
        } else {
            format!("{rate:.0} {unit}/s in {seconds:.1} s")
        }
    }
}

fn ctl(cluster: &ProcessCluster) -> Result<Command> {
    let mut command = Command::new(binary("ipfs-cluster-ctl")?);
    command.args(["--host", &cluster.api_address(0)]);
    Ok(command)
}

/// Runs a command that says the root in its last word.
fn run(command: &mut Command) -> Result<Added> {
    let began = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let time = began.elapsed();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    let root = said.split_whitespace().last().context("it named no root")?.to_owned();
    Ok(Added { root, time })
}

/// A file of so many random bytes, the same ones every time.
pub(crate) fn write_large(path: &Path, bytes: u64) -> Result<()> {
    use std::io::Write;
    let mut file = std::io::BufWriter::new(fs::File::create(path)?);
    let mut chance = StdRng::seed_from_u64(2);
    let mut piece = vec![0; PIECE];
    let mut left = bytes;
    while left > 0 {
        chance.fill_bytes(&mut piece);
        let some = usize::try_from(left.min(PIECE as u64))?;
        file.write_all(&piece[..some])?;
        left -= some as u64;
    }
    Ok(file.flush()?)
}

fn write_many(path: &Path, files: u64) -> Result<()> {
    let mut chance = StdRng::seed_from_u64(3);
    let mut data = [0; SMALL];
    for number in 0..files {
        let folder = path.join((number / PER_FOLDER).to_string());
        if number % PER_FOLDER == 0 {
            fs::create_dir_all(&folder)?;
        }
        chance.fill_bytes(&mut data);
        fs::write(folder.join((number % PER_FOLDER).to_string()), data)?;
    }
    Ok(())
}
