//! The access log: a line in the Apache common log format for every request, when its answer has ended.
//!
//! **Invariant:** no header of a request is written, so no password and no token; and nothing from outside can begin a
//! line of its own.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cluster_core::task::{OnExit, TaskGroup};
use cluster_types::Timestamp;
use http::request::Parts;
use http::{StatusCode, Version};
use tokio::sync::mpsc;

use crate::error::ApiError;
use crate::listener::Arrival;

/// Where requests are logged: a log target of its own.
pub const ACCESS_LOG: &str = "cluster_api::access";
/// Where those of the IPFS proxy are logged.
pub const PROXY_ACCESS_LOG: &str = "cluster_api::proxy::access";
/// Where those of the pinning service are logged.
pub const PINNING_ACCESS_LOG: &str = "cluster_api::pinsvc::access";
/// How many lines may wait for the disk; those beyond are counted instead.
const QUEUE: usize = 4096;
/// How many lines are written at once.
const BATCH: usize = 256;
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Where the lines go.
#[derive(Debug)]
pub(crate) enum AccessLog {
    /// Nowhere.
    None,
    /// To the log of the program.
    Program,
    /// There too, as those of the IPFS proxy.
    ProgramOfProxy,
    /// There too, as those of the pinning service.
    ProgramOfPinning,
    /// To a file of their own.
    File {
        /// Those that wait for the disk.
        lines: mpsc::Sender<String>,
        /// How many did not fit since the last that did.
        lost: AtomicU64,
    },
}

impl AccessLog {
    /// `otherwise`, or `file`, to which a task of `tasks` appends. It is opened anew for every few lines: who
    /// moves it away finds the later ones in a new one.
    pub(crate) fn new(file: Option<PathBuf>, otherwise: Self, tasks: &TaskGroup) -> Self {
        let Some(path) = file else { return otherwise };
        let (lines, received) = mpsc::channel(QUEUE);
        tasks.spawn("access log", OnExit::Continue, write_lines(path, received));
        Self::File { lines, lost: AtomicU64::new(0) }
    }

    /// Logs an answer that has ended.
    pub(crate) fn log(&self, line: String) {
        match self {
            Self::None => {}
            Self::Program => tracing::info!(target: ACCESS_LOG, "{line}"),
            Self::ProgramOfProxy => tracing::info!(target: PROXY_ACCESS_LOG, "{line}"),
            Self::ProgramOfPinning => tracing::info!(target: PINNING_ACCESS_LOG, "{line}"),
            Self::File { lines, lost } => {
                if lines.try_send(line).is_err() {
                    lost.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                let lost = lost.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    tracing::warn!(lost, "the disk is too slow for the access log: lines are missing");
                }
            }
        }
    }
}

/// Opens the file of an access log for appending.
pub(crate) fn open(path: &Path) -> Result<File, ApiError> {
    let opened = OpenOptions::new().append(true).create(true).open(path);
    opened.map_err(|cause| ApiError::AccessLog { path: path.to_owned(), cause })
}

/// Appends what comes until nobody sends any more.
async fn write_lines(path: PathBuf, mut received: mpsc::Receiver<String>) -> Result<(), Infallible> {
    let mut batch = Vec::with_capacity(BATCH);
    while received.recv_many(&mut batch, BATCH).await > 0 {
        let mut text = batch.join("\n");
        text.push('\n');
        batch.clear();
        let path = path.clone();
        let written = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            let mut file = OpenOptions::new().append(true).create(true).open(path)?;
            file.write_all(text.as_bytes())
        });
        if let Ok(Err(error)) = written.await {
            tracing::warn!(%error, "the access log cannot be written");
        }
    }
    Ok(())
}

/// What is known of a request before its answer.
#[derive(Debug)]
pub(crate) struct Entry {
    start: String,
    version: Version,
}

impl Entry {
    /// A request with this head, which came `from` there at `now`; `user` is who has shown to be one.
    pub(crate) fn new(head: &Parts, from: Arrival, user: Option<&str>, now: Timestamp) -> Self {
        let mut start = match (from.peer, from.address) {
            (Some(peer), _) => peer.to_string(),
            (None, Some(address)) => address.to_string(),
            (None, None) => "-".to_owned(),
        };
        start.push_str(" - ");
        // A blank would begin the next field.
        escape(&mut start, &user.unwrap_or("-").replace(' ', "_"));
        start.push_str(" [");
        start.push_str(&clock_time(&now.to_string()));
        start.push_str("] \"");
        escape(&mut start, head.method.as_str());
        start.push(' ');
        let target = head.uri.path_and_query().map_or_else(|| head.uri.to_string(), ToString::to_string);
        escape(&mut start, &target);
        start.push_str(if head.version == Version::HTTP_10 { " HTTP/1.0\"" } else { " HTTP/1.1\"" });
        Self { start, version: head.version }
    }

    /// Whether the client speaks a version without trailers.
    pub(crate) fn has_no_trailers(&self) -> bool {
        self.version == Version::HTTP_10
    }

    /// The line of an answer with this status and so many bytes of body.
    pub(crate) fn line(&self, status: StatusCode, bytes: u64) -> String {
        format!("{} {} {bytes}", self.start, status.as_u16())
    }
}

/// A time of RFC 3339 in UTC as this format has it: `10/Oct/2000:13:55:36 +0000`.
fn clock_time(text: &str) -> String {
    let part = |from, to| text.get(from..to).unwrap_or("?");
    let month = part(5, 7).parse::<usize>().ok().and_then(|month| MONTHS.get(month.checked_sub(1)?)).unwrap_or(&"?");
    format!("{}/{month}/{}:{} +0000", part(8, 10), part(0, 4), part(11, 19))
}

/// Adds `text` so that it stays within its quotes and its line.
fn escape(line: &mut String, text: &str) {
    for letter in text.chars() {
        match letter {
            '"' | '\\' => line.extend(['\\', letter]),
            ' '..='~' => line.push(letter),
            _ => {
                let mut bytes = [0; 4];
                for byte in letter.encode_utf8(&mut bytes).bytes() {
                    // Writing to a text does not fail.
                    let _ = write!(line, "\\x{byte:02x}");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn a_line_is_that_of_the_common_log_format() {
        let request = Request::builder().method("POST").uri("/pins/x?name=a%20b").version(Version::HTTP_11);
        let (head, ()) = request.header("authorization", "Basic c2VjcmV0").body(()).unwrap().into_parts();
        let time = Timestamp::from_unix_seconds(971_211_336);
        let entry = Entry::new(
            &head,
            Arrival { address: Some([192, 0, 2, 7].into()), ..Arrival::default() },
            Some("a b"),
            time,
        );
        let expected = "192.0.2.7 - a_b [10/Oct/2000:20:55:36 +0000] \"POST /pins/x?name=a%20b HTTP/1.1\" 200 2326";
        assert_eq!(entry.line(StatusCode::OK, 2326), expected);
        let nobody = Entry::new(&head, Arrival::default(), None, time).line(StatusCode::NOT_FOUND, 0);
        assert!(nobody.starts_with("- - - [") && nobody.ends_with("\" 404 0"), "{nobody}");
    }

    #[test]
    fn nothing_leaves_its_line() {
        let mut line = String::new();
        escape(&mut line, "a\"b\\c\r\nd\u{e9}\u{7f}");
        assert_eq!(line, "a\\\"b\\\\c\\x0d\\x0ad\\xc3\\xa9\\x7f");
    }
}
