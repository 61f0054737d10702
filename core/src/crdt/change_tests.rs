//! Changes on the wire.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::testing::{author, change, cids_of, damaged, document, hex, pool, record, records};
use super::super::{DocumentError, Unfit};
use super::*;

fn sample() -> Change {
    let mut document = document(&records(3));
    change(&mut document, 1, &[(0, Some("first"))]);
    change(&mut document, 2, &[(0, Some("new")), (1, None), (5, Some("added"))])
}

#[test]
fn a_change_round_trips() {
    let change = sample();
    let read = Change::decode(&change.encode()).unwrap();
    assert_eq!(read, change);
    assert_eq!(read.id(), change.id());
    assert_eq!((read.author(), read.base_index(), read.edits().len()), (&author(2), 40, 3));
}

#[test]
fn the_format_and_the_id_are_pinned() {
    let change = sample();
    let found = format!("{}\n{}\n", change.id(), hex(&change.encode()));
    assert_eq!(found, include_str!("golden/change-v1.txt"));
}

/// The parts of the sample, changed by `edit`, as they would come over the wire.
fn altered(edit: impl FnOnce(&mut Parts)) -> Vec<u8> {
    let mut parts = sample().parts().clone();
    edit(&mut parts);
    encode(&parts)
}

fn refusal(bytes: &[u8]) -> String {
    Change::decode(bytes).unwrap_err().to_string()
}

#[test]
fn what_no_author_writes_is_refused() {
    let refused = |edit: fn(&mut Parts)| refusal(&altered(edit));
    assert!(refused(|parts| parts.edits.clear()).contains("no edits"));
    assert!(refused(|parts| parts.edits.reverse()).contains("order of their CIDs"));
    assert!(refused(|parts| parts.edits.push(parts.edits[0].clone())).contains("order of their CIDs"));
    assert!(refused(|parts| parts.dependencies.clear()).contains("dependencies"));
    assert!(refused(|parts| parts.dependencies.reverse()).contains("dependencies"));
    assert!(refused(|parts| parts.dependencies.push(parts.dependencies[0])).contains("dependencies"));
    assert!(refused(|parts| parts.number = 0).contains("out of range"));
    assert!(refused(|parts| parts.number = u64::MAX).contains("out of range"));
    assert!(refused(|parts| parts.first_operation = 0).contains("out of range"));
    assert!(refused(|parts| parts.first_operation = u64::from(u32::MAX)).contains("out of range"));
    assert!(refused(|parts| parts.base_index = u64::MAX).contains("out of range"));
    assert!(refused(|parts| parts.edits[0].overwrites.clear()).contains("replaces nothing"));
    assert!(refused(|parts| parts.edits[0].overwrites[0].counter = 99).contains("after it"));
    assert!(refused(|parts| parts.edits[0].overwrites[0].counter = 0).contains("after it"));
    assert!(refused(|parts| parts.edits[0].saw = None).contains("replaces nothing"));
    let elsewhere = refused(|parts| {
        parts.edits.truncate(1);
        parts.edits[0].cid = cids_of(8, 1)[0];
        parts.edits.push(sample().parts().edits[1].clone());
        parts.edits.sort_by_key(|edit| edit.cid.to_bytes());
    });
    assert!(elsewhere.contains("in another shard"), "{elsewhere}");
    let removal = refused(|parts| {
        let added = parts.edits.iter_mut().find(|edit| edit.overwrites.is_empty()).unwrap();
        added.record = None;
    });
    assert!(removal.contains("what is not there"), "{removal}");
}

#[test]
fn one_change_has_one_encoding() {
    let bytes = sample().encode();
    let mut with_unknown_field = bytes.clone();
    with_unknown_field.extend_from_slice(&[0xf8, 0x07, 0x01]);
    assert!(refusal(&with_unknown_field).contains("canonical form"));
    let mut message = FORMAT.decode::<wire::Change>(&bytes).unwrap();
    message.actors.push(vec![0xff; 16]);
    assert!(refusal(&FORMAT.encode(&message)).contains("canonical form"));
    message.actors.pop();
    message.edits[0].overwrites[0].actor = 9;
    assert!(refusal(&FORMAT.encode(&message)).contains("an actor is missing"));
}

#[test]
fn every_field_takes_part_in_the_id() {
    let alterations: [fn(&mut Parts); 9] = [
        |parts| parts.author.sequence[0] ^= 1,
        |parts| parts.number += 1,
        |parts| parts.first_operation += 1,
        |parts| parts.base_index += 1,
        |parts| parts.dependencies[0].0[0] ^= 1,
        |parts| parts.edits[0].record = Some(record("another")),
        |parts| parts.edits[0].saw = RecordHash::from_number(1),
        |parts| parts.edits[0].overwrites[0].counter -= 1,
        |parts| parts.edits[0].overwrites[0].actor.0[0] ^= 1,
    ];
    let mut ids: Vec<ChangeId> =
        alterations.iter().map(|alteration| Change::decode(&altered(alteration)).unwrap().id()).collect();
    ids.push(sample().id());
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), alterations.len() + 1);
}

#[test]
fn too_much_is_refused_unread() {
    assert!(refusal(&vec![1; MAX_CHANGE_BYTES + 1]).contains("more than"));
    let mut empty = document(&records(0));
    let large = BTreeMap::from([(pool()[0], Some(Bytes::from(vec![0; MAX_CHANGE_BYTES])))]);
    assert!(matches!(empty.write(&author(1), 1, &large), Err(DocumentError::Edits(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever passes for a change can be offered to a document without harm.
    #[test]
    fn damaged_changes_do_no_harm(bytes in damaged(sample().encode())) {
        if let Ok(change) = Change::decode(&bytes) {
            prop_assert_eq!(change.encode(), bytes);
            let mut document = document(&records(3));
            let taken = document.take(&change);
            prop_assert!(matches!(
                taken,
                Err(Unfit::OtherBase | Unfit::Missing { .. } | Unfit::Contradiction { .. })
            ), "{:?}", taken);
        }
    }

    /// Changes with sound encodings and arbitrary numbers neither panic nor get in.
    #[test]
    fn changes_that_lie_do_no_harm(
        number in 1_u64..4, first in 1_u64..9, counter in 1_u64..9, actor in 0_usize..4, saw in any::<u64>(), seen in any::<bool>(),
    ) {
        let mut ours = document(&records(3));
        let earlier = change(&mut ours, 1, &[(0, Some("first"))]);
        let mut parts = sample().parts().clone();
        parts.number = number;
        parts.first_operation = first;
        let actors = [Actor(*b"canonical-shard!"), author(1).actor(), author(2).actor(), author(3).actor()];
        if seen {
            parts.edits[0].overwrites[0] = Stamp { counter, actor: actors[actor] };
        } else {
            parts.edits[0].saw = RecordHash::from_number(saw);
        }
        let honest = parts == *sample().parts();
        if let Ok(lie) = Change::build(parts) {
            prop_assert_eq!(ours.take(&lie).is_ok(), honest);
        }
        prop_assert!(ours.has(&earlier.id()));
        change(&mut ours, 3, &[(0, None), (1, Some("goes on"))]);
    }
}
