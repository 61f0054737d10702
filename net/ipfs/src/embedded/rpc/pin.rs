//! `pin`: what garbage collection leaves alone.

use std::collections::HashMap;

use cluster_core::ports::{IpfsNode, PinProgress, PinRequest, Root};
use cluster_core::unixfs::{identity_data, links};
use cluster_core::watch;
use cluster_types::{Cid, Codec, PinDepth};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Map, Value, json};

use super::Rpc;
use super::call::Call;
use super::reply::{self, Answer, Failure};
use crate::embedded::walk::{Step, Walk};

/// Pins read from the store at a time.
const PAGE: usize = 1024;
/// The most indirect pins that are told apart, and the most pins of an answer that is not streamed.
const MAX_LISTED: usize = 1_000_000;

/// Which pins are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    All,
    Direct,
    Indirect,
    Recursive,
}

impl Kind {
    fn of(call: &Call) -> Result<Self, Failure> {
        Ok(match call.text(&["type", "t"]).unwrap_or("all") {
            "all" => Self::All,
            "direct" => Self::Direct,
            "indirect" => Self::Indirect,
            "recursive" => Self::Recursive,
            other => {
                let wrong = format!("invalid type '{other}', must be one of {{direct, indirect, recursive, all}}");
                return Err(Failure::new(wrong));
            }
        })
    }

    fn takes(self, depth: PinDepth) -> bool {
        match self {
            Self::All => true,
            Self::Direct => depth == PinDepth::DIRECT,
            Self::Recursive => depth != PinDepth::DIRECT,
            Self::Indirect => false,
        }
    }
}

fn kind_name(depth: PinDepth) -> &'static str {
    if depth == PinDepth::DIRECT { "direct" } else { "recursive" }
}

impl Rpc {
    /// Pins a DAG with all below it.
    pub(super) async fn pin_recursively(&self, cid: Cid) -> Result<(), Failure> {
        self.pin(cid, PinDepth::RECURSIVE, watch::Sender::new(PinProgress::default())).await
    }

    async fn pin(&self, cid: Cid, depth: PinDepth, progress: watch::Sender<PinProgress>) -> Result<(), Failure> {
        let request = PinRequest { cid, depth, origins: Vec::new(), update_from: None };
        self.node.pin(request, progress).await.map_err(|error| Failure::from(error).under("pin"))
    }

    /// `pin add`.
    pub(super) async fn pin_add(&self, mut call: Call) -> Answer {
        let recursive = call.flag(&["recursive", "r"])?.unwrap_or(true);
        let depth = if recursive { PinDepth::RECURSIVE } else { PinDepth::DIRECT };
        let progress = call.flag(&["progress"])?.unwrap_or(false);
        let blocks = self.blocks(call.offline()?);
        let mut cids = Vec::new();
        for path in call.arguments("ipfs-path").await? {
            cids.push(blocks.resolve_block(&path).await?);
        }
        let names: Vec<String> = cids.iter().map(ToString::to_string).collect();
        let rpc = self.clone();
        let told = watch::Sender::new(PinProgress::default());
        let counter = told.clone();
        let pinning = async move {
            for cid in cids {
                if !recursive && rpc.node.pinned(cid).await?.is_some_and(|depth| depth != PinDepth::DIRECT) {
                    return Err(Failure::new(format!("pin: {cid} already pinned recursively")));
                }
                rpc.pin(cid, depth, counter.clone()).await?;
            }
            Ok(())
        };
        if !progress {
            pinning.await?;
            return Ok(reply::one(&json!({ "Pins": names })));
        }
        let row = async_stream::try_stream! {
            pinning.await?;
            let done = *told.borrow();
            if done.blocks > 0 {
                yield json!({ "Progress": done.blocks, "Bytes": done.bytes });
            }
            yield json!({ "Pins": names });
        };
        reply::row(call.trailers, row.boxed()).await
    }

    /// `pin rm`.
    pub(super) async fn pin_rm(&self, mut call: Call) -> Answer {
        let recursive = call.flag(&["recursive", "r"])?.unwrap_or(true);
        let blocks = self.blocks(call.offline()?);
        let mut names = Vec::new();
        for path in call.arguments("ipfs-path").await? {
            let cid = blocks.resolve_block(&path).await?;
            match self.node.pinned(cid).await? {
                None => return Err(Failure::new("not pinned or pinned indirectly")),
                Some(depth) if depth != PinDepth::DIRECT && !recursive => {
                    return Err(Failure::new(format!("{cid} is pinned recursively")));
                }
                Some(_) => self.node.unpin(cid).await?,
            }
            names.push(cid.to_string());
        }
        Ok(reply::one(&json!({ "Pins": names })))
    }

