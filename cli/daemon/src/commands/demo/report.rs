//! What the demo prints: numbered steps with what they found, a table at the end, or what went wrong.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::peers::Cluster;

/// Waiting is commented on this often.
const REMARK_EVERY: Duration = Duration::from_secs(4);
/// Lines are cut to be read on a terminal.
const WIDTH: usize = 100;

/// The story so far.
#[derive(Debug)]
pub(super) struct Report {
    peers: u16,
    steps: Vec<Step>,
    last_remark: Option<(Instant, String)>,
}

#[derive(Debug)]
struct Step {
    title: String,
    begun: Instant,
    took: Option<Duration>,
    outcome: String,
}

impl Report {
    /// Nothing has been told yet.
    pub(super) fn new(peers: u16) -> Self {
        Self { peers, steps: Vec::new(), last_remark: None }
    }

    /// Says what this is about.
    pub(super) fn opening(&self, folder: &Path) {
        println!(
            "\nIPFS names a file by its content: the name (a CID) is computed from the bytes, so whoever has the bytes\n\
             can serve them, and whoever receives them can check them. But a file stays only where somebody keeps it.\n\
             Keeping it is called pinning. A cluster is a group of peers that agree on one list of pins, share the\n\
             work, and take over from each other.\n\n\
             You will now see {} peers do that, as real processes on this machine (folder {}).",
            self.peers,
            folder.display()
        );
    }

    /// Begins a step.
    pub(super) fn step(&mut self, title: &str, explanation: &str) {
        self.last_remark = None;
        self.steps.push(Step { title: title.to_owned(), begun: Instant::now(), took: None, outcome: String::new() });
        println!("\n── {}. {title}\n", self.steps.len());
        for line in wrap(explanation, WIDTH - 3) {
            println!("   {line}");
        }
    }

    /// Says something within a step.
    pub(super) fn say(&self, text: &str) {
        for line in text.lines() {
            println!("   {line}");
        }
    }

    /// Says how far the waiting is, if that is new and the last remark is a while ago.
    pub(super) fn remark(&mut self, text: &str) {
        let now = Instant::now();
        let due = match &self.last_remark {
            None => true,
            Some((when, what)) => what != text && now.duration_since(*when) >= REMARK_EVERY,
        };
        if due {
            println!("   … {text}");
            self.last_remark = Some((now, text.to_owned()));
        }
    }

    /// Ends a step that held what it claimed.
    pub(super) fn done(&mut self, outcome: &str) {
        let Some(step) = self.steps.last_mut() else { return };
        let took = step.begun.elapsed();
        step.took = Some(took);
        step.outcome = outcome.to_owned();
        println!("   ✓ {outcome} ({:.1} s)", took.as_secs_f64());
    }

    /// All steps with their times.
    pub(super) fn summary(&self) {
        let width = self.steps.iter().map(|step| step.title.chars().count()).max().unwrap_or(0);
        println!("\n── Summary\n");
        for (number, step) in self.steps.iter().enumerate() {
            let took = step.took.unwrap_or_default().as_secs_f64();
            println!("   {:>2}. {:<width$}  {took:>7.1} s  {}", number + 1, step.title, step.outcome);
        }
        let total: Duration = self.steps.iter().filter_map(|step| step.took).sum();
        println!("       {:<width$}  {:>7.1} s  every check held", "", total.as_secs_f64());
    }

    /// How to talk to a cluster that is left up.
    pub(super) fn invitation(&self, folder: &Path, cluster: &Cluster) {
        let ctl = cluster.ctl().map_or_else(|_| "ipfs-cluster-ctl".to_owned(), |path| path.display().to_string());
        println!("\n── The cluster stays up until you press Ctrl-C\n");
        for peer in &cluster.peers {
            println!("   {}  http://{}  (log: {})", peer.name, peer.rest, peer.log.display());
        }
        let host = cluster.peers.first().map(super::peers::Peer::host).unwrap_or_default();
        println!("\n   Try, in another terminal:\n");
        for command in ["peers ls", "status", "pin ls", "add README.md"] {
            println!("     {ctl} --host {host} {command}");
        }
        if let Some(peer) = cluster.peers.first() {
            println!("     curl http://{}/state", peer.rest);
        }
        println!("\n   Everything is in {} and is removed at the end.", folder.display());
    }

    /// What went wrong, and what the peers said last.
    pub(super) fn failure(&self, error: &anyhow::Error, cluster: &Cluster) {
        let step = self.steps.last().map_or("before the first step".to_owned(), |step| {
            format!("step {}, \"{}\"", self.steps.len(), step.title)
        });
        eprintln!("\n✗ The demo failed in {step}:\n  {error:#}");
        for peer in &cluster.peers {
            eprintln!("\n── last lines of {} ({})\n{}", peer.name, peer.log.display(), peer.last_lines(12));
        }
    }
}

/// Cuts a text into lines between words.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::wrap;

    #[test]
    fn lines_are_cut_between_words() {
        assert_eq!(wrap("one two  three\nfour", 9), ["one two", "three", "four"]);
        assert_eq!(wrap("unbreakable", 3), ["unbreakable"]);
        assert!(wrap("", 3).is_empty());
    }
}
