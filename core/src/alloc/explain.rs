//! The decision as a table for operators: every peer, how it stands, by what, and whether it was chosen.

use std::collections::BTreeSet;
use std::fmt;

use cluster_types::PeerId;

use super::{AllocationBasis, AllocationError, AllocationRequest, Standing, allocate, candidates};

/// Why an allocation is as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The names of the metrics, as in the rows.
    pub names: Vec<String>,
    /// One row per peer: the chosen ones in their order, then the others by peer.
    pub rows: Vec<ExplanationRow>,
    /// The decision.
    pub decision: Result<Vec<PeerId>, AllocationError>,
}

/// How one peer stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExplanationRow {
    /// The peer.
    pub peer: PeerId,
    /// On what grounds it counts or does not.
    pub standing: Standing,
    /// Value and weight of each metric; `None` where there is no usable one.
    pub metrics: Vec<Option<(String, i64)>>,
    /// Its place among the chosen, from 1.
    pub place: Option<usize>,
}

/// Decides as [`allocate`] does, and says why.
pub fn explain(request: &AllocationRequest, basis: AllocationBasis<'_>) -> Explanation {
    let decision = allocate(request, basis);
    let names = candidates::names(basis.allocate_by);
    let chosen: &[PeerId] = decision.as_deref().unwrap_or_default();
    let everyone: BTreeSet<PeerId> = basis
        .eligible
        .iter()
        .chain(&request.current)
        .chain(&request.preferred)
        .chain(&request.excluded)
        .filter(|peer| !chosen.contains(*peer))
        .copied()
        .collect();
    let row = |peer: &PeerId, place: Option<usize>| ExplanationRow {
        peer: *peer,
        standing: candidates::standing(peer, request, basis),
        metrics: names
            .iter()
            .map(|name| basis.metrics.get(name, peer).map(|metric| (metric.value.clone(), metric.weight)))
            .collect(),
        place,
    };
    let rows = chosen
        .iter()
        .enumerate()
        .map(|(place, peer)| row(peer, Some(place + 1)))
        .chain(everyone.iter().map(|peer| row(peer, None)))
        .collect();
    Explanation { names: names.into_iter().map(str::to_owned).collect(), rows, decision }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "place\tpeer\tstanding\t{}", self.names.join("\t"))?;
        for row in &self.rows {
            let place = row.place.map_or_else(|| "-".to_owned(), |place| place.to_string());
            write!(f, "{place}\t{}\t{}", row.peer, row.standing)?;
            for metric in &row.metrics {
                match metric {
                    Some((value, weight)) => write!(f, "\t{} [{weight}]", value.escape_debug())?,
                    None => f.write_str("\t-")?,
                }
            }
            writeln!(f)?;
        }
        match &self.decision {
            Ok(chosen) if chosen.is_empty() => writeln!(f, "every peer holds it"),
            Ok(chosen) => writeln!(f, "{} peers hold it", chosen.len()),
            Err(error) => writeln!(f, "{error}"),
        }
    }
}
