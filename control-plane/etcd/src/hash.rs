//! The hash over a store's history that members compare: the same numbers as upstream for the same history. Pure but
//! for values that are read through `Values`. Caller: `Etcd::hash_kv`.

use bytes::Bytes;
use prost::Message;
use wire::etcd::KeyValue;

use crate::error::Error;
use crate::mvcc::{Store, Values, Version};

/// A hash and what it covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKv {
    pub hash: u32,
    pub compact_revision: i64,
    pub hash_revision: i64,
}

/// CRC-32C (Castagnoli), which the shared checksum crate does not offer.
struct Crc32c(u32);

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
};

impl Crc32c {
    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = TABLE[((self.0 ^ u32::from(*byte)) & 0xff) as usize] ^ (self.0 >> 8);
        }
    }
}

/// Hashes every version up to `upto` that compaction keeps, in revision order, in upstream's encoding: the name of
/// its bucket, then for each version 8 bytes of revision, `_`, 8 bytes of order, `t` for a deletion, and the
/// key-value message.
pub fn hash_kv(store: &Store, upto: i64, values: &dyn Values) -> Result<HashKv, Error> {
    let compacted = store.compacted();
    let mut versions: Vec<(&Bytes, &Version)> = Vec::new();
    for (key, history) in &store.keys {
        let all = history.all();
        let kept = all.partition_point(|v| v.modified <= compacted).saturating_sub(1);
        let counts = |v: &&Version| v.modified <= upto && !(v.modified <= compacted && v.is_tombstone());
        versions.extend(all.iter().skip(kept).filter(counts).map(|v| (key, v)));
    }
    versions.sort_by_key(|(_, v)| (v.modified, v.sub));
    let mut crc = Crc32c(!0);
    crc.update(b"key");
    let mut encoded = Vec::new();
    for (key, version) in versions {
        crc.update(&version.modified.to_be_bytes());
        crc.update(b"_");
        crc.update(&i64::from(version.sub).to_be_bytes());
        let kv = if version.is_tombstone() {
            crc.update(b"t");
            KeyValue { key: key.clone(), ..KeyValue::default() }
        } else {
            KeyValue { value: store.value(version, values)?, ..version.without_value(key.clone()) }
        };
        encoded.clear();
        kv.encode(&mut encoded).expect("a vector grows");
        crc.update(&encoded);
    }
    Ok(HashKv { hash: !crc.0, compact_revision: compacted, hash_revision: upto })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn castagnoli_check_value() {
        let mut crc = Crc32c(!0);
        crc.update(b"123456789");
        assert_eq!(!crc.0, 0xe306_9283);
    }
}
