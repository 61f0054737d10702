//! Proof that two peers hold the same: an incremental set hash per shard, and a root over the shards.
//!
//! A shard's hash is the sum modulo 2^256 of the BLAKE3 hashes of its records in canonical form, so putting and
//! removing a record costs one addition, and the order of changes does not matter. The root is the BLAKE3 hash over
//! all shards' sums in order. It proves equality among peers that trust each other; it is no defence against a peer
//! that makes up records to collide.

use cluster_types::{Cid, Pin};

use crate::ports::ShardSum;

/// Number of shards of the pinset: 12 bits of the hash of the CID.
pub const SHARDS: u16 = 4096;

/// The shard a CID falls into.
pub fn shard_of(cid: &Cid) -> u16 {
    let hash = blake3::hash(&cid.to_bytes());
    let [high, low, ..] = *hash.as_bytes();
    u16::from_be_bytes([high, low]) % SHARDS
}

/// The key that orders every listing of the pinset: the shard, then the CID's bytes.
pub fn order_key(cid: &Cid) -> Vec<u8> {
    let mut key = shard_of(cid).to_be_bytes().to_vec();
    key.extend_from_slice(&cid.to_bytes());
    key
}

impl ShardSum {
    /// Counts a record in.
    pub fn add(&mut self, pin: &Pin) {
        self.add_record(&super::operation::encode_pin(pin));
    }

    /// Counts a record out.
    pub fn remove(&mut self, pin: &Pin) {
        self.remove_record(&super::operation::encode_pin(pin));
    }

    /// Counts a record in; `record` is its canonical form.
    pub fn add_record(&mut self, record: &[u8]) {
        self.pins = self.pins.wrapping_add(1);
        self.hash = add(&self.hash, blake3::hash(record).as_bytes());
    }

    /// Counts a record out; `record` is its canonical form.
    pub fn remove_record(&mut self, record: &[u8]) {
        self.pins = self.pins.wrapping_sub(1);
        self.hash = subtract(&self.hash, blake3::hash(record).as_bytes());
    }
}

/// The digest of the whole pinset, from the sums of all shards in order.
pub fn root<'a>(shards: impl IntoIterator<Item = &'a ShardSum>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for shard in shards {
        hasher.update(&shard.pins.to_be_bytes());
        hasher.update(&shard.hash);
    }
    *hasher.finalize().as_bytes()
}

/// A digest of the shards that an entry changed, as they stand after it, in order. Peers that apply the same entry on the
/// same shards get the same; it costs what the entry changes and not what the pinset holds.
pub fn touched<'a>(shards: impl IntoIterator<Item = (u16, &'a ShardSum)>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for (number, sum) in shards {
        hasher.update(&number.to_be_bytes());
        hasher.update(&sum.pins.to_be_bytes());
        hasher.update(&sum.hash);
    }
    *hasher.finalize().as_bytes()
}

fn add(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut sum = [0; 32];
    let mut carry = 0;
    for place in 0..32 {
        let total = u16::from(left[place]) + u16::from(right[place]) + carry;
        sum[place] = total.to_le_bytes()[0];
        carry = total >> 8;
    }
    sum
}

fn subtract(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    let mut difference = [0; 32];
    let mut borrow = 0;
    for place in 0..32 {
        let total = i16::from(left[place]) - i16::from(right[place]) - borrow;
        difference[place] = total.rem_euclid(256).to_le_bytes()[0];
        borrow = i16::from(total < 0);
    }
    difference
}

#[cfg(test)]
mod tests {
    use cluster_types::PinOptions;

    use super::*;

    fn pin(name: &str) -> Pin {
        let cid = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH".parse().unwrap();
        Pin::new(cid, PinOptions { name: name.to_owned(), ..PinOptions::default() })
    }

    #[test]
    fn order_does_not_matter_and_removal_undoes() {
        let (a, b) = (pin("a"), pin("b"));
        let mut one = ShardSum::default();
        one.add(&a);
        one.add(&b);
        let mut other = ShardSum::default();
        other.add(&b);
        other.add(&a);
        assert_eq!(one, other);
        other.remove(&b);
        other.remove(&a);
        assert_eq!(other, ShardSum::default());
        assert_ne!(root(&[one]), root(&[ShardSum::default()]));
    }

    #[test]
    fn a_changed_record_changes_the_sum() {
        let mut one = ShardSum::default();
        one.add(&pin("a"));
        let mut other = ShardSum::default();
        other.add(&pin("b"));
        assert_ne!(one.hash, other.hash);
    }
}
