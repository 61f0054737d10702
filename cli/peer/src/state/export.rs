//! The pinset of a stopped peer, pin by pin.

use std::path::Path;
use std::sync::Arc;

use cluster_core::ports::{Row, Scan, StateError, StateStore};
use cluster_store::{RocksState, Store, StoreOptions};
use cluster_types::{BoxError, Cid, Pin};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};

use super::place;

/// The state of a stopped peer, open for reading.
#[derive(Debug)]
pub struct StoppedState {
    store: Store,
}

impl StoppedState {
    /// Opens the state in `folder`; `None` when there is none: the peer was never started, or its state was removed.
    /// Finishes an import or the install of a snapshot that was cut off, as any start does.
    pub async fn open(folder: &Path) -> Result<Option<Self>, BoxError> {
        let place = folder.to_owned();
        let open = move || {
            // To look is no reason to throw an older state away.
            place::settle(&place, usize::MAX)?;
            if !Store::exists(&place) {
                return Ok(None);
            }
            Store::open(&place, StoreOptions::default()).map(Some).map_err(BoxError::from)
        };
        let store = tokio::task::spawn_blocking(open).await??;
        Ok(store.map(|store| Self { store }))
    }

    /// All pins, in constant memory; a slow reader costs nothing but its time.
    pub fn pins(&self) -> BoxStream<'static, Result<Pin, StateError>> {
        pins(self.store.state())
    }

    pub(crate) fn state(&self) -> Arc<RocksState> {
        self.store.state()
    }

    /// Closes it: the folder is free when this returns.
    pub async fn close(self) -> Result<(), BoxError> {
        Ok(self.store.close().await?)
    }
}

/// The pins of a state that nobody writes to. A scan that was ended because its reader was slow goes on where it was.
fn pins(state: Arc<RocksState>) -> BoxStream<'static, Result<Pin, StateError>> {
    let rows = state.scan(Scan::All { after: None });
    let place: Option<Cid> = None;
    let all = stream::try_unfold((state, rows, place), |(state, mut rows, mut place)| async move {
        loop {
            match rows.next().await {
                None => return Ok(None),
                Some(Err(StateError::SlowReader)) => rows = state.scan(Scan::All { after: place }),
                Some(row) => {
                    let Row { cid, pin, .. } = row?;
                    place = Some(cid);
                    return Ok(Some((pin, (state, rows, place))));
                }
            }
        }
    });
    all.try_filter_map(|pin| async move { Ok(pin) }).boxed()
}
