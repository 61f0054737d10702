//! Which part of a listing a request wants, and what it searches for.

use cluster_core::cluster::{NOT_PINNED, Search, Window};
use cluster_types::Cid;

use super::parameters::MAX_LIMIT;
use crate::error::Failure;
use crate::query::Query;

/// Reads `limit` and `after`.
pub(crate) fn parse(query: &Query) -> Result<Window, Failure> {
    let after = query.value("after").map(str::parse::<Cid>).transpose();
    let after = after.map_err(|error| Failure::bad_request(format!("parameter after invalid: {error}")))?;
    let limit = match query.value("limit").map(str::parse::<u64>) {
        None => None,
        Some(Ok(limit @ 1..=MAX_LIMIT)) => usize::try_from(limit).ok(),
        Some(_) => return Err(Failure::bad_request(format!("parameter limit invalid: it must be 1 to {MAX_LIMIT}"))),
    };
    Ok(Window { after, limit })
}

/// Reads `name-prefix` and `meta-<key>`; of several texts for a key the first counts.
pub(crate) fn search(query: &Query) -> Result<Search, Failure> {
    let mut search = Search { name_prefix: query.value("name-prefix").map(str::to_owned), ..Search::default() };
    // An index has what stands before it, and that may be nothing.
    if search.name_prefix.as_ref().is_some_and(|prefix| prefix.contains('\0')) {
        return Err(Failure::bad_request("parameter name-prefix invalid: it must not hold a NUL"));
    }
    for (name, value) in query.pairs() {
        if let Some(key) = name.strip_prefix("meta-").filter(|key| !key.is_empty()) {
            search.metadata.entry(key.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    Ok(search)
}

impl super::Rest {
    /// Refuses to go on by name behind a pin that is gone: nobody knows its name any more.
    pub(super) async fn check_place(&self, search: &Search, window: Window) -> Result<(), Failure> {
        let Some(after) = window.after.filter(|_| search.is_by_name()) else { return Ok(()) };
        match self.gate.service.allocation(after).await {
            Ok(_) => Ok(()),
            Err(error) if error.message == NOT_PINNED => Err(Failure::bad_request(
                "parameter after invalid: a search by name goes on behind a pin that is there",
            )),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_text_that_indexes_have() {
        let search = |text: &str| search(&Query::parse(text).unwrap());
        assert_eq!(search("name-prefix=a").unwrap().name_prefix.as_deref(), Some("a"));
        assert_eq!(search("name-prefix=%00a").unwrap_err().status, 400);
    }

    #[test]
    fn what_is_no_number_or_cid_is_refused() {
        let parse = |text: &str| parse(&Query::parse(text).unwrap()).map_err(|failure| failure.message);
        assert_eq!(parse(""), Ok(Window::ALL));
        assert_eq!(parse("limit=100000").unwrap().limit, Some(100_000));
        for bad in ["limit=0", "limit=-1", "limit=100001", "limit=1.5", "limit=x", "limit=99999999999999999999"] {
            assert!(parse(bad).unwrap_err().starts_with("parameter limit invalid"), "{bad}");
        }
        assert!(parse("after=x").unwrap_err().starts_with("parameter after invalid"));
    }
}
