//! Canonical documents.

use automerge::{AutoCommit, ROOT, ReadDoc};
use bytes::Bytes;

use super::super::testing::{SHARD, cids_of, document, hex, pool, record, records};
use super::*;

#[test]
fn the_order_of_records_does_not_matter() {
    let records = records(20);
    let forwards = Document::canonical(SHARD, records.iter().map(|(cid, record)| (*cid, record))).unwrap();
    let backwards = Document::canonical(SHARD, records.iter().rev().map(|(cid, record)| (*cid, record))).unwrap();
    assert_eq!(forwards.save(), backwards.save());
    assert_eq!(forwards.head(), backwards.head());
}

#[test]
fn the_canonical_document_is_pinned() {
    let document = document(&records(3));
    let found = format!("{}\n{}\n", document.head(), hex(&document.save()));
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
fn other_records_or_another_shard_are_another_head() {
    let mut other = records(3);
    let head = document(&other).head();
    other.insert(pool()[1], record("changed"));
    assert_ne!(document(&other).head(), head);
    let empty = |shard| Document::canonical(shard, Vec::<(Cid, Bytes)>::new()).unwrap();
    assert_ne!(empty(1).head(), empty(2).head());
    assert_eq!(empty(1).save(), empty(1).save());
}

#[test]
fn records_that_do_not_belong_are_refused() {
    let stray = cids_of(8, 1)[0];
    assert!(matches!(Document::canonical(SHARD, [(stray, b"x")]), Err(DocumentError::OtherShard { .. })));
    let twice = [(pool()[0], b"x"), (pool()[0], b"y")];
    assert!(matches!(Document::canonical(SHARD, twice), Err(DocumentError::Twice { .. })));
}
