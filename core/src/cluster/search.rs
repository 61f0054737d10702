//! Searching the pinset by what stands in indexes.

use async_stream::try_stream;
use cluster_types::{ErrorClass, Pin, PinTypeFilter, WireError};
use futures::TryStreamExt;

use super::service::{Cluster, from_state, not_pinned};
use super::{Listing, Search, Window};
use crate::ports::{NamePlace, Scan};

impl Cluster {
    /// The pins that fit `search`.
    pub(super) fn found(&self, search: Search, filter: PinTypeFilter, window: Window) -> Listing<Pin> {
        let cluster = self.clone();
        window.cut(Box::pin(try_stream! {
            let mut after = None;
            if let Some(cid) = window.after.filter(|_| search.is_by_name()) {
                let pin = cluster.parts.state.pin(cid).await.map_err(|error| from_state(&error))?;
                let pin = pin.ok_or_else(not_pinned)?;
                if !search.fits(&pin.options.name, &pin.options.metadata) {
                    let message = format!("the search cannot go on behind {cid}: it was renamed, begin anew");
                    Err(WireError::new(ErrorClass::Malformed, message))?;
                }
                after = Some(NamePlace { name: pin.options.name, cid });
            }
            let mut rows = cluster.parts.state.scan(scan_for(&search, window, after));
            while let Some(row) = rows.try_next().await.map_err(|error| from_state(&error))? {
                if let Some(pin) = row.pin.filter(|pin| {
                    filter.matches(pin.kind) && search.fits(&pin.options.name, &pin.options.metadata)
                }) {
                    yield pin;
                }
            }
        }))
    }
}

/// The scan that looks at the fewest pins, as far as one can know: a text of the metadata before the name.
fn scan_for(search: &Search, window: Window, place: Option<NamePlace>) -> Scan {
    match (search.metadata.first_key_value(), &search.name_prefix) {
        (Some((key, value)), _) => Scan::ByMeta { key: key.clone(), value: value.clone(), after: window.after },
        (None, Some(prefix)) => Scan::ByName { prefix: prefix.clone(), after: place },
        (None, None) => Scan::All { after: window.after },
    }
}

#[cfg(test)]
mod tests {
    use cluster_types::{Cid, PinOptions};

    use super::*;

    #[test]
    fn a_search_uses_one_index_and_looks_at_the_rest() {
        let metadata = [("a".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())].into();
        let both = Search { name_prefix: Some("x".to_owned()), metadata };
        assert!(matches!(scan_for(&both, Window::ALL, None), Scan::ByMeta { key, .. } if key == "a"));
        let name = Search { metadata: [].into(), ..both.clone() };
        assert!(name.is_by_name() && !both.is_by_name());
        assert!(matches!(scan_for(&name, Window::ALL, None), Scan::ByName { prefix, .. } if prefix == "x"));
        let cid: Cid = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH".parse().unwrap();
        let mut pin = Pin::new(cid, PinOptions { name: "xy".to_owned(), ..PinOptions::default() });
        assert!(
            name.fits(&pin.options.name, &pin.options.metadata) && !both.fits(&pin.options.name, &pin.options.metadata)
        );
        pin.options.metadata = both.metadata.clone();
        assert!(both.fits(&pin.options.name, &pin.options.metadata));
        pin.options.metadata.insert("b".to_owned(), "3".to_owned());
        assert!(!both.fits(&pin.options.name, &pin.options.metadata));
    }
}
