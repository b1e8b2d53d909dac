//! Which form a version gets. Bytes here are those of the stored form, header and checksum included.

use crate::layout::{Layout, MAX_DEPTH};

/// Documents below this many bytes are stored whole, so that they are read without any work. Calibrated on parts of
/// recorded agent states: compressed on their own, those of 128 to 255 bytes save 30 bytes, those of 384 to 511
/// save 140, and from 512 on a third and more.
const LEAST_PACKED: usize = 512;

/// A delta must save this many bytes against a keyframe, or each read of the version would depend on another row
/// for nothing that shows beside the size of the row.
const LEAST_SAVED: usize = 64;

/// A delta of at most a 16th of the document is taken without compressing the document for comparison. Recorded
/// agent states compress to a quarter; up to 12 times smaller, the comparison would have the same outcome.
const CLEARLY_SMALL: usize = 16;

/// The deltas of a chain take at most this many times the bytes of their keyframe. On the recorded sessions, whose
/// keyframes compress well, 1 stores 1.36 times the final states, 2 stores 1.23 and 4 stores 1.21; how long a chain
/// gets is bounded apart.
const MOST_DELTAS: u32 = 4;

/// Whether a chain that ends in `base` may get another delta.
pub(crate) fn may_extend(base: Layout, max_chain: u32) -> bool {
    base.depth < max_chain.min(MAX_DEPTH) && base.delta_bytes < most(base)
}

/// Whether a delta of `delta` bytes keeps the deltas of the chain within [`MOST_DELTAS`] times the bytes of their
/// keyframe. So a read takes at most five times the keyframe's bytes, and so does a history.
pub(crate) fn fits(base: Layout, delta: usize) -> bool {
    let extended = base.extended(delta);
    extended.delta_bytes <= most(base)
}

fn most(base: Layout) -> u32 {
    base.keyframe_bytes.saturating_mul(MOST_DELTAS)
}

/// Whether a delta is so small that the document need not be compressed to see it.
pub(crate) fn is_clear(delta: usize, document: usize) -> bool {
    document >= LEAST_PACKED && delta.saturating_mul(CLEARLY_SMALL) <= document
}

/// Whether a delta is worth its dependence on another row, where a keyframe would take `keyframe` bytes: it saves
/// at least [`LEAST_SAVED`] bytes and a quarter of them.
pub(crate) fn delta_pays(delta: usize, keyframe: usize) -> bool {
    delta.saturating_add(LEAST_SAVED.max(keyframe.div_ceil(4))) <= keyframe
}

/// Whether to try to compress a document that is stored without a base.
pub(crate) fn may_pack(document: usize) -> bool {
    document >= LEAST_PACKED
}

/// Whether a compressed keyframe is worth decompressing on each read: it takes at most three quarters.
pub(crate) fn packing_pays(keyframe: usize, document: usize) -> bool {
    keyframe <= document / 4 * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(depth: u32, delta_bytes: u32) -> Layout {
        Layout {
            depth,
            keyframe_bytes: 1_000,
            delta_bytes,
        }
    }

    #[test]
    fn a_chain_ends_at_its_maximum() {
        assert!(may_extend(base(15, 0), 16));
        assert!(!may_extend(base(16, 0), 16));
        assert!(!may_extend(base(0, 0), 0));
        assert!(may_extend(base(254, 0), 1_000));
        assert!(!may_extend(base(255, 0), 1_000));
    }

    #[test]
    fn deltas_stay_within_their_keyframe() {
        assert!(fits(base(1, 3_900), 100));
        assert!(!fits(base(1, 3_900), 101));
        assert!(!fits(base(1, 3_900), usize::MAX));
        assert!(may_extend(base(1, 3_999), 16));
        assert!(!may_extend(base(1, 4_000), 16));
    }

    #[test]
    fn a_delta_saves_a_quarter_and_64_bytes() {
        assert!(delta_pays(750, 1_000));
        assert!(!delta_pays(751, 1_000));
        assert!(delta_pays(36, 100));
        assert!(!delta_pays(37, 100));
        assert!(!delta_pays(0, 63));
        assert!(!delta_pays(usize::MAX, 1_000));
    }

    #[test]
    fn a_sixteenth_is_clear() {
        assert!(is_clear(100, 1_600));
        assert!(!is_clear(101, 1_600));
        // Stored whole, so a 16th of it saves less than it seems.
        assert!(!is_clear(1, 511));
    }

    #[test]
    fn only_what_shrinks_is_packed() {
        assert!(!may_pack(511));
        assert!(may_pack(512));
        assert!(packing_pays(750, 1_000));
        assert!(!packing_pays(751, 1_000));
    }
}
