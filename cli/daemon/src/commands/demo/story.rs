//! The story, step by step. Each step says what it is about, does it, and checks it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use cluster_types::{Cid, Multiaddr, PeerId, TrackerStatus};
use tokio::process::Command;
use tokio::time::Instant;

use super::content::Tree;
use super::peers::Cluster;
use super::report::Report;
use super::{api, reading, writes};
use crate::args::DemoArguments;

/// How many pins are written while the leader dies.
const WRITES: usize = 200;
/// How often something is looked at that one waits for.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Copies of everything in the demo.
const COPIES: usize = 2;

/// What has happened so far, as the next steps need it.
struct Story<'a> {
    cluster: &'a mut Cluster,
    report: &'a mut Report,
    /// The peer that is spoken to; never the one that is killed.
    home: usize,
    /// The peer that is killed.
    leader: usize,
}

/// What a look at the cluster found.
enum Seen<T> {
    Done(T),
    NotYet(String),
}

/// Tells the whole story; an error means that something did not hold.
pub(super) async fn tell(
    demo: &DemoArguments,
    folder: &Path,
    cluster: &mut Cluster,
    report: &mut Report,
) -> anyhow::Result<()> {
    report.opening(folder);
    let mut story = Story { cluster, report, home: 0, leader: 0 };
    let tree = story.gather(demo, folder)?;
    story.start().await?;
    let (root, inside) = story.add(&tree).await?;
    story.wait_for_copies(&root).await?;
    let written = story.crash(inside).await?;
    story.nothing_is_lost(&written).await?;
    story.repair(&written, &root).await?;
    story.come_back().await?;
    story.read_back(&root, &tree).await
}

