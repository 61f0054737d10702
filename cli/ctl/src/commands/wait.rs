//! Waits until peers have done what a pin asks of them.

use std::time::Duration;

use cluster_client::ClientError;
use cluster_types::{Cid, GlobalPinInfo, Pin, TrackerStatus};

use super::Context;
use crate::failure::Failure;

/// Time between two questions.
const PERIOD: Duration = Duration::from_secs(1);
/// What failures say was being done.
const DOING: &str = "waiting for the status of the pin";

/// What is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Goal {
    /// The status peers must be in.
    pub(crate) status: TrackerStatus,
    /// How many peers are enough; none means all.
    pub(crate) limit: Option<u32>,
}

impl Goal {
    /// `pin` on as many peers as it needs at least.
    pub(crate) fn pinned(pin: &Pin) -> Self {
        let least = u32::try_from(pin.options.replication_factor_min).ok().filter(|least| *least > 0);
        Self { status: TrackerStatus::Pinned, limit: least }
    }

    /// The goal with the limit of `--wait-limit`: less than 0 means all, 0 what it was.
    pub(crate) fn limited(self, limit: i32) -> Self {
        match limit {
            0 => self,
            _ => Self { limit: u32::try_from(limit).ok(), ..self },
        }
    }
}

/// How far a pin is.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Reached,
    Waiting,
    /// A peer will not get there, and says why.
    Failed(String),
}

/// Decides how far a pin is.
fn judge(info: &GlobalPinInfo, goal: Goal) -> Progress {
    use TrackerStatus as S;
    for (peer, info) in &info.peer_map {
        if matches!(info.status, S::Undefined | S::ClusterError | S::PinError | S::UnpinError) {
            let peer = if info.peername.is_empty() { peer } else { &info.peername };
            return Progress::Failed(format!("{peer}: {}: {}", info.status, info.error));
        }
    }
    let (there, needed) = count(info, goal);
    // No peer at all is an answer that cannot be right yet.
    if !info.peer_map.is_empty() && there >= needed { Progress::Reached } else { Progress::Waiting }
}

/// How many peers are where they are to be, and how many have to be.
fn count(info: &GlobalPinInfo, goal: Goal) -> (usize, usize) {
    let having = |status| info.peer_map.values().filter(|info| info.status == status).count();
    let all = info.peer_map.len();
    let needed = match goal.limit {
        Some(limit) => all.min(usize::try_from(limit).unwrap_or(usize::MAX)),
        None if goal.status == TrackerStatus::Pinned => all - having(TrackerStatus::Remote),
        None => all,
    };
    (having(goal.status), needed)
}

/// Asks until the goal is reached; a `limit` of a second or less is none.
pub(crate) async fn until(context: &Context, cid: Cid, goal: Goal, limit: Duration) -> Result<GlobalPinInfo, Failure> {
    let line = cluster_terminal::Progress::of_waiting(context.output.is_text());
    line.say("waiting for peers");
    let tell = |(there, needed)| line.say(&format!("{there} of {needed} peers: {}", goal.status));
    poll(goal, limit, async || context.client.status(&cid, false).await, tell).await
}

