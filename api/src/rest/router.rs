//! Which request is which: method and path to a [`Route`], by the table of routes and nothing else.

use http::Method;

use super::table::TABLE;
use crate::credentials::Scope;

/// What is asked. Parts of the path are as the client wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Id,
    Version,
    Health,
    State,
    Events,
    Peers,
    AddPeer,
    RemovePeer { peer: &'a str },
    Add,
    Allocations,
    Allocation { cid: &'a str },
    Statuses,
    Status { cid: &'a str },
    Pin { cid: &'a str },
    Unpin { cid: &'a str },
    PinPath { path: String },
    UnpinPath { path: String },
    Recover { cid: &'a str },
    Car { cid: &'a str },
    RecoverAll,
    CollectGarbage,
    ConnectGraph,
    Bandwidth,
    Alerts,
    MetricNames,
    Metrics { name: &'a str },
    GiveToken,
    RevokeTokens,
    OpenApi,
    Docs,
}

/// What one must have to be let in where passwords are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing.
    Nothing,
    /// To be a user.
    User,
    /// To be a user who may do such things.
    Scope(Scope),
}

/// Nothing is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Miss {
    /// No route has this path.
    Path,
    /// A route has this path, but not for this method.
    Method,
}

impl Route<'_> {
    /// Whether the answer speaks of the shared state, so that it says how fresh it is and can be asked to be fresher.
    /// `/health` must answer without consensus, and a version is no state.
    pub(super) fn is_read(&self) -> bool {
        match self {
            Self::Id
            | Self::State
            | Self::Events
            | Self::Peers
            | Self::Allocations
            | Self::Allocation { .. }
            | Self::Statuses
            | Self::Status { .. }
            | Self::Car { .. }
            | Self::ConnectGraph
            | Self::Alerts
            | Self::MetricNames
            | Self::Metrics { .. } => true,
            Self::Version
            | Self::Bandwidth
            | Self::Health
            | Self::AddPeer
            | Self::RemovePeer { .. }
            | Self::Add
            | Self::Pin { .. }
            | Self::Unpin { .. }
            | Self::PinPath { .. }
            | Self::UnpinPath { .. }
            | Self::Recover { .. }
            | Self::RecoverAll
            | Self::CollectGarbage
            | Self::GiveToken
            | Self::RevokeTokens
            | Self::OpenApi
            | Self::Docs => false,
        }
    }

    /// What the caller must have.
    pub(super) fn need(&self) -> Need {
        match self {
            Self::Health => Need::Nothing,
            Self::GiveToken | Self::RevokeTokens | Self::OpenApi | Self::Docs => Need::User,
            Self::Id
            | Self::Version
            | Self::State
            | Self::Events
            | Self::Peers
            | Self::Allocations
            | Self::Allocation { .. }
            | Self::Statuses
            | Self::Status { .. }
            | Self::Car { .. }
            | Self::ConnectGraph
            | Self::Bandwidth
            | Self::Alerts
            | Self::MetricNames
            | Self::Metrics { .. } => Need::Scope(Scope::Read),
            Self::Add
            | Self::Pin { .. }
            | Self::Unpin { .. }
            | Self::PinPath { .. }
            | Self::UnpinPath { .. }
            | Self::Recover { .. }
            | Self::RecoverAll => Need::Scope(Scope::Pin),
            Self::AddPeer | Self::RemovePeer { .. } | Self::CollectGarbage => Need::Scope(Scope::Admin),
        }
    }
}

/// What a path gave to the template of a route.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Captured<'a> {
    /// The whole path.
    path: &'a str,
    /// What stands for `{…}`, or for the first part of it where it takes several.
    value: &'a str,
}

impl<'a> Captured<'a> {
    /// The part that stands in the place of the template's parameter; empty if it has none.
    pub(super) fn value(self) -> &'a str {
        self.value
    }

    /// The path below `/pins`: what is pinned by path.
    pub(super) fn content_path(self) -> String {
        self.path.strip_prefix("/pins").unwrap_or(self.path).to_owned()
    }
}

/// Finds the route of a clean path.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Result<Route<'a>, Miss> {
    let mut miss = Miss::Path;
    for entry in TABLE {
        let Some(captured) = captured(entry.path, path) else { continue };
        if entry.method.as_str() == method.as_str() {
            return Ok((entry.route)(captured));
        }
        miss = Miss::Method;
    }
    Err(miss)
}

/// The methods a path has, in the order of the table.
pub(super) fn allowed(path: &str) -> Vec<&'static str> {
    let mut methods: Vec<&str> = Vec::new();
    let fitting = TABLE.iter().filter(|entry| captured(entry.path, path).is_some());
    for method in fitting.map(|entry| entry.method.as_str()) {
        if !methods.contains(&method) {
            methods.push(method);
        }
    }
    methods
}

