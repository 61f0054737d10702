//! `pin/add`, `pin/rm` and `pin/update`: pins of the cluster instead of pins of the node.

use cluster_types::{Cid, PinMode, PinOptions};
use http::StatusCode;
use serde::Serialize;

use super::Proxy;
use super::command::{self, flag};
use super::kubo::{self, Answer, Refusal};
use crate::query::Query;

/// The CIDs that were pinned or unpinned.
#[derive(Serialize)]
struct Pins {
    #[serde(rename = "Pins")]
    pins: Vec<Cid>,
}

impl Proxy {
    /// `pin/add`: one pin for each path.
    pub(super) async fn pin_add(&self, paths: Vec<String>, query: &Query) -> Answer {
        let options = PinOptions {
            mode: mode(query)?,
            name: query.value("name").unwrap_or_default().to_owned(),
            ..PinOptions::default()
        };
        let pins = self.write(|service| async move {
            let mut pins = Vec::with_capacity(paths.len());
            for path in paths {
                pins.push(service.pin_path(&path, options.clone()).await?.value.cid);
            }
            Ok(pins)
        });
        kubo::json(&Pins { pins: pins.await? })
    }

    /// `pin/rm`: every path.
    pub(super) async fn pin_remove(&self, paths: Vec<String>) -> Answer {
        let pins = self.write(|service| async move {
            let mut pins = Vec::with_capacity(paths.len());
            for path in paths {
                pins.push(service.unpin_path(&path).await?.value.cid);
            }
            Ok(pins)
        });
        kubo::json(&Pins { pins: pins.await? })
    }

    /// `pin/update`.
    pub(super) async fn pin_update(&self, query: &Query) -> Answer {
        let [from, to] = {
            let mut arguments = command::arguments(None, query).into_iter();
            ["from-path", "to-path"].map(|name| (name, arguments.next()))
        };
        let present = |(name, argument): (&'static str, Option<String>)| {
            let missing = || Refusal::with(StatusCode::BAD_REQUEST, format!("argument \"{name}\" is required"));
            Ok::<_, Refusal>((name, argument.ok_or_else(missing)?))
        };
        let parsed = |(name, argument): (&'static str, String)| {
            let wrong =
                |refusal: Refusal| Refusal::new(format!("error parsing \"{name}\" argument: {}", refusal.message));
            command::path(&argument).map_err(wrong)
        };
        let (from, to) = (present(from)?, present(to)?);
        let (from, to) = (parsed(from)?, parsed(to)?);
        let unpins = query.value("unpin") != Some("false");
        let pins = self
            .write(|service| async move {
                let (from, to) = (service.resolve(&from).await?, service.resolve(&to).await?);
                if from == to {
                    // To update a pin to itself and take it away afterwards would lose it.
                    service.allocation(from).await?;
                    return Ok(vec![from, to]);
                }
                let options = PinOptions { pin_update: Some(from), ..PinOptions::default() };
                service.pin(to, options).await?;
                if unpins {
                    service.unpin(from).await?;
                }
                Ok(vec![from, to])
            })
            .await?;
        kubo::json(&Pins { pins })
    }
}

/// What is pinned: `type` of the original, `recursive` of Kubo.
fn mode(query: &Query) -> Result<PinMode, Refusal> {
    match query.value("type") {
        Some("direct") => Ok(PinMode::Direct),
        Some("recursive") => Ok(PinMode::Recursive),
        Some(other) => Err(Refusal::new(format!("invalid type '{other}', must be one of {{direct, recursive}}"))),
        None if flag(query, "recursive") == Some(false) => Ok(PinMode::Direct),
        None => Ok(PinMode::Recursive),
    }
}
