//! Arguments that come in the body, one a line, as `ipfs pin add` sends those that are piped into it.

use http::header::{CONTENT_TYPE, HeaderMap};

use super::Proxy;
use super::kubo::Refusal;
use crate::upload::{self, Unread};
use cluster_core::add::multipart::{Multipart, MultipartError};

/// The most bytes of arguments: more than a thousand CIDs.
const MOST: usize = 128 * 1024;

impl Proxy {
    /// The arguments in the body; none if it is no upload.
    pub(super) async fn piped(&self, headers: &HeaderMap, body: &mut Unread) -> Result<Vec<String>, Refusal> {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let Ok(boundary) = upload::boundary(content_type) else { return Ok(Vec::new()) };
        let due = body.due();
        let data = upload::patient(body.take(), self.patience.idle, due);
        let mut parts = Multipart::new(Box::pin(data), &boundary);
        let wrong = |error: MultipartError| Refusal::new(format!("error reading request: {error}"));
        let mut text = Vec::new();
        while parts.next_part().await.map_err(wrong)?.is_some() {
            while let Some(more) = parts.next_data().await.map_err(wrong)? {
                text.extend_from_slice(&more);
                if text.len() > MOST {
                    return Err(Refusal::new(format!("error reading request: more than {MOST} bytes of arguments")));
                }
            }
            text.push(b'\n');
        }
        let lines = String::from_utf8_lossy(&text);
        Ok(lines.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }
}
