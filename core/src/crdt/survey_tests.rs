//! What sets of changes ask for.

use proptest::prelude::*;

use super::super::testing::{SHARD, author, change, document, pool, record, records};
use super::*;

fn texts(touched: &Touched) -> Vec<String> {
    let mut texts: Vec<String> =
        touched.said.iter().map(|said| String::from_utf8(said.record.to_vec()).unwrap()).collect();
    texts.sort();
    texts
}

fn of(survey: &Survey, place: usize) -> &Touched {
    survey.touched.iter().find(|touched| touched.cid == pool()[place]).unwrap()
}

#[test]
fn concurrent_puts_are_all_shown_and_a_put_survives_a_removal() {
    let base = records(4);
    let one = change(&mut document(&base), 1, &[(0, Some("one")), (1, None), (2, None)]);
    let other = change(&mut document(&base), 2, &[(0, Some("other")), (1, Some("kept")), (2, None)]);
    let mut now = base.clone();
    now.insert(pool()[0], record("by the log"));
    now.remove(&pool()[2]);
    let survey = survey(SHARD, &base, &now, [&one, &other]).unwrap();
    assert!(survey.unfit.is_empty());
    assert_eq!(survey.touched.len(), 3);
    let first = of(&survey, 0);
    assert_eq!(texts(first), ["one", "other"]);
    assert_eq!((&first.base, &first.now), (&Some(record("base 0")), &Some(record("by the log"))));
    let said: BTreeSet<ChangeId> = first.said.iter().map(|said| said.change).collect();
    assert_eq!(said, BTreeSet::from([one.id(), other.id()]));
    assert_eq!((texts(of(&survey, 1)), &of(&survey, 1).removed_by), (vec!["kept".to_owned()], &vec![one.id()]));
    assert!(of(&survey, 2).said.is_empty() && of(&survey, 2).now.is_none());
    assert_eq!(of(&survey, 2).removed_by.len(), 2);
}

#[test]
fn a_later_change_replaces_what_its_author_saw() {
    let base = records(2);
    let mut shared = document(&base);
    let first = change(&mut shared, 1, &[(0, None), (1, Some("x"))]);
    let second = change(&mut shared, 2, &[(0, Some("back")), (1, Some("y"))]);
    let survey = survey(SHARD, &base, &base, [&second, &first]).unwrap();
    assert_eq!(texts(of(&survey, 0)), ["back"]);
    assert!(of(&survey, 0).removed_by.is_empty());
    assert_eq!(of(&survey, 1).said, [Said { record: record("y"), change: second.id() }]);
}

#[test]
fn a_change_on_another_base_or_without_its_cause_is_set_apart() {
    let base = records(2);
    let mut shared = document(&base);
    let first = change(&mut shared, 1, &[(0, Some("x"))]);
    let second = change(&mut shared, 1, &[(0, Some("y"))]);
    let stranger = change(&mut document(&records(3)), 2, &[(1, Some("z"))]);
    let survey = survey(SHARD, &base, &base, [&second, &stranger]).unwrap();
    assert!(survey.touched.is_empty());
    assert_eq!(survey.unfit[&second.id()], Unfit::Missing { missing: first.id() });
    assert_eq!(survey.unfit[&stranger.id()], Unfit::OtherBase);

    // The edits can be read all the same, and say whether they still hold.
    let mut now = base.clone();
    assert!(rebase(&first, &now)[0].unchanged);
    assert!(!rebase(&second, &now)[0].unchanged);
    now.insert(pool()[0], record("x"));
    assert!(!rebase(&first, &now)[0].unchanged);
    assert!(rebase(&second, &now)[0].unchanged);
    assert_eq!(rebase(&second, &now)[0].record, Some(record("y")));
}