impl Story<'_> {
    fn gather(&mut self, demo: &DemoArguments, folder: &Path) -> anyhow::Result<Tree> {
        self.report.step(
            "Find something worth keeping",
            "A real folder with many files of all sizes: sources of the libraries this program is built from, \
             unless you named another one.",
        );
        let tree = match &demo.content {
            Some(content) => Tree::named(content)?,
            None => Tree::of_sources(&folder.join("content"))?,
        };
        self.report.done(&format!("{} files, {:.0} MB", tree.files.len(), megabytes(tree.bytes())));
        Ok(tree)
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        self.report.step(
            "Start the peers",
            "Each one is a process of its own, with its own folder, its own identity and an IPFS node inside. The first \
             founds the cluster, the others join it. They elect a leader, who puts all changes into one order.",
        );
        for place in 0..self.cluster.peers.len() {
            self.cluster.start(place).await?;
            let peer = &self.cluster.peers[place];
            let process = peer.process().unwrap_or_default();
            self.report.say(&format!("{}  process {process}, REST API at http://{}", peer.name, peer.rest));
        }
        let (count, rest) = (self.cluster.peers.len(), self.cluster.peers[0].rest);
        let leader = wait_until(self.report, Duration::from_secs(90), async || {
            let members = api::members(rest).await?.iter().filter(|member| member.error.is_empty()).count();
            let spaces = api::metric_count(rest, "freespace").await?;
            Ok(match api::state(rest).await?.leader {
                Some(leader) if members == count && spaces == count => Seen::Done(leader),
                leader => Seen::NotYet(format!(
                    "{members} of {count} members, {spaces} told their free space, leader: {}",
                    if leader.is_some() { "yes" } else { "not yet" }
                )),
            })
        })
        .await?;
        self.choose_roles(leader)?;
        let name = self.cluster.name_of(leader);
        self.report.done(&format!("{count} peers know each other, {name} leads"));
        Ok(())
    }

    /// The demo speaks to a peer that is not the leader, because the leader will be killed.
    fn choose_roles(&mut self, leader: PeerId) -> anyhow::Result<()> {
        self.leader = self.cluster.place_of(leader).context("the leader is a stranger")?;
        let other = (0..self.cluster.peers.len()).find(|place| *place != self.leader);
        self.home = other.context("there is no peer but the leader")?;
        Ok(())
    }

    async fn add(&mut self, tree: &Tree) -> anyhow::Result<(Cid, Vec<Cid>)> {
        let (name, host) = (self.cluster.peers[self.home].name.clone(), self.cluster.peers[self.home].host());
        self.report.step(
            "Add the folder, two copies",
            &format!(
                "The files are cut into blocks, each named by its content. {name} gets them and hands them to the two \
                 peers that have the most room."
            ),
        );
        let mut command = Command::new(self.cluster.ctl()?);
        command.args(["--host", &host, "add", "-r", "-q", "--name", "demo", "--replication-min", "2"]);
        command.args(["--replication-max", "2"]).arg(&tree.root);
        self.report
            .say(&format!("$ ipfs-cluster-ctl --host {host} add -r -q --replication-min 2 … {}", tree.root.display()));
        command.env_remove("CLUSTER_CREDENTIALS").stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
        let begun = Instant::now();
        let output = command.output().await.context("running ipfs-cluster-ctl")?;
        let took = begun.elapsed().as_secs_f64();
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "ipfs-cluster-ctl add ended with {}: {}", output.status, text.trim());
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let added: Vec<Cid> = lines.map(str::parse).collect::<Result<_, _>>().context("the tool printed no CID")?;
        let root = *added.last().context("the tool printed nothing")?;
        let mut known = BTreeSet::from([root.to_string()]);
        let inside = added.into_iter().filter(|cid| known.insert(cid.to_string())).collect();
        let speed = megabytes(tree.bytes()) / took.max(0.001);
        self.report.done(&format!("the folder is {root}, added with {speed:.0} MB/s"));
        Ok((root, inside))
    }

    async fn wait_for_copies(&mut self, root: &Cid) -> anyhow::Result<()> {
        self.report.step(
            "Wait until two peers keep it",
            "A pin in the list is a promise. Each peer that was chosen makes it true: its IPFS node fetches every block \
             it lacks, checks it, and marks the folder as kept.",
        );
        let rest = self.cluster.peers[self.home].rest;
        let holders = wait_until(self.report, Duration::from_secs(300), async || {
            let status = api::status(rest, root).await?;
            let pinned = status.peer_map.values().filter(|peer| peer.status == TrackerStatus::Pinned).count();
            Ok(if pinned >= COPIES {
                Seen::Done(pinned)
            } else {
                Seen::NotYet(format!("kept by {pinned} of {COPIES} peers"))
            })
        })
        .await?;
        self.show_status(root).await?;
        self.report.done(&format!("{holders} peers keep all of it"));
        Ok(())
    }

    async fn show_status(&self, cid: &Cid) -> anyhow::Result<()> {
        let host = self.cluster.peers[self.home].host();
        let mut command = Command::new(self.cluster.ctl()?);
        command.args(["--host", &host, "status", &cid.to_string()]).env_remove("CLUSTER_CREDENTIALS");
        let output =
            command.stdin(Stdio::null()).kill_on_drop(true).output().await.context("running ipfs-cluster-ctl")?;
        self.report.say(&format!("$ ipfs-cluster-ctl --host {host} status {cid}"));
        self.report.say(&String::from_utf8_lossy(&output.stdout));
        ensure!(output.status.success(), "ipfs-cluster-ctl status ended with {}", output.status);
        Ok(())
    }

    async fn crash(&mut self, mut inside: Vec<Cid>) -> anyhow::Result<Vec<Cid>> {
        inside.truncate(WRITES);
        let leader = api::state(self.cluster.peers[self.home].rest).await?.leader.context("there is no leader")?;
        // Leadership may have moved since the start; what matters is to kill whoever leads now.
        self.choose_roles(leader)?;
        let name = self.cluster.name_of(leader);
        self.report.step(
            "Kill the leader while pins are being written",
            &format!(
                "{} of the files inside are now pinned one by one. In the middle {name}, the leader, is killed with \
                 SIGKILL: no goodbye, as in a power cut. The others elect a new leader and go on.",
                inside.len()
            ),
        );
        let (count, to) = (inside.len(), self.cluster.peers[self.home].rest);
        let victim = &mut self.cluster.peers[self.leader];
        let outcome = writes::pin_while_killing(inside, to, victim, count.div_ceil(3)).await?;
        ensure!(outcome.acknowledged.len() == count, "{} of {count} writes came through", outcome.acknowledged.len());
        self.report.say(&format!("{name} was killed after {} answers", outcome.before_the_kill));
        self.report.done(&format!("{count} writes acknowledged, {} attempts repeated", outcome.repeated));
        Ok(outcome.acknowledged)
    }

    async fn nothing_is_lost(&mut self, written: &[Cid]) -> anyhow::Result<()> {
        self.report.step(
            "Nothing that was acknowledged is lost",
            "An answer \"OK\" means: it is on the disks of most peers. So every single one must be in the list of the \
             survivors.",
        );
        for place in self.survivors() {
            let (name, rest) = (self.cluster.peers[place].name.clone(), self.cluster.peers[place].rest);
            wait_until(self.report, Duration::from_secs(60), async || {
                let known: BTreeSet<String> = api::allocations(rest).await?.iter().map(|p| p.cid.to_string()).collect();
                let missing = written.iter().filter(|cid| !known.contains(&cid.to_string())).count();
                Ok(if missing == 0 { Seen::Done(()) } else { Seen::NotYet(format!("{name} lacks {missing} of them")) })
            })
            .await?;
        }
        self.report.done(&format!("all {} are there, on every survivor", written.len()));
        Ok(())
    }

    async fn repair(&mut self, written: &[Cid], root: &Cid) -> anyhow::Result<()> {
        let (dead, rest) = (self.cluster.peers[self.leader].id, self.cluster.peers[self.home].rest);
        let name = self.cluster.name_of(dead);
        self.report.step(
            "The survivors take over",
            &format!(
                "{name} stays silent, so its share has one copy too few. The new leader gives that share to the others, \
                 and they fetch it from whoever still has it."
            ),
        );
        let pins: BTreeSet<String> = written.iter().chain([root]).map(ToString::to_string).collect();
        let begun = Instant::now();
        wait_until(self.report, Duration::from_secs(180), async || {
            let all = api::allocations(rest).await?;
            let left = all.iter().filter(|pin| pin.allocations.contains(&dead)).count();
            Ok(if left == 0 { Seen::Done(()) } else { Seen::NotYet(format!("{left} pins still belong to {name}")) })
        })
        .await?;
        self.report.say(&format!("nothing belongs to {name} any more ({:.1} s)", begun.elapsed().as_secs_f64()));
        wait_until(self.report, Duration::from_secs(300), async || {
            let all = api::statuses(rest).await?;
            let whole = all.iter().filter(|pin| pins.contains(&pin.cid.to_string())).filter(|pin| {
                let kept = |peer: &PeerId| pin.peer_map.get(&peer.to_string()).map(|info| info.status);
                pin.allocations.len() == COPIES
                    && pin.allocations.iter().all(|peer| kept(peer) == Some(TrackerStatus::Pinned))
            });
            let whole = whole.count();
            Ok(if whole == pins.len() {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{whole} of {} pins have two copies again", pins.len()))
            })
        })
        .await?;
        self.report.done(&format!("all {} pins have two living copies again", pins.len()));
        Ok(())
    }

    async fn come_back(&mut self) -> anyhow::Result<()> {
        let name = self.cluster.peers[self.leader].name.clone();
        self.report.step(
            "The lost peer returns",
            &format!(
                "{name} starts again with what was on its disk, learns what it missed, and must end with exactly the \
                 same list as the others. Each peer computes a digest over its whole list: equal digests, equal lists."
            ),
        );
        self.cluster.start_again(self.leader).await?;
        let cluster = &*self.cluster;
        let digest = wait_until(self.report, Duration::from_secs(120), async || {
            let mut states = Vec::new();
            for peer in &cluster.peers {
                states.push(api::state(peer.rest).await.with_context(|| peer.name.clone())?);
            }
            let same = states
                .windows(2)
                .all(|two| two[0].applied_index == two[1].applied_index && two[0].digest == two[1].digest);
            Ok(if same {
                Seen::Done(states.swap_remove(0))
            } else {
                let indexes: Vec<String> = states.iter().map(|state| state.applied_index.to_string()).collect();
                Seen::NotYet(format!("the peers are at {}", indexes.join(", ")))
            })
        })
        .await?;
        for peer in &self.cluster.peers {
            self.report.say(&format!("{}  index {}  digest {}", peer.name, digest.applied_index, digest.digest));
        }
        self.report.done(&format!("{} pins, the same on all peers", digest.pins));
        Ok(())
    }

    async fn read_back(&mut self, root: &Cid, tree: &Tree) -> anyhow::Result<()> {
        let (home, home_id) = (self.cluster.peers[self.home].rest, self.cluster.peers[self.home].id);
        let status = api::status(home, root).await?;
        let keeps = |peer: &PeerId| {
            status.peer_map.get(&peer.to_string()).is_some_and(|info| info.status == TrackerStatus::Pinned)
        };
        let other = status.allocations.iter().find(|peer| **peer != home_id && keeps(peer));
        let other = *other.context("nobody else keeps the folder")?;
        let place = self.cluster.place_of(other).context("the folder is kept by a stranger")?;
        let (name, home_name) = (self.cluster.name_of(other), self.cluster.name_of(home_id));
        self.report.step(
            "Read it back elsewhere",
            &format!(
                "The folder was added on {home_name}. A fresh IPFS node that knows nothing but {name} now asks for files \
                 in it, and every byte is compared with the original."
            ),
        );
        let node: Vec<Multiaddr> = api::id(self.cluster.peers[place].rest).await?.ipfs.addresses;
        if node.is_empty() {
            bail!("{name} does not say where its IPFS node is");
        }
        let samples = tree.samples();
        for file in &samples {
            reading::compare(self.cluster.executable(), &node, root, tree, file).await?;
            self.report.say(&format!("{} ({} bytes): equal", file.path.display(), file.bytes));
        }
        self.report.done(&format!("{} files from {name}, byte for byte the same", samples.len()));
        Ok(())
    }

    fn survivors(&self) -> Vec<usize> {
        (0..self.cluster.peers.len()).filter(|place| *place != self.leader).collect()
    }
}

/// Looks again and again until it is done. Failed looks count as "not yet": a peer may be busy or in an election.
async fn wait_until<T>(
    report: &mut Report,
    limit: Duration,
    mut look: impl AsyncFnMut() -> anyhow::Result<Seen<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let seen = match look().await {
            Ok(Seen::Done(found)) => return Ok(found),
            Ok(Seen::NotYet(text)) => text,
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > deadline {
            bail!("not reached within {limit:?}; at last: {seen}");
        }
        report.remark(&seen);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
