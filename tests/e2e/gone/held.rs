//! What a process holds: descriptors by kind, and threads.

use std::fmt;
use std::fs;
use std::time::Duration;

use cluster_tests::wait;

/// Longer than threads stay that have nothing to do.
const PATIENCE: Duration = Duration::from_secs(60);
/// So many files may come with time: a store opens one for each of its tables.
const FILES: usize = 16;
/// So many threads may come with time: a pool has as many as once had something to do at the same time.
const THREADS: usize = 16;

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    sockets: usize,
    files: usize,
    /// Descriptors of neither, such as pipes and timers.
    others: usize,
    threads: usize,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sockets, files, others, threads } = self;
        write!(f, "{sockets} sockets, {files} files, {others} others, {threads} threads")
    }
}

impl Held {
    fn now(pid: u32) -> Self {
        let mut held = Self { sockets: 0, files: 0, others: 0, threads: entries(pid, "task").count() };
        // What is closed while it is counted is not there.
        for target in entries(pid, "fd").filter_map(|entry| fs::read_link(entry.path()).ok()) {
            let target = target.to_string_lossy();
            let place = match () {
                () if target.starts_with("socket:") => &mut held.sockets,
                () if target.starts_with('/') => &mut held.files,
                () => &mut held.others,
            };
            *place += 1;
        }
        held
    }

    /// What it holds when that has not changed for a second.
    pub(crate) async fn at_rest(pid: u32) -> Self {
        let mut last = None;
        let mut since = 0;
        wait::until("the process to be at rest", PATIENCE, || {
            let now = Self::now(pid);
            since = if last == Some(now) { since + 1 } else { 0 };
            last = Some(now);
            std::future::ready(if since == 20 { Ok(now) } else { Err(now) })
        })
        .await
    }

    /// Waits until it holds no more than this again, but for what comes with time; what it holds then.
    pub(crate) async fn is_all(self, pid: u32) -> Self {
        wait::until(&format!("no more than {self}"), PATIENCE, || {
            let now = Self::now(pid);
            let is_more = now.sockets > self.sockets
                || now.files > self.files + FILES
                || now.others > self.others
                || now.threads > self.threads + THREADS;
            std::future::ready(if is_more { Err(now) } else { Ok(now) })
        })
        .await
    }
}

fn entries(pid: u32, folder: &str) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(format!("/proc/{pid}/{folder}")).unwrap().filter_map(Result::ok)
}
