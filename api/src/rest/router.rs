//! Which request is which: method and path to a [`Route`], nothing else.

use http::Method;

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
    RecoverAll,
    CollectGarbage,
    ConnectGraph,
    Alerts,
    MetricNames,
    Metrics { name: &'a str },
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
            | Self::ConnectGraph
            | Self::Alerts
            | Self::MetricNames
            | Self::Metrics { .. } => true,
            Self::Version
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
            | Self::CollectGarbage => false,
        }
    }
}

/// Finds the route of a clean path.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> Result<Route<'a>, Miss> {
    let parts: Vec<&str> = path.strip_prefix('/').ok_or(Miss::Path)?.split('/').collect();
    let get = |route| if method == Method::GET { Ok(route) } else { Err(Miss::Method) };
    let post = |route| if method == Method::POST { Ok(route) } else { Err(Miss::Method) };
    match parts.as_slice() {
        ["id"] => get(Route::Id),
        ["version"] => get(Route::Version),
        ["health"] => get(Route::Health),
        ["health", "graph"] => get(Route::ConnectGraph),
        ["health", "alerts"] => get(Route::Alerts),
        ["state"] => get(Route::State),
        ["events"] => get(Route::Events),
        ["peers"] => get(Route::Peers).or_else(|_| post(Route::AddPeer)),
        ["peers", peer] if method == Method::DELETE => Ok(Route::RemovePeer { peer }),
        ["peers", _] => Err(Miss::Method),
        ["add"] => post(Route::Add),
        ["allocations"] => get(Route::Allocations),
        ["allocations", cid] => get(Route::Allocation { cid }),
        ["ipfs", "gc"] => post(Route::CollectGarbage),
        ["monitor", "metrics"] => get(Route::MetricNames),
        ["monitor", "metrics", name] => get(Route::Metrics { name }),
        ["pins", rest @ ..] => find_pins(method, rest),
        _ => Err(Miss::Path),
    }
}

fn find_pins<'a>(method: &Method, rest: &[&'a str]) -> Result<Route<'a>, Miss> {
    match (method, rest) {
        (&Method::GET, []) => Ok(Route::Statuses),
        (&Method::POST, ["recover"]) => Ok(Route::RecoverAll),
        (&Method::GET, [cid]) => Ok(Route::Status { cid }),
        (&Method::POST, [cid]) => Ok(Route::Pin { cid }),
        (&Method::DELETE, [cid]) => Ok(Route::Unpin { cid }),
        (&Method::POST, [cid, "recover"]) => Ok(Route::Recover { cid }),
        (&Method::POST, ["ipfs" | "ipns" | "ipld", _, ..]) => Ok(Route::PinPath { path: joined(rest) }),
        (&Method::DELETE, ["ipfs" | "ipns" | "ipld", _, ..]) => Ok(Route::UnpinPath { path: joined(rest) }),
        (_, [] | [_] | [_, "recover"] | ["ipfs" | "ipns" | "ipld", _, ..]) => Err(Miss::Method),
        _ => Err(Miss::Path),
    }
}

fn joined(parts: &[&str]) -> String {
    format!("/{}", parts.join("/"))
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
        assert_eq!(post("/pins/ipfs"), Ok(Route::Pin { cid: "ipfs" }));
        assert_eq!(find(&Method::GET, "/pins/recover"), Ok(Route::Status { cid: "recover" }));
        let unpin = find(&Method::DELETE, "/pins/ipfs/recover");
        assert_eq!(unpin, Ok(Route::UnpinPath { path: "/ipfs/recover".to_owned() }));
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
}
