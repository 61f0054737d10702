//! The table of routes: router, `Allow`, the OpenAPI document and its page follow from it.

use super::parameters::{
    ADD, CID, CIDS, CONSISTENCY, CONTENT_PATH, EVENTS, LOCAL, METRIC, PEER, PIN_FILTER, PIN_OPTIONS, Parameter, SEARCH,
    STATUS_FILTER, TOKEN, WINDOW,
};
use super::router::{Captured, Route};

/// The methods that routes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Get,
    Post,
    Delete,
}

impl Verb {
    /// As it stands in a request.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }
}

/// What a request carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carries {
    Nothing,
    /// A JSON object of this schema.
    Object(&'static str),
    /// Files as `multipart/form-data` or `multipart/mixed`.
    Files,
}

/// What an answer to a good request holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// 204.
    Nothing,
    /// 204, with the header that says whether a quorum is there.
    Alive,
    /// One document of this schema.
    Object(&'static str),
    /// The same, with the header that says how the write was accepted.
    Written(&'static str),
    /// One document: an array of this schema.
    Array(&'static str),
    /// One document after the other, or 204 if there is none.
    Lines(&'static str),
    /// One document after the other, or an array.
    Added(&'static str),
    /// A CAR archive.
    Car,
    /// A page.
    Html,
}

/// One route.
pub(super) struct Entry {
    pub(super) method: Verb,
    /// `{name}` stands for one part, `{name…}` for the rest.
    pub(super) path: &'static str,
    pub(super) route: for<'a> fn(Captured<'a>) -> Route<'a>,
    /// Its name for programs.
    pub(super) id: &'static str,
    pub(super) about: &'static str,
    pub(super) parameters: &'static [&'static [Parameter]],
    pub(super) carries: Carries,
    pub(super) answer: Answer,
}

impl Entry {
    /// Its parameters one by one.
    pub(super) fn all_parameters(&self) -> impl Iterator<Item = &'static Parameter> {
        self.parameters.iter().copied().flatten()
    }

    const fn get(path: &'static str, route: for<'a> fn(Captured<'a>) -> Route<'a>, answer: Answer) -> Self {
        Self { method: Verb::Get, path, route, id: "", about: "", parameters: &[], carries: Carries::Nothing, answer }
    }
}

/// All routes; of two that fit a path, the first counts.
pub(super) static TABLE: &[Entry] = &[
    Entry {
        id: "id",
        about: "Who the asked peer is.",
        parameters: &[CONSISTENCY],
        ..Entry::get("/id", |_| Route::Id, Answer::Object("Id"))
    },
    Entry {
        id: "version",
        about: "The version of the asked peer.",
        ..Entry::get("/version", |_| Route::Version, Answer::Object("Version"))
    },
    Entry {
        id: "peers",
        about: "The members; one that does not answer comes last, with an error.",
        parameters: &[CONSISTENCY],
        ..Entry::get("/peers", |_| Route::Peers, Answer::Lines("Id"))
    },
    Entry {
        method: Verb::Post,
        id: "addPeer",
        about: "Makes a connected peer a member.",
        carries: Carries::Object("AddPeer"),
        ..Entry::get("/peers", |_| Route::AddPeer, Answer::Object("Id"))
    },
    Entry {
        method: Verb::Delete,
        id: "removePeer",
        about: "Moves a member's pins away and removes it.",
        parameters: &[PEER],
        ..Entry::get("/peers/{peer}", |part| Route::RemovePeer { peer: part.value() }, Answer::Nothing)
    },
    Entry {
        method: Verb::Post,
        id: "add",
        about: "Imports content and pins it.",
        parameters: &[ADD, PIN_OPTIONS],
        carries: Carries::Files,
        ..Entry::get("/add", |_| Route::Add, Answer::Added("AddedOutput"))
    },
    Entry {
        id: "allocations",
        about: "The pinset.",
        parameters: &[PIN_FILTER, SEARCH, WINDOW, CONSISTENCY],
        ..Entry::get("/allocations", |_| Route::Allocations, Answer::Lines("Pin"))
    },
    Entry {
        id: "allocation",
        about: "One pin.",
        parameters: &[CID, CONSISTENCY],
        ..Entry::get("/allocations/{cid}", |part| Route::Allocation { cid: part.value() }, Answer::Object("Pin"))
    },
    Entry {
        id: "statuses",
        about: "How pins are doing, on every peer that holds them.",
        parameters: &[STATUS_FILTER, LOCAL, CIDS, SEARCH, WINDOW, CONSISTENCY],
        ..Entry::get("/pins", |_| Route::Statuses, Answer::Lines("GlobalPinInfo"))
    },
    Entry {
        method: Verb::Post,
        id: "recoverAll",
        about: "Tries again at once what failed; lists what is tried.",
        parameters: &[LOCAL],
        ..Entry::get("/pins/recover", |_| Route::RecoverAll, Answer::Lines("GlobalPinInfo"))
    },
    Entry {
        id: "status",
        about: "How one pin is doing; `unpinned` everywhere when it is not in the pinset.",
        parameters: &[CID, LOCAL, CONSISTENCY],
        ..Entry::get("/pins/{cid}", |part| Route::Status { cid: part.value() }, Answer::Object("GlobalPinInfo"))
    },
    Entry {
        method: Verb::Post,
        id: "pin",
        about: "Pins.",
        parameters: &[CID, PIN_OPTIONS],
        ..Entry::get("/pins/{cid}", |part| Route::Pin { cid: part.value() }, Answer::Written("Pin"))
    },
    Entry {
        method: Verb::Delete,
        id: "unpin",
        about: "Unpins; answers with the pin as it was.",
        parameters: &[CID],
        ..Entry::get("/pins/{cid}", |part| Route::Unpin { cid: part.value() }, Answer::Written("Pin"))
    },
    Entry {
        id: "car",
        about: "The content of a pin as a CAR archive, each block before those it links to. A broken archive ends early.",
        parameters: &[CID, CONSISTENCY],
        ..Entry::get("/pins/{cid}/car", |part| Route::Car { cid: part.value() }, Answer::Car)
    },
    Entry {
        method: Verb::Post,
        id: "recover",
        about: "Tries one pin again at once.",
        parameters: &[CID, LOCAL],
        ..Entry::get(
            "/pins/{cid}/recover",
            |part| Route::Recover { cid: part.value() },
            Answer::Object("GlobalPinInfo"),
        )
    },
    Entry {
        method: Verb::Post,
        id: "pinIpfs",
        about: "Pins what a path leads to.",
        parameters: &[CONTENT_PATH, PIN_OPTIONS],
        ..Entry::get("/pins/ipfs/{path…}", |part| Route::PinPath { path: part.content_path() }, Answer::Written("Pin"))
    },
    Entry {
        method: Verb::Delete,
        id: "unpinIpfs",
        about: "Unpins what a path leads to.",
        parameters: &[CONTENT_PATH],
        ..Entry::get(
            "/pins/ipfs/{path…}",
            |part| Route::UnpinPath { path: part.content_path() },
            Answer::Written("Pin"),
        )
    },
    Entry {
        method: Verb::Post,
        id: "pinIpns",
        about: "Pins what a path leads to.",
        parameters: &[CONTENT_PATH, PIN_OPTIONS],
        ..Entry::get("/pins/ipns/{path…}", |part| Route::PinPath { path: part.content_path() }, Answer::Written("Pin"))
    },
    Entry {
        method: Verb::Delete,
        id: "unpinIpns",
        about: "Unpins what a path leads to.",
        parameters: &[CONTENT_PATH],
        ..Entry::get(
            "/pins/ipns/{path…}",
            |part| Route::UnpinPath { path: part.content_path() },
            Answer::Written("Pin"),
        )
    },
    Entry {
        method: Verb::Post,
        id: "pinIpld",
        about: "Pins what a path leads to.",
        parameters: &[CONTENT_PATH, PIN_OPTIONS],
        ..Entry::get("/pins/ipld/{path…}", |part| Route::PinPath { path: part.content_path() }, Answer::Written("Pin"))
    },
    Entry {
        method: Verb::Delete,
        id: "unpinIpld",
        about: "Unpins what a path leads to.",
        parameters: &[CONTENT_PATH],
        ..Entry::get(
            "/pins/ipld/{path…}",
            |part| Route::UnpinPath { path: part.content_path() },
            Answer::Written("Pin"),
        )
    },
    Entry {
        method: Verb::Post,
        id: "collectGarbage",
        about: "Collects garbage, one peer after the other.",
        parameters: &[LOCAL],
        ..Entry::get("/ipfs/gc", |_| Route::CollectGarbage, Answer::Object("GlobalRepoGc"))
    },
    Entry {
        id: "health",
        about: "Whether the process answers; nobody is waited for. Needs no password.",
        ..Entry::get("/health", |_| Route::Health, Answer::Alive)
    },
    Entry {
        id: "connectGraph",
        about: "Who is connected to whom.",
        parameters: &[CONSISTENCY],
        ..Entry::get("/health/graph", |_| Route::ConnectGraph, Answer::Object("ConnectGraph"))
    },
    Entry {
        id: "alerts",
        about: "Metrics that were not renewed, and what is wrong here; newest first.",
        parameters: &[CONSISTENCY],
        ..Entry::get("/health/alerts", |_| Route::Alerts, Answer::Array("Alert"))
    },
    Entry {
        id: "bandwidth",
        about: "What went between this peer and others, by protocol; `null` if nobody counts.",
        ..Entry::get("/health/bandwidth", |_| Route::Bandwidth, Answer::Object("Bandwidths"))
    },
    Entry {
        id: "metricNames",
        about: "Names of the metrics known here.",
        parameters: &[CONSISTENCY],
        ..Entry::get("/monitor/metrics", |_| Route::MetricNames, Answer::Array("MetricName"))
    },
    Entry {
        id: "metrics",
        about: "The newest valid metric of each peer, sorted by peer.",
        parameters: &[METRIC, CONSISTENCY],
        ..Entry::get("/monitor/metrics/{name}", |part| Route::Metrics { name: part.value() }, Answer::Array("Metric"))
    },
    Entry {
        id: "state",
        about: "Where the asked peer is in the shared log, and a digest of its pinset.",
        parameters: &[CONSISTENCY],
        ..Entry::get("/state", |_| Route::State, Answer::Object("StateReport"))
    },
    Entry {
        id: "events",
        about: "What lost when writes made apart were merged, newest first.",
        parameters: &[EVENTS, CONSISTENCY],
        ..Entry::get("/events", |_| Route::Events, Answer::Lines("Event"))
    },
    Entry {
        method: Verb::Post,
        id: "giveToken",
        about: "A token that stands for the password of the user who asks.",
        parameters: &[TOKEN],
        ..Entry::get("/token", |_| Route::GiveToken, Answer::Object("Token"))
    },
    Entry {
        method: Verb::Delete,
        id: "revokeTokens",
        about: "Takes back all tokens of the user who asks.",
        ..Entry::get("/token", |_| Route::RevokeTokens, Answer::Nothing)
    },
    Entry {
        id: "openapi",
        about: "This description.",
        ..Entry::get("/openapi.json", |_| Route::OpenApi, Answer::Object("Description"))
    },
    Entry { id: "docs", about: "This description as a page.", ..Entry::get("/docs", |_| Route::Docs, Answer::Html) },
];
