//! A request: arguments, options, and what was uploaded.

use std::convert::Infallible;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use cluster_core::add::multipart::{self, Multipart, MultipartError, PartHead};
use cluster_core::task::{OnExit, TaskGroup};
use futures::StreamExt;
use futures::stream::BoxStream;
use http::header::{CONTENT_TYPE, HeaderValue, TE};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use super::reply::Failure;

/// Bytes of arguments that may come in the body (`EnableStdin` of Kubo's commands).
const MAX_BODY_ARGUMENTS: usize = 1024 * 1024;
/// The most arguments and options of a call.
const MAX_PAIRS: usize = 8 * 1024;
/// How much of an upload is read and dropped when its command has ended, and how long that may take.
const MAX_DRAINED: usize = 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// Another piece of an upload must come within this time.
const SILENCE: Duration = Duration::from_secs(120);

/// The parts of an uploaded body.
pub(super) type Parts = Multipart<BoxStream<'static, Result<Bytes, String>>>;

/// A request that was understood.
pub(super) struct Call {
    arguments: Vec<String>,
    options: Vec<(String, String)>,
    parts: Option<Parts>,
    /// Whether the client takes trailers.
    pub(super) trailers: bool,
}

impl Call {
    /// Reads the head of a request.
    pub(super) fn read(request: Request<Incoming>, tasks: &TaskGroup) -> Result<Self, Failure> {
        let (head, body) = request.into_parts();
        let (mut arguments, mut options) = (Vec::new(), Vec::new());
        for (count, pair) in head.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).enumerate()
        {
            if count == MAX_PAIRS {
                return Err(Failure::argument("too many arguments and options"));
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (key, value) = (decode(key)?, decode(value)?);
            if key == "arg" { arguments.push(value) } else { options.push((key, value)) }
        }
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let parts = multipart::boundary(content_type)
            .ok()
            .map(|boundary| Multipart::new(pieces(Upload { body: Some(body), tasks: tasks.clone() }), &boundary));
        let takes =
            |value: &HeaderValue| value.to_str().is_ok_and(|value| value.to_ascii_lowercase().contains("trailers"));
        let trailers = head.headers.get_all(TE).iter().any(takes);
        Ok(Self { arguments, options, parts, trailers })
    }

    /// The arguments, of which there is at least one.
    pub(super) async fn arguments(&mut self, name: &str) -> Result<Vec<String>, Failure> {
        // Of arguments in a pipe, `ipfs` sends the first in the query and the others in the body.
        if let Some(parts) = self.parts.as_mut() {
            self.arguments.extend(body_arguments(parts).await?);
        }
        if self.arguments.is_empty() {
            return Err(Failure::argument(format!("argument {name:?} is required")));
        }
        Ok(std::mem::take(&mut self.arguments))
    }

    /// The first argument.
    pub(super) async fn argument(&mut self, name: &str) -> Result<String, Failure> {
        self.arguments(name).await.map(|mut all| all.swap_remove(0))
    }

    /// The arguments, of which there may be none; never from the body.
    pub(super) fn optional_arguments(&mut self) -> Vec<String> {
        std::mem::take(&mut self.arguments)
    }

    /// What was uploaded.
    pub(super) fn parts(&mut self, name: &str) -> Result<Parts, Failure> {
        self.parts.take().ok_or_else(|| Failure::argument(format!("file argument '{name}' is required")))
    }

    /// An option under any of its names; empty counts as missing.
    pub(super) fn text(&self, names: &[&str]) -> Option<&str> {
        let (_, value) = self.options.iter().rev().find(|(name, _)| names.contains(&name.as_str()))?;
        (!value.is_empty()).then_some(value)
    }

    /// A yes or no.
    pub(super) fn flag(&self, names: &[&str]) -> Result<Option<bool>, Failure> {
        // Kubo takes an option without a value for a yes.
        match self.options.iter().rev().find(|(name, _)| names.contains(&name.as_str())) {
            None => Ok(None),
            Some((_, value)) => match value.as_str() {
                "" | "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Some(true)),
                "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Some(false)),
                _ => Err(not(value, "bool", names)),
            },
        }
    }

    /// A number.
    pub(super) fn number(&self, names: &[&str]) -> Result<Option<i64>, Failure> {
        self.text(names).map(|text| text.parse().map_err(|_| not(text, "int", names))).transpose()
    }