/// Something one of a few peers does while they are apart.
#[derive(Clone, Debug)]
enum Step {
    Write { by: usize, edits: Vec<(usize, Option<u16>)> },
    Hear { by: usize, from: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let edits = proptest::collection::vec((0_usize..6, proptest::option::weighted(0.7, 0_u16..50)), 1..4);
    prop_oneof![
        3 => (0_usize..4, edits).prop_map(|(by, edits)| Step::Write { by, edits }),
        1 => (0_usize..4, 0_usize..4).prop_map(|(by, from)| Step::Hear { by, from }),
    ]
}

/// Carries the steps out; each peer has its own document and list of changes.
fn apart(base: &Records, steps: Vec<Step>) -> Vec<Change> {
    let mut peers: Vec<(Document, Vec<Change>)> = (0..4).map(|_| (document(base), Vec::new())).collect();
    let mut all = Vec::new();
    for step in steps {
        match step {
            Step::Write { by, edits } => {
                let edits =
                    edits.into_iter().map(|(place, text)| (pool()[place], text.map(|text| record(&text.to_string()))));
                let author = author(u8::try_from(by).unwrap());
                if let Some(change) = peers[by].0.write(&author, 40, &edits.collect()).unwrap() {
                    peers[by].1.push(change.clone());
                    all.push(change);
                }
            }
            Step::Hear { by, from } => {
                for change in peers[from].1.clone() {
                    if peers[by].0.take(&change).unwrap() {
                        peers[by].1.push(change);
                    }
                }
            }
        }
    }
    all
}

/// What is left of the edits of a CID when those that a later change followed are gone; by the graph alone.
fn left(changes: &[Change], cid: &Cid) -> BTreeSet<(ChangeId, Option<Bytes>)> {
    let by_id: BTreeMap<ChangeId, &Change> = changes.iter().map(|change| (change.id(), change)).collect();
    let causes = |change: &Change| {
        let mut seen = BTreeSet::new();
        let mut open = change.dependencies().to_vec();
        while let Some(id) = open.pop() {
            if let Some(cause) = by_id.get(&id).filter(|_| seen.insert(id)) {
                open.extend(cause.dependencies());
            }
        }
        seen
    };
    let edit = |change: &Change| change.edits().iter().find(|edit| edit.cid == *cid).cloned();
    let editing: Vec<&Change> = changes.iter().filter(|change| edit(change).is_some()).collect();
    let followed: BTreeSet<ChangeId> = editing.iter().flat_map(|change| causes(change)).collect();
    let standing = editing.iter().filter(|change| !followed.contains(&change.id()));
    standing.map(|change| (change.id(), edit(change).and_then(|edit| edit.record))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn order_and_repetition_do_not_matter(
        steps in proptest::collection::vec(step(), 0..25), held in 0_usize..6, picks in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        seed in any::<u64>(),
    ) {
        let base = records(held);
        let changes: Vec<Change> =
            apart(&base, steps).iter().map(|change| Change::decode(&change.encode()).unwrap()).collect();
        let expected = survey(SHARD, &base, &base, &changes).unwrap();
        prop_assert!(expected.unfit.is_empty());

        let mut shuffled = changes.clone();
        if !changes.is_empty() {
            shuffled.extend(picks.iter().map(|pick| pick.get(&changes).clone()));
        }
        shuffled.sort_by_key(|change| blake3::keyed_hash(&[seed.to_le_bytes()[0]; 32], &change.id().0).as_bytes().to_owned());
        prop_assert_eq!(&survey(SHARD, &base, &base, &shuffled).unwrap(), &expected);

        for touched in &expected.touched {
            let mut found: BTreeSet<(ChangeId, Option<Bytes>)> =
                touched.said.iter().map(|said| (said.change, Some(said.record.clone()))).collect();
            found.extend(touched.removed_by.iter().map(|id| (*id, None)));
            prop_assert_eq!(found, left(&changes, &touched.cid));
        }
        let all: BTreeSet<Cid> = changes.iter().flat_map(Change::edits).map(|edit| edit.cid).collect();
        prop_assert_eq!(expected.touched.iter().map(|touched| touched.cid).collect::<BTreeSet<_>>(), all);
    }

    /// Taking changes in as they become possible, in any order, ends in one state.
    #[test]
    fn documents_converge(steps in proptest::collection::vec(step(), 0..25), seed in any::<u8>()) {
        let base = records(4);
        let changes = apart(&base, steps);
        let mut waiting = changes.clone();
        waiting.sort_by_key(|change| blake3::keyed_hash(&[seed; 32], &change.id().0).as_bytes().to_owned());
        let mut other = document(&base);
        while !waiting.is_empty() {
            let before = waiting.len();
            waiting.retain(|change| other.take(change).is_err());
            prop_assert!(waiting.len() < before);
        }
        let mut one = document(&base);
        for change in &changes {
            one.take(change).unwrap();
        }
        prop_assert_eq!(one.heads(), other.heads());
        for cid in pool() {
            let shown = |document: &Document| {
                document.shown(cid).unwrap().into_iter().map(|shown| (shown.stamp, shown.record)).collect::<Vec<_>>()
            };
            prop_assert_eq!(shown(&one), shown(&other));
        }
    }
}
