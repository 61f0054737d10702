//! Who is connected to whom, in the language of Graphviz.
//!
//! **Invariant:** names and ids come from other machines; they cannot break out of their labels.

use std::collections::{BTreeMap, BTreeSet};

use cluster_types::ConnectGraph;

/// How a node looks.
struct Look {
    colour: &'static str,
    shape: &'static str,
    is_asked: bool,
}

impl Look {
    const ASKED: Self = Self { colour: "orange", shape: "box3d", is_asked: true };
    const TRUSTED: Self = Self { colour: "orange", shape: "box3d", is_asked: false };
    const OTHER: Self = Self { colour: "darkorange3", shape: "box3d", is_asked: false };
    const IPFS: Self = Self { colour: "turquoise3", shape: "cylinder", is_asked: false };
    const MISSING: Self = Self { colour: "firebrick1", shape: "cylinder", is_asked: false };
}

/// Names in the drawing, by peer id.
type Names<'a> = BTreeMap<&'a str, String>;

/// Draws `graph`; IPFS nodes outside of the cluster only if asked for.
pub(crate) fn draw(graph: &ConnectGraph, all_ipfs_peers: bool) -> String {
    let mut lines = vec![
        "digraph cluster {".to_owned(),
        comment("The nodes of the connectivity graph"),
        comment("The cluster-service peers"),
    ];
    let peers = members(graph);
    let peer_names = draw_peers(graph, &peers, &mut lines);
    lines.push(String::new());
    lines.push(comment("The ipfs peers"));
    let nodes = ipfs_nodes(graph, all_ipfs_peers);
    let (node_names, missing) = draw_nodes(graph, &peers, &nodes, &mut lines);

    lines.push(comment("Edges representing active connections in the cluster"));
    lines.push(comment("The connections among cluster-service peers"));
    lines.extend(edges(&graph.cluster_links, &peer_names));
    lines.push(comment("The connections between cluster peers and their ipfs daemons"));
    for peer in &peers {
        let from = &peer_names[peer];
        match graph.cluster_to_ipfs.get(*peer).and_then(|node| node_names.get(node.as_str())) {
            Some(node) => lines.push(format!("{from} -> {node}")),
            None => lines.extend(missing.get(peer).map(|node| format!("{from} -> {node} [ style=\"dotted\" ]"))),
        }
    }
    lines.push(comment("The swarm peer connections among ipfs daemons in the cluster"));
    lines.extend(edges(&graph.ipfs_links, &node_names));
    lines.push("}".to_owned());
    lines.join("\n")
}

fn members(graph: &ConnectGraph) -> BTreeSet<&str> {
    let linked = graph.cluster_links.values().flatten();
    graph.cluster_links.keys().chain(linked).map(String::as_str).collect()
}

fn ipfs_nodes(graph: &ConnectGraph, all: bool) -> BTreeSet<&str> {
    let own = graph.cluster_to_ipfs.values();
    let others = graph.ipfs_links.keys().chain(graph.ipfs_links.values().flatten()).filter(|_| all);
    own.chain(others).map(String::as_str).collect()
}

fn draw_peers<'a>(graph: &ConnectGraph, peers: &BTreeSet<&'a str>, lines: &mut Vec<String>) -> Names<'a> {
    let asked = graph.cluster_id.to_base58();
    let mut names = Names::new();
    lines.extend(["subgraph  {".to_owned(), "rank=\"min\"".to_owned()]);
    for (number, peer) in peers.iter().copied().enumerate() {
        let is_trusted = graph.cluster_trust_links.get(peer).copied().unwrap_or(false);
        let (letter, look) = match (peer == asked, is_trusted) {
            (true, _) => ('C', Look::ASKED),
            (false, true) => ('T', Look::TRUSTED),
            (false, false) => ('C', Look::OTHER),
        };
        let name = format!("{letter}{number}");
        let label = graph.id_to_peername.get(peer).map_or("", String::as_str);
        lines.push(node(&name, label, peer, &look));
        names.insert(peer, name);
    }
    lines.push("}".to_owned());
    names
}

/// The IPFS nodes, then one in the place of each that is not known; both by the id that asked for them.
fn draw_nodes<'a>(
    graph: &ConnectGraph,
    peers: &BTreeSet<&'a str>,
    nodes: &BTreeSet<&'a str>,
    lines: &mut Vec<String>,
) -> (Names<'a>, Names<'a>) {
    let (mut names, mut missing) = (Names::new(), Names::new());
    lines.extend(["subgraph  {".to_owned(), "rank=\"max\"".to_owned()]);
    for id in nodes.iter().copied() {
        let name = format!("I{}", names.len());
        lines.push(node(&name, "IPFS", id, &Look::IPFS));
        names.insert(id, name);
    }
    for peer in peers.iter().copied().filter(|peer| !graph.cluster_to_ipfs.contains_key(*peer)) {
        let name = format!("I{}", names.len() + missing.len());
        lines.push(node(&name, "Errored", peer, &Look::MISSING));
        missing.insert(peer, name);
    }
    lines.push("}".to_owned());
    (names, missing)
}