    /// Whether only what is here counts.
    pub(super) fn offline(&self) -> Result<bool, Failure> {
        Ok(self.flag(&["offline"])?.unwrap_or(false))
    }

    /// How long the command may take to begin its answer.
    pub(super) fn timeout(&self) -> Result<Option<Duration>, Failure> {
        let Some(text) = self.text(&["timeout"]) else { return Ok(None) };
        duration(text).map(Some).ok_or_else(|| Failure::argument(format!("time: invalid duration {text:?}")))
    }
}

fn not(value: &str, kind: &str, names: &[&str]) -> Failure {
    let name = names.first().copied().unwrap_or_default();
    Failure::argument(format!("could not convert value {value:?} to type {kind:?} (for option \"-{name}\")"))
}

fn decode(text: &str) -> Result<String, Failure> {
    let text = text.replace('+', " ");
    percent_decode_str(&text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| Failure::plain(StatusCode::BAD_REQUEST, "the query is not UTF-8"))
}

/// A body. What a command leaves of it is read and dropped: a client that is cut off while it sends may never see the
/// answer.
struct Upload {
    body: Option<Incoming>,
    tasks: TaskGroup,
}

impl Drop for Upload {
    fn drop(&mut self) {
        let Some(mut body) = self.body.take() else { return };
        self.tasks.spawn("ipfs rpc drain", OnExit::Continue, async move {
            let mut left = MAX_DRAINED;
            let draining = async {
                while let Some(Ok(frame)) = body.frame().await {
                    match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                        Some(rest) => left = rest,
                        None => return,
                    }
                }
            };
            let _late = tokio::time::timeout(DRAIN_TIME, draining).await;
            Ok::<(), Infallible>(())
        });
    }
}

/// The data of a body; a client that sends nothing for too long breaks off.
fn pieces(mut upload: Upload) -> BoxStream<'static, Result<Bytes, String>> {
    async_stream::stream! {
        while let Some(body) = upload.body.as_mut() {
            match tokio::time::timeout(SILENCE, body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        yield Ok(data);
                    }
                }
                Ok(Some(Err(error))) => yield Err(error.to_string()),
                Ok(None) => return,
                Err(_elapsed) => yield Err("nothing came for too long".to_owned()),
            }
        }
    }
    .boxed()
}

/// Arguments in the body: one a line.
async fn body_arguments(parts: &mut Parts) -> Result<Vec<String>, Failure> {
    if parts.next_part().await.map_err(upload_failed)?.is_none() {
        return Ok(Vec::new());
    }
    let text = part(parts, MAX_BODY_ARGUMENTS).await?.ok_or_else(|| Failure::argument("too many arguments"))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(text.lines().map(str::trim).filter(|line| !line.is_empty()).take(MAX_PAIRS).map(str::to_owned).collect())
}

/// The whole present part, unless it is longer than `most`.
pub(super) async fn part(parts: &mut Parts, most: usize) -> Result<Option<Bytes>, Failure> {
    let mut data = BytesMut::new();
    while let Some(more) = parts.next_data().await.map_err(upload_failed)? {
        if data.len() + more.len() > most {
            return Ok(None);
        }
        data.extend_from_slice(&more);
    }
    Ok(Some(data.freeze()))
}

/// The next file of an upload.
pub(super) async fn next_file(parts: &mut Parts) -> Result<Option<PartHead>, Failure> {
    parts.next_part().await.map_err(upload_failed)
}

pub(super) fn upload_failed(error: MultipartError) -> Failure {
    Failure::new(error.to_string())
}

/// A duration as Go writes it: `1h2m3.5s`, `300ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let after = &rest[end..];
        let (unit, factor) =
            [("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9), ("h", 3600.0), ("m", 60.0), ("s", 1.0)]
                .into_iter()
                .find(|(unit, _)| after.starts_with(unit))?;
        total += number * factor;
        rest = &after[unit.len()..];
    }
    Duration::try_from_secs_f64(total).ok().filter(|total| !total.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        assert_eq!(duration("1h2m3.5s"), Some(Duration::from_millis(3_723_500)));
        assert_eq!(duration("300ms"), Some(Duration::from_millis(300)));
        for bad in ["", "5", "s", "-1s", "1x", "1e400s", "0s"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }
}