    /// `pin update`.
    pub(super) async fn pin_update(&self, mut call: Call) -> Answer {
        let unpin = call.flag(&["unpin"])?.unwrap_or(true);
        let blocks = self.blocks(call.offline()?);
        let paths = call.arguments("from-path").await?;
        let [from, to] = paths.as_slice() else { return Err(Failure::argument("argument \"to-path\" is required")) };
        let (from, to) = (blocks.resolve_block(from).await?, blocks.resolve_block(to).await?);
        let recursive = async |cid| {
            let depth = self.node.pinned(cid).await?;
            Ok::<_, Failure>(depth.is_some_and(|depth| depth != PinDepth::DIRECT))
        };
        if !recursive(from).await? {
            return Err(Failure::new("'from' cid was not recursively pinned already"));
        }
        if from != to {
            if recursive(to).await? {
                return Err(Failure::new("'to' cid was already recursively pinned"));
            }
            self.pin_recursively(to).await?;
            if unpin {
                self.node.unpin(from).await?;
            }
        }
        Ok(reply::one(&json!({ "Pins": [from.to_string(), to.to_string()] })))
    }

    /// `pin ls`.
    pub(super) async fn pin_ls(&self, mut call: Call) -> Answer {
        let kind = Kind::of(&call)?;
        let offline = call.offline()?;
        let paths = call.optional_arguments();
        let row = if !paths.is_empty() {
            let found = self.pins_of(paths, kind, offline).await?;
            futures::stream::iter(found.into_iter().map(Ok)).boxed()
        } else if call.text(&["name", "n"]).is_some() {
            // Pins of this node have no names, so none has this one.
            futures::stream::empty().boxed()
        } else {
            self.all_pins(kind)
        };
        if call.flag(&["stream", "s"])?.unwrap_or(false) {
            let row = row.map_ok(|(cid, kind)| json!({ "Cid": cid.to_string(), "Type": kind }));
            return reply::row(call.trailers, row.boxed()).await;
        }
        let mut keys = Map::new();
        let mut row = row;
        while let Some((cid, kind)) = row.try_next().await? {
            keys.insert(cid.to_string(), json!({ "Type": kind, "Name": "" }));
            if keys.len() > MAX_LISTED {
                return Err(Failure::new("there are too many pins to be collected: use stream=true"));
            }
        }
        Ok(reply::one(&if keys.is_empty() { json!({}) } else { json!({ "Keys": keys }) }))
    }

    async fn pins_of(&self, paths: Vec<String>, kind: Kind, offline: bool) -> Result<Vec<(Cid, String)>, Failure> {
        let blocks = self.blocks(offline);
        let mut cids = Vec::new();
        for path in &paths {
            cids.push(blocks.resolve_block(path).await?);
        }
        let mut found = Vec::new();
        let mut missing = Vec::new();
        for cid in &cids {
            match self.node.pinned(*cid).await? {
                Some(depth) if kind.takes(depth) => found.push((*cid, kind_name(depth).to_owned())),
                Some(_) | None => missing.push(*cid),
            }
        }
        if !missing.is_empty() && matches!(kind, Kind::All | Kind::Indirect) {
            let indirect = self.indirectly_pinned(&missing).await?;
            let through =
                |cid: &Cid| indirect.get(&cid.hash_bytes()).map(|root| (*cid, format!("indirect through {root}")));
            found.extend(missing.iter().filter_map(through));
        }
        match cids.iter().position(|cid| !found.iter().any(|(known, _)| known == cid)) {
            None => Ok(found),
            Some(place) => Err(Failure::new(format!("path '{}' is not pinned", paths[place]))),
        }
    }