fn edges(links: &BTreeMap<String, Vec<String>>, names: &Names<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for (from, targets) in links {
        let targets: BTreeSet<&str> = targets.iter().map(String::as_str).collect();
        for target in targets {
            if let (Some(from), Some(to)) = (names.get(from.as_str()), names.get(target)) {
                lines.push(format!("{from} -> {to}"));
            }
        }
    }
    lines
}

fn comment(text: &str) -> String {
    format!("/* {text} */")
}

fn node(name: &str, label: &str, id: &str, look: &Look) -> String {
    let (label, short, group) = (markup(label), markup(&shortened(id)), id.replace(['"', '\\', '\n'], "_"));
    let border = if look.is_asked { "peripheries=\"2\" " } else { "" };
    format!(
        "{name} [label=< <B> {label} </B> <BR/> <B> {short} </B> > group=\"{group}\" color=\"{}\" style=\"filled\" \
         colorscheme=\"x11\" fontcolor=\"black\" fontname=\"Arial\" shape=\"{}\" {border}]",
        look.colour, look.shape
    )
}

/// The first two letters of an id and its last six.
fn shortened(id: &str) -> String {
    let letters: Vec<char> = id.chars().collect();
    if letters.len() <= 8 {
        return id.to_owned();
    }
    letters[..2].iter().chain(&['*']).chain(&letters[letters.len() - 6..]).collect()
}

fn markup(text: &str) -> String {
    let text: String = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: &str = "12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA";

    fn graph() -> ConnectGraph {
        let text = |value: &str| value.to_owned();
        let id = ASKED;
        ConnectGraph {
            cluster_id: id.parse().unwrap(),
            id_to_peername: [(text(id), text("peer<0>")), (text("Qmtrusted00001"), text("peer1"))].into(),
            ipfs_links: [
                (text("Qmipfs00000000"), vec![text("Qmfar000000000")]),
                (text("Qmipfs00000001"), vec![text("Qmipfs00000000")]),
            ]
            .into(),
            cluster_links: [
                (text(id), vec![text("Qmtrusted00001"), text("Qmother0000002")]),
                (text("Qmtrusted00001"), vec![text(id)]),
                (text("Qmother0000002"), Vec::new()),
            ]
            .into(),
            cluster_trust_links: [(text(id), true), (text("Qmtrusted00001"), true)].into(),
            cluster_to_ipfs: [(text(id), text("Qmipfs00000000")), (text("Qmtrusted00001"), text("Qmipfs00000001"))]
                .into(),
        }
    }

    #[test]
    fn a_cluster_is_drawn_as_the_original_draws_it() {
        let tail = r#"style="filled" colorscheme="x11" fontcolor="black" fontname="Arial""#;
        let expected = format!(
            r#"digraph cluster {{
/* The nodes of the connectivity graph */
/* The cluster-service peers */
subgraph  {{
rank="min"
C0 [label=< <B> peer&lt;0&gt; </B> <BR/> <B> 12*AJU5SA </B> > group="{ASKED}" color="orange" {tail} shape="box3d" peripheries="2" ]
C1 [label=< <B>  </B> <BR/> <B> Qm*000002 </B> > group="Qmother0000002" color="darkorange3" {tail} shape="box3d" ]
T2 [label=< <B> peer1 </B> <BR/> <B> Qm*d00001 </B> > group="Qmtrusted00001" color="orange" {tail} shape="box3d" ]
}}

/* The ipfs peers */
subgraph  {{
rank="max"
I0 [label=< <B> IPFS </B> <BR/> <B> Qm*000000 </B> > group="Qmipfs00000000" color="turquoise3" {tail} shape="cylinder" ]
I1 [label=< <B> IPFS </B> <BR/> <B> Qm*000001 </B> > group="Qmipfs00000001" color="turquoise3" {tail} shape="cylinder" ]
I2 [label=< <B> Errored </B> <BR/> <B> Qm*000002 </B> > group="Qmother0000002" color="firebrick1" {tail} shape="cylinder" ]
}}
/* Edges representing active connections in the cluster */
/* The connections among cluster-service peers */
C0 -> C1
C0 -> T2
T2 -> C0
/* The connections between cluster peers and their ipfs daemons */
C0 -> I0
C1 -> I2 [ style="dotted" ]
T2 -> I1
/* The swarm peer connections among ipfs daemons in the cluster */
I1 -> I0
}}"#
        );
        assert_eq!(draw(&graph(), false), expected);
    }

    #[test]
    fn ipfs_nodes_outside_of_the_cluster_are_drawn_when_asked_for() {
        assert!(!draw(&graph(), false).contains("Qmfar000000000"));
        let all = draw(&graph(), true);
        assert!(all.contains("I0 [label=< <B> IPFS </B> <BR/> <B> Qm*000000 </B> > group=\"Qmfar000000000\""));
        assert!(all.contains("I1 -> I0"));
    }

    #[test]
    fn ids_cannot_break_out_of_the_drawing() {
        let drawn = node("C0", "</B>", "x\" ] evil [ \"", &Look::OTHER);
        assert!(!drawn.contains("evil [ \"\"") && drawn.contains("&lt;/B&gt;"));
        assert_eq!(shortened("é"), "é");
    }
}