/// Compares part by part. `{name}` takes one part, `{name…}` at the end one or more.
fn captured<'a>(template: &str, path: &'a str) -> Option<Captured<'a>> {
    let mut parts = path.strip_prefix('/')?.split('/');
    let mut value = "";
    for wanted in template.strip_prefix('/')?.split('/') {
        let part = parts.next()?;
        if wanted.starts_with('{') {
            value = part;
        } else if wanted != part {
            return None;
        }
    }
    let takes_all = template.ends_with("…}");
    (takes_all || parts.next().is_none()).then_some(Captured { path, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_more_special_route_wins() {
        let post = |path| find(&Method::POST, path);
        assert_eq!(post("/pins/recover"), Ok(Route::RecoverAll));
        assert_eq!(post("/pins/x/recover"), Ok(Route::Recover { cid: "x" }));
        assert_eq!(post("/pins/ipfs/recover"), Ok(Route::Recover { cid: "ipfs" }));
        assert_eq!(post("/pins/ipfs/x/recover"), Ok(Route::PinPath { path: "/ipfs/x/recover".to_owned() }));
        assert_eq!(post("/pins/ipns/x.org"), Ok(Route::PinPath { path: "/ipns/x.org".to_owned() }));
        assert_eq!(post("/pins/ipfs"), Ok(Route::Pin { cid: "ipfs" }));
        assert_eq!(find(&Method::GET, "/pins/recover"), Ok(Route::Status { cid: "recover" }));
        let unpin = find(&Method::DELETE, "/pins/ipfs/recover");
        assert_eq!(unpin, Ok(Route::UnpinPath { path: "/ipfs/recover".to_owned() }));
    }

    #[test]
    fn only_who_may_write_changes_anything() {
        for path in
            ["/id", "/peers", "/add", "/allocations", "/ipfs/gc", "/pins", "/pins/x", "/pins/x/recover", "/token"]
        {
            for method in [Method::POST, Method::DELETE] {
                let Ok(route) = find(&method, path) else { continue };
                assert!(!matches!(route.need(), Need::Nothing | Need::Scope(Scope::Read)), "{method} {path}");
            }
            if let Ok(route) = find(&Method::GET, path) {
                assert_eq!(route.need(), Need::Scope(Scope::Read), "{path}");
            }
        }
        assert_eq!(find(&Method::GET, "/health").map(|route| route.need()), Ok(Need::Nothing));
    }

    #[test]
    fn a_wrong_method_is_told_from_a_wrong_path() {
        for path in [
            "/id",
            "/pins",
            "/pins/x",
            "/pins/ipfs/x",
            "/pins/x/recover",
            "/peers",
            "/peers/x",
            "/add",
            "/ipfs/gc",
            "/events",
            "/token",
        ] {
            for method in [Method::HEAD, Method::OPTIONS, Method::PATCH, Method::PUT] {
                assert_eq!(find(&method, path), Err(Miss::Method), "{method} {path}");
            }
        }
        assert_eq!(find(&Method::GET, "/pins/ipfs/x"), Err(Miss::Method));
        assert_eq!(find(&Method::GET, "/pins/x/recover"), Err(Miss::Method));
        for path in ["/", "", "*", "/nothing", "/pins/x/y", "/pins/x/y/z", "/id/x", "/peers/a/b", "/monitor", "/ipfs"] {
            assert_eq!(find(&Method::POST, path), Err(Miss::Path), "{path}");
        }
    }

    #[test]
    fn the_methods_of_a_path_are_told_once_each() {
        assert_eq!(allowed("/pins/x"), ["GET", "POST", "DELETE"]);
        assert_eq!(allowed("/peers"), ["GET", "POST"]);
        assert_eq!(allowed("/pins/recover"), ["POST", "GET", "DELETE"]);
        assert_eq!(allowed("/pins/ipfs/recover"), ["POST", "DELETE"]);
        assert_eq!(allowed("/nothing"), Vec::<&str>::new());
    }
}
