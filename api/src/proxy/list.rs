//! `pin/ls`: the shared pinset in the shapes of Kubo's list.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use cluster_core::cluster::{Listing, NOT_PINNED, ServiceResult, Window};
use cluster_types::{Cid, ErrorClass, Pin, PinMode, PinTypeFilter, WireError};
use futures::StreamExt;
use http::Response;
use serde::Serialize;

use super::Proxy;
use super::command::{self, flag};
use super::kubo::{self, Answer, Refusal};
use crate::query::Query;
use crate::reply::Body;

/// A pin in a list that is whole.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

/// A pin in a stream.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Streamed {
    cid: Cid,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    r#type: &'static str,
}

/// The pins of the arguments.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Keys {
    keys: BTreeMap<String, Kept>,
}

/// What is listed, and how.
#[derive(Clone, Debug)]
struct Wish {
    /// Only pins of this mode; nothing: of both.
    mode: Option<PinMode>,
    /// Whether anything can be listed at all: a cluster has no indirect pins.
    is_indirect: bool,
    /// Only pins whose name holds this.
    name: Option<String>,
    shows_names: bool,
    streams: bool,
}

impl Wish {
    fn parse(query: &Query) -> Result<Self, Refusal> {
        let (mode, is_indirect) = match query.value("type") {
            None | Some("all") => (None, false),
            Some("recursive") => (Some(PinMode::Recursive), false),
            Some("direct") => (Some(PinMode::Direct), false),
            Some("indirect") => (None, true),
            Some(other) => {
                let kinds = "must be one of {direct, indirect, recursive, all}";
                return Err(Refusal::new(format!("invalid type '{other}', {kinds}")));
            }
        };
        let name = query.value("name").map(str::to_owned);
        let shows_names = name.is_some() || flag(query, "names") == Some(true);
        let streams = [flag(query, "stream"), flag(query, "s")].contains(&Some(true));
        Ok(Self { mode, is_indirect, name, shows_names, streams })
    }

    fn fits(&self, pin: &Pin) -> bool {
        let named = self.name.as_ref().is_none_or(|part| pin.options.name.contains(part));
        !self.is_indirect && named && self.mode.is_none_or(|mode| mode == pin.options.mode)
    }

    fn name_of(&self, pin: &Pin) -> Option<String> {
        self.shows_names.then(|| pin.options.name.clone())
    }

    fn kept(&self, pin: &Pin) -> Kept {
        Kept { r#type: pin.options.mode.as_str(), name: self.name_of(pin) }
    }

    fn streamed(&self, pin: &Pin) -> Streamed {
        // As in Kubo, a name that is empty is left out here.
        let name = self.name_of(pin).filter(|name| !name.is_empty());
        Streamed { cid: pin.cid, name, r#type: pin.options.mode.as_str() }
    }
}

impl Proxy {
    /// `pin/ls`.
    pub(super) async fn pin_list(&self, argument: Option<&str>, query: &Query) -> Answer {
        let wish = Wish::parse(query)?;
        let arguments = command::arguments(argument, query);
        if arguments.is_empty() {
            let mut pins = self.service.allocations(PinTypeFilter::ALL, Window::ALL).peekable();
            // Before anything is sent, an error is an ordinary one.
            if let Some(Err(error)) = std::pin::Pin::new(&mut pins).next_if(Result::is_err).await {
                return Err(error.into());
            }
            return Ok(if wish.streams { as_stream(pins.boxed(), wish) } else { as_object(pins.boxed(), wish) });
        }
        let mut pins = Vec::with_capacity(arguments.len());
        for argument in &arguments {
            pins.push(self.pin_of(argument, &wish).await?);
        }
        if !wish.streams {
            let keys = pins.iter().map(|pin| (pin.cid.to_string(), wish.kept(pin))).collect();
            return kubo::json(&Keys { keys });
        }
        let documents: Vec<Vec<u8>> = pins
            .iter()
            .map(|pin| kubo::document(&wish.streamed(pin)))
            .collect::<Result<_, _>>()
            .map_err(|error| Refusal::new(error.to_string()))?;
        Ok(kubo::stream(futures::stream::iter([Ok(Bytes::from(documents.join(&b'\n')))])))
    }

    /// The pin that an argument names: a CID, or `/ipfs/` and a CID.
    async fn pin_of(&self, argument: &str, wish: &Wish) -> Result<Pin, Refusal> {
        let cid: Cid = argument
            .strip_prefix("/ipfs/")
            .unwrap_or(argument)
            .parse()
            .map_err(|error| Refusal::new(format!("error decoding Cid: {error}")))?;
        let not_pinned = || Refusal::new(format!("Error: path '{argument}' is not pinned"));
        match Arc::clone(&self.service).allocation(cid).await {
            Ok(pin) if wish.fits(&pin) => Ok(pin),
            Ok(_) => Err(not_pinned()),
            Err(error) if error.class == ErrorClass::NotFound || error.message == NOT_PINNED => Err(not_pinned()),
            Err(error) => Err(error.into()),
        }
    }
}

/// One pin a line.
fn as_stream(pins: Listing<Pin>, wish: Wish) -> Response<Body> {
    kubo::stream(pins.filter_map(move |pin| {
        let line = match pin {
            Ok(pin) => wish.fits(&pin).then(|| kubo::line(&wish.streamed(&pin))),
            Err(error) => Some(Err(error)),
        };
        std::future::ready(line)
    }))
}

/// All pins in one object, written as they come. An error ends it before its last brace, so that nobody takes it for whole.
fn as_object(mut pins: Listing<Pin>, wish: Wish) -> Response<Body> {
    kubo::stream(async_stream::stream! {
        let mut before = "{\"Keys\":{";
        while let Some(pin) = pins.next().await {
            match entry(pin, &wish) {
                Ok(Some(entry)) => {
                    yield Ok([before.as_bytes(), &entry].concat().into());
                    before = ",";
                }
                Ok(None) => {}
                Err(error) => {
                    yield Err(error);
                    return;
                }
            }
        }
        let start = if before == "," { "" } else { before };
        yield Ok(format!("{start}}}}}").into());
    })
}

/// A pin as it stands in an object.
fn entry(pin: ServiceResult<Pin>, wish: &Wish) -> ServiceResult<Option<Vec<u8>>> {
    let pin = pin?;
    if !wish.fits(&pin) {
        return Ok(None);
    }
    let written =
        kubo::document(&wish.kept(&pin)).map_err(|error| WireError::new(ErrorClass::Fatal, error.to_string()))?;
    Ok(Some([format!("\"{}\":", pin.cid).as_bytes(), &written].concat()))
}