    fn all_pins(&self, kind: Kind) -> BoxStream<'static, Result<(Cid, String), Failure>> {
        let rpc = self.clone();
        async_stream::try_stream! {
            if kind != Kind::Indirect {
                let mut roots = rpc.roots();
                while let Some(root) = roots.try_next().await? {
                    if kind.takes(root.depth) {
                        yield (root.cid, kind_name(root.depth).to_owned());
                    }
                }
            }
            if matches!(kind, Kind::All | Kind::Indirect) {
                let mut told = std::collections::HashSet::new();
                let mut pinned = rpc.pinned_blocks();
                while let Some((root, cid)) = pinned.try_next().await? {
                    if root.cid == cid || rpc.node.pinned(cid).await?.is_some() || !told.insert(cid) {
                        continue;
                    }
                    if told.len() > MAX_LISTED {
                        Err(Failure::new("there are too many indirect pins: use type=recursive"))?;
                    }
                    yield (cid, "indirect".to_owned());
                }
            }
        }
        .boxed()
    }

    /// How blocks are pinned, by multihash; those that are not are not in it.
    pub(super) async fn how_pinned(&self, cids: &[Cid]) -> Result<HashMap<Vec<u8>, String>, Failure> {
        let mut how = HashMap::new();
        let mut missing = Vec::new();
        for cid in cids {
            match self.node.pinned(*cid).await? {
                Some(depth) => drop(how.insert(cid.hash_bytes(), kind_name(depth).to_owned())),
                None => missing.push(*cid),
            }
        }
        if !missing.is_empty() {
            let indirect = self.indirectly_pinned(&missing).await?;
            how.extend(indirect.into_iter().map(|(multihash, root)| (multihash, format!("indirect through {root}"))));
        }
        Ok(how)
    }

    /// The roots below which blocks are, by multihash.
    async fn indirectly_pinned(&self, cids: &[Cid]) -> Result<HashMap<Vec<u8>, Cid>, Failure> {
        let wanted: std::collections::HashSet<_> = cids.iter().map(Cid::hash_bytes).collect();
        let mut found = HashMap::new();
        let mut pinned = self.pinned_blocks();
        while found.len() < wanted.len()
            && let Some((root, cid)) = pinned.try_next().await?
        {
            let multihash = cid.hash_bytes();
            if wanted.contains(&multihash) {
                found.entry(multihash).or_insert(root.cid);
            }
        }
        Ok(found)
    }

    /// Every pin.
    fn roots(&self) -> BoxStream<'static, Result<Root, Failure>> {
        let rpc = self.clone();
        async_stream::try_stream! {
            let mut after = None;
            loop {
                let page = rpc.node.kept.store().roots(after, PAGE).await?;
                let Some(last) = page.last() else { return };
                after = Some(last.cid);
                for root in page {
                    yield root;
                }
            }
        }
        .boxed()
    }

    /// The blocks of all pins that are here, each with a pin it belongs to; inner blocks once.
    fn pinned_blocks(&self) -> BoxStream<'static, Result<(Root, Cid), Failure>> {
        let rpc = self.clone();
        async_stream::try_stream! {
            let mut walk = Walk::new();
            let mut roots = rpc.roots();
            while let Some(root) = roots.try_next().await? {
                walk.begin(root.cid, root.depth);
                while let Some(step) = walk.next() {
                    match step {
                        Step::Visit(cid, below) => {
                            yield (root, cid);
                            if below > 0 && cid.codec() != Codec::RAW {
                                let found = rpc.local_links(&cid).await?.unwrap_or_default();
                                walk.expand(cid, below, found).map_err(|error| Failure::new(error.to_string()))?;
                            }
                        }
                        Step::Reload(cid) => walk.reload(rpc.local_links(&cid).await?.unwrap_or_default()),
                    }
                }
            }
        }
        .boxed()
    }

    /// The links of a block, if it is here.
    async fn local_links(&self, cid: &Cid) -> Result<Option<Vec<Cid>>, Failure> {
        let data = match identity_data(cid) {
            Some(_) => Some(bytes::Bytes::new()),
            None => self.node.kept.get(&cid.hash_bytes()).await?,
        };
        data.map(|data| links(cid, &data).map_err(|error| Failure::new(error.to_string()))).transpose()
    }

    /// `pin verify`: whether all blocks of the recursive pins are here.
    pub(super) async fn pin_verify(&self, call: Call) -> Answer {
        let (verbose, quiet) =
            (call.flag(&["verbose"])?.unwrap_or(false), call.flag(&["quiet", "q"])?.unwrap_or(false));
        if verbose && quiet {
            return Err(Failure::new("the --verbose and --quiet options can not be used at the same time"));
        }
        let rpc = self.clone();
        let row = async_stream::try_stream! {
            let mut roots = rpc.roots();
            while let Some(root) = roots.try_next().await? {
                if root.depth == PinDepth::DIRECT {
                    continue;
                }
                let bad = rpc.missing_below(root).await?;
                if bad.is_empty() && verbose {
                    yield json!({ "Cid": root.cid.to_string(), "Ok": true });
                } else if !bad.is_empty() {
                    yield json!({ "Cid": root.cid.to_string(), "PinStatus": { "BadNodes": bad }, "BadNodes": bad });
                }
            }
        };
        reply::row(call.trailers, row.boxed()).await
    }

    /// What of a pin is not here, or cannot be read; the first hundred.
    async fn missing_below(&self, root: Root) -> Result<Vec<Value>, Failure> {
        const MOST: usize = 100;
        let mut bad = Vec::new();
        let mut walk = Walk::new();
        walk.begin(root.cid, root.depth);
        while let Some(step) = walk.next() {
            let (cid, below) = match step {
                Step::Visit(cid, below) => (cid, Some(below)),
                Step::Reload(cid) => (cid, None),
            };
            let found = match self.local_links(&cid).await {
                Ok(Some(found)) => found,
                Ok(None) => {
                    bad.push(json!({ "Cid": cid.to_string(), "Err": format!("ipld: could not find {cid}") }));
                    Vec::new()
                }
                Err(failure) => {
                    bad.push(json!({ "Cid": cid.to_string(), "Err": failure.message() }));
                    Vec::new()
                }
            };
            match below {
                Some(below) => walk.expand(cid, below, found).map_err(|error| Failure::new(error.to_string()))?,
                None => walk.reload(found),
            }
            if bad.len() == MOST {
                break;
            }
        }
        Ok(bad)
    }
}
