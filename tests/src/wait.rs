//! Waits for a condition, and says what was seen last when it does not come.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Looks again and again until `look` gives `Ok`; panics with its last `Err` after `limit`.
pub async fn until<T, E, F, L>(what: &str, limit: Duration, mut look: L) -> T
where
    E: Debug,
    F: Future<Output = Result<T, E>>,
    L: FnMut() -> F,
{
    let started = tokio::time::Instant::now();
    loop {
        match look().await {
            Ok(value) => return value,
            Err(seen) if started.elapsed() > limit => panic!("{what}: not within {limit:?}; seen last: {seen:?}"),
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