async fn poll(
    goal: Goal,
    limit: Duration,
    ask: impl AsyncFn() -> Result<GlobalPinInfo, ClientError>,
    tell: impl Fn((usize, usize)),
) -> Result<GlobalPinInfo, Failure> {
    let asking = async {
        loop {
            tokio::time::sleep(PERIOD).await;
            let info = ask().await?;
            match judge(&info, goal) {
                Progress::Reached => return Ok(info),
                Progress::Waiting => tell(count(&info, goal)),
                Progress::Failed(text) => return Err(Failure::Local { doing: DOING, text }),
            }
        }
    };
    if limit <= PERIOD {
        return asking.await;
    }
    tokio::time::timeout(limit, asking).await.unwrap_or(Err(Failure::Deadline { doing: DOING }))
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use cluster_types::PinInfoShort;

    use super::*;

    fn info(statuses: &[TrackerStatus]) -> GlobalPinInfo {
        let json = r#"{"cid":"QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH"}"#;
        let mut info: GlobalPinInfo = serde_json::from_str(json).unwrap();
        for (number, status) in statuses.iter().enumerate() {
            let short = PinInfoShort { status: *status, error: "no".to_owned(), ..PinInfoShort::default() };
            info.peer_map.insert(format!("peer{number}"), short);
        }
        info
    }

    const fn goal(status: TrackerStatus, limit: Option<u32>) -> Goal {
        Goal { status, limit }
    }

    #[test]
    fn enough_peers_are_enough() {
        use TrackerStatus as S;
        let cases: [(&[S], Goal, Progress); 11] = [
            (&[S::Pinned, S::Pinning, S::Remote], goal(S::Pinned, Some(1)), Progress::Reached),
            (&[S::Pinned, S::Pinning, S::Remote], goal(S::Pinned, Some(2)), Progress::Waiting),
            (&[S::Pinned, S::Pinned], goal(S::Pinned, Some(5)), Progress::Reached),
            (&[S::Pinned, S::Remote], goal(S::Pinned, None), Progress::Reached),
            (&[S::Pinned, S::PinQueued], goal(S::Pinned, None), Progress::Waiting),
            (&[S::Unpinned, S::Unpinned], goal(S::Unpinned, None), Progress::Reached),
            (&[S::Unpinned, S::Unpinning], goal(S::Unpinned, None), Progress::Waiting),
            (&[S::Unpinned, S::Remote], goal(S::Unpinned, None), Progress::Waiting),
            (&[S::UnexpectedlyUnpinned], goal(S::Pinned, None), Progress::Waiting),
            (&[], goal(S::Pinned, None), Progress::Waiting),
            (&[], goal(S::Pinned, Some(1)), Progress::Waiting),
        ];
        for (statuses, goal, progress) in cases {
            assert_eq!(judge(&info(statuses), goal), progress, "{statuses:?} {goal:?}");
        }
    }

    #[test]
    fn an_error_on_any_peer_ends_the_waiting() {
        use TrackerStatus as S;
        for status in [S::Undefined, S::ClusterError, S::PinError, S::UnpinError] {
            let said = judge(&info(&[S::Pinned, status]), goal(S::Pinned, Some(1)));
            assert_eq!(said, Progress::Failed(format!("peer1: {status}: no")));
        }
    }

    #[test]
    fn a_pin_is_awaited_on_its_least_number_of_peers() {
        let mut pin = Pin::new(info(&[]).cid, cluster_types::PinOptions::default());
        for (least, limit) in [(-1, None), (0, None), (2, Some(2))] {
            pin.options.replication_factor_min = least;
            assert_eq!(Goal::pinned(&pin).limit, limit);
            let asked = |limit| Goal::pinned(&pin).limited(limit).limit;
            assert_eq!((asked(-1), asked(0), asked(3)), (None, limit, Some(3)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_asks_once_a_second_until_the_goal_is_reached() {
        let asked = Cell::new(0);
        let started = tokio::time::Instant::now();
        let told = Cell::new(Vec::new());
        let ask = async || {
            asked.set(asked.get() + 1);
            let status = if asked.get() < 3 { TrackerStatus::Pinning } else { TrackerStatus::Pinned };
            Ok(info(&[status]))
        };
        let tell = |counts| told.set([told.take(), vec![counts]].concat());
        let found = poll(goal(TrackerStatus::Pinned, None), Duration::ZERO, ask, tell);
        assert_eq!(found.await.unwrap(), info(&[TrackerStatus::Pinned]));
        assert_eq!(told.take(), [(0, 1), (0, 1)]);
        assert_eq!((asked.get(), started.elapsed().as_secs()), (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_time_has_an_exit_code_of_its_own() {
        let forever = async || Ok(info(&[TrackerStatus::Pinning]));
        let limit = Duration::from_secs(30);
        let failure = poll(goal(TrackerStatus::Pinned, None), limit, forever, |_| {}).await.unwrap_err();
        assert_eq!(failure.exit_code(), 62);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_of_a_second_is_ignored() {
        let asked = Cell::new(0);
        let ask = async || {
            asked.set(asked.get() + 1);
            let status = if asked.get() < 9 { TrackerStatus::Pinning } else { TrackerStatus::Pinned };
            Ok(info(&[status]))
        };
        assert!(poll(goal(TrackerStatus::Pinned, None), Duration::from_secs(1), ask, |_| {}).await.is_ok());
    }
}
