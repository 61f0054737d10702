//! Canonical documents, and changes made and taken.

use automerge::AutoCommit;

use super::super::testing::{SHARD, author, change, cids_of, document, hex, pool, record, records};
use super::*;

#[test]
fn the_order_of_records_does_not_matter() {
    let records = records(20);
    let forwards = Document::canonical(SHARD, records.iter().map(|(cid, record)| (*cid, record))).unwrap();
    let backwards = Document::canonical(SHARD, records.iter().rev().map(|(cid, record)| (*cid, record))).unwrap();
    assert_eq!(forwards.save(), backwards.save());
    assert_eq!(forwards.heads(), backwards.heads());
    assert_eq!(forwards.heads(), [forwards.base()]);
}

#[test]
fn the_canonical_document_is_pinned() {
    let document = document(&records(3));
    let found = format!("{}\n{}\n", document.base(), hex(&document.save()));
    assert_eq!(found, include_str!("golden/document-v1.txt"));
}

#[test]
fn automerge_reads_the_document() {
    let records = records(5);
    let loaded = AutoCommit::load(&document(&records).save()).unwrap();
    assert_eq!(loaded.keys(ROOT).count(), 5);
    for (cid, record) in &records {
        let (value, _) = loaded.get(ROOT, cid.to_string()).unwrap().unwrap();
        assert_eq!(value.as_bytes().unwrap(), record);
    }
}

#[test]
fn other_records_or_another_shard_are_another_base() {
    let mut other = records(3);
    let base = document(&other).base();
    other.insert(pool()[1], record("changed"));
    assert_ne!(document(&other).base(), base);
    let empty = |shard| Document::canonical(shard, Vec::<(Cid, Bytes)>::new()).unwrap();
    assert_ne!(empty(1).base(), empty(2).base());
    assert_eq!(empty(1).save(), empty(1).save());
}

#[test]
fn records_that_do_not_belong_are_refused() {
    let stray = cids_of(8, 1)[0];
    assert!(matches!(Document::canonical(SHARD, [(stray, b"x")]), Err(DocumentError::OtherShard { .. })));
    let twice = [(pool()[0], b"x"), (pool()[0], b"y")];
    assert!(matches!(Document::canonical(SHARD, twice), Err(DocumentError::Twice { .. })));
    let edits = BTreeMap::from([(stray, Some(record("x")))]);
    let refused = document(&records(0)).write(&author(1), 1, &edits);
    assert!(matches!(refused, Err(DocumentError::OtherShard { .. })));
}

/// The change Automerge's own transaction makes of the same edits.
fn expected(document: &[u8], by: u8, change: &Change) -> automerge::ExpandedChange {
    let mut theirs = AutoCommit::load(document).unwrap();
    theirs.set_actor(ActorId::from(author(by).actor().0));
    for edit in change.edits() {
        match &edit.record {
            Some(record) => theirs.put(ROOT, edit.cid.to_string(), record.to_vec()).unwrap(),
            None => theirs.delete(ROOT, edit.cid.to_string()).unwrap(),
        }
    }
    theirs.commit_with(CommitOptions::default().with_time(40)).unwrap();
    theirs.get_last_local_change().unwrap().decode()
}

#[test]
fn a_change_is_what_automerge_makes_of_it() {
    let base = records(6);
    let mut ours = document(&base);
    let elsewhere = change(&mut document(&base), 2, &[(0, Some("concurrent")), (4, None)]);
    for (by, edits) in [
        (1, [(0, Some("new")), (2, None), (9, Some("added"))]),
        (1, [(0, None), (1, Some("x")), (9, Some("again"))]),
        (3, [(0, Some("seen two")), (3, Some("y")), (9, None)]),
    ] {
        let before = ours.save();
        let made = change(&mut ours, by, &edits);
        let (expected, mut made) = (expected(&before, by, &made), made.built().decode());
        assert_eq!(made.operations, expected.operations);
        assert_eq!((made.actor_id, made.seq, made.start_op), (expected.actor_id, expected.seq, expected.start_op));
        made.deps.retain(|id| id.0 != ours.base().0 || expected.deps.contains(id));
        assert_eq!(made.deps, expected.deps);
        ours.take(&elsewhere).unwrap();
    }
}

#[test]
fn a_change_made_on_one_peer_fits_on_another() {
    let mut one = document(&records(4));
    let mut other = document(&records(4));
    let first = change(&mut one, 1, &[(0, Some("new")), (1, None)]);
    let second = change(&mut one, 1, &[(0, Some("newer"))]);
    assert_eq!(other.take(&second), Err(Unfit::Missing { missing: first.id() }));
    assert_eq!(other.take(&first), Ok(true));
    assert_eq!(other.take(&second), Ok(true));
    assert_eq!(other.take(&second), Ok(false));
    assert_eq!(one.heads(), other.heads());
    assert_eq!(other.shown(&pool()[0]).unwrap()[0].record, "newer");
    assert!(other.shown(&pool()[1]).unwrap().is_empty());
    let elsewhere = document(&records(5)).take(&first);
    assert_eq!(elsewhere, Err(Unfit::OtherBase));
}

#[test]
fn removing_what_is_not_there_makes_no_change() {
    let mut document = document(&records(2));
    assert_eq!(document.write(&author(1), 1, &BTreeMap::from([(pool()[7], None)])).unwrap(), None);
    assert_eq!(document.write(&author(1), 1, &BTreeMap::new()).unwrap(), None);
    assert_eq!(document.heads(), [document.base()]);
}

#[test]
fn a_number_given_twice_is_a_contradiction() {
    let mut one = document(&records(2));
    let mut other = document(&records(2));
    let first = change(&mut one, 1, &[(0, Some("x"))]);
    let second = change(&mut other, 1, &[(0, Some("y"))]);
    assert!(matches!(one.take(&second), Err(Unfit::Contradiction { .. })));
    assert!(one.has(&first.id()) && !one.has(&second.id()));
}

#[test]
fn more_heads_than_a_change_may_name_count_as_not_seen() {
    let base = records(1);
    let mut all = document(&base);
    let mut authors = 0;
    for number in 0..u16::try_from(MAX_DEPENDENCIES).unwrap() + 20 {
        let mut sequence = [0; 16];
        sequence[..2].copy_from_slice(&number.to_le_bytes());
        let by = Author { sequence, ..author(0) };
        let edits = BTreeMap::from([(pool()[0], Some(record(&number.to_string())))]);
        let change = document(&base).write(&by, 40, &edits).unwrap().unwrap();
        all.take(&change).unwrap();
        authors += 1;
    }
    assert_eq!(all.shown(&pool()[0]).unwrap().len(), authors);
    let last = change(&mut all, 99, &[(0, Some("last"))]);
    assert_eq!(last.dependencies().len(), MAX_DEPENDENCIES);
    assert_eq!(all.shown(&pool()[0]).unwrap().len(), authors - (MAX_DEPENDENCIES - 1) + 1);
    let again = change(&mut all, 99, &[(0, Some("again"))]);
    assert!(again.dependencies().binary_search(&last.id()).is_ok());
}
