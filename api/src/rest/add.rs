//! Adding content: the answer in the shapes of this API. The upload itself is read in [`upload`].

use http::header::{CONTENT_TYPE, HeaderMap};

use super::Rest;
use crate::options;
use crate::query::Query;
use crate::reply::Reply;
use crate::upload::{self, Unread};

impl Rest {
    /// `POST /add`.
    pub(super) async fn add(&self, query: &Query, headers: &HeaderMap, body: &mut Unread) -> Reply {
        let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let params = options::add_params(query, self.gate.clock.now())?;
        upload::check(&params)?;
        let boundary = upload::boundary(content_type)?;
        let most = self.max_upload_bytes.unwrap_or(u64::MAX);
        let limits = upload::Limits { idle: self.gate.patience.idle, most };
        let uploading = upload::start(&self.gate.writes, &self.gate.service, limits, params, &boundary, body)?;
        uploading.answer(|output| output).await
    }
}
