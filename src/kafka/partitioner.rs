//! Which partition a key belongs to.

/// The partition of `key` among `partitions`, as Kafka's Java client chooses it: all clients
/// agree where a site's records are. 0 when there are none.
#[must_use]
pub fn partition_for(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key) & 0x7fff_ffff).checked_rem(partitions).unwrap_or(0)
}

/// MurmurHash2 with the seed and the tail order of Java's
/// `org.apache.kafka.common.utils.Utils.murmur2`.
fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    // Keys are far below 4 GiB; Java's length is an int as well.
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = word.iter().rev().fold(0, |k, byte| k << 8 | u32::from(*byte));
        k = k.wrapping_mul(M);
        k ^= k >> R;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        hash ^= tail.iter().rev().fold(0, |k, byte| k << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    hash as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key, `Utils.murmur2(key)`, and `BuiltInPartitioner.partitionForKey(key, n)` for 1, 3, 8,
    /// 12 and 100 partitions, printed by the Java client 4.3.0.
    const JAVA: &str = include_str!("../../tests/data/java_partitions.tsv");

    #[test]
    fn agrees_with_the_java_client() {
        let mut keys = 0;
        for line in JAVA.lines().skip(1) {
            let fields: Vec<&str> = line.split('\t').collect();
            let [key, hash, expect @ ..] = fields.as_slice() else { panic!("{line}") };
            assert_eq!(murmur2(key.as_bytes()), hash.parse::<i32>().unwrap(), "{key}");
            for (partitions, expect) in [1, 3, 8, 12, 100].into_iter().zip(expect) {
                let found = partition_for(key.as_bytes(), partitions);
                assert_eq!(found, expect.parse::<i32>().unwrap(), "{key} of {partitions}");
            }
            keys += 1;
        }
        assert!(keys >= 50, "{keys}");
    }

    #[test]
    fn no_partitions_is_no_panic() {
        assert_eq!(partition_for(b"42", 0), 0);
    }
}
