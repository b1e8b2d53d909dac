//! What a read of a stored version costs.

/// The most deltas a chain can have: the depth has 8 bits wherever it is kept.
pub const MAX_DEPTH: u32 = 0xFF;

/// Bits of a byte count; every stored form fits, since no document is larger.
const BYTES_BITS: u32 = 28;
const BYTES_MASK: u64 = (1 << BYTES_BITS) - 1;

/// How a version is stored, as far as the next one needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Deltas to replay, its own included; 0 for a keyframe.
    pub depth: u32,
    /// Stored bytes of its keyframe, packed or whole; at least 1.
    pub keyframe_bytes: u32,
    /// Stored bytes of the deltas since the keyframe, its own included.
    pub delta_bytes: u32,
}

impl Layout {
    /// The layout of a keyframe that takes `stored` bytes, packed or whole.
    #[must_use]
    pub fn keyframe(stored: usize) -> Self {
        Self {
            depth: 0,
            // No document has no bytes. One that had would count as a byte, so that no layout packs to 0.
            keyframe_bytes: saturate(stored).max(1),
            delta_bytes: 0,
        }
    }

    /// The layout of a delta that takes `stored` bytes and has a version of this layout as its base.
    #[must_use]
    pub fn extended(self, stored: usize) -> Self {
        Self {
            depth: self.depth.saturating_add(1),
            keyframe_bytes: self.keyframe_bytes,
            delta_bytes: self.delta_bytes.saturating_add(saturate(stored)),
        }
    }

    /// The layout as one number, never 0: 8 bits of depth, then twice 28 bits of bytes; larger values are cut to
    /// what fits.
    #[must_use]
    pub fn pack(self) -> u64 {
        let depth = u64::from(self.depth.min(MAX_DEPTH));
        let keyframe = u64::from(self.keyframe_bytes).clamp(1, BYTES_MASK);
        let delta = u64::from(self.delta_bytes).min(BYTES_MASK);
        depth << (2 * BYTES_BITS) | keyframe << BYTES_BITS | delta
    }

    /// The layout that [`Self::pack`] made the number of; `None` for 0, which stands for an unknown layout, and for
    /// any number that is no layout's.
    #[must_use]
    pub fn unpack(packed: u64) -> Option<Self> {
        let layout = Self {
            depth: u32::try_from(packed >> (2 * BYTES_BITS)).ok()?,
            keyframe_bytes: u32::try_from(packed >> BYTES_BITS & BYTES_MASK).ok()?,
            delta_bytes: u32::try_from(packed & BYTES_MASK).ok()?,
        };
        (layout.keyframe_bytes > 0).then_some(layout)
    }
}

fn saturate(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn layout(depth: u32, keyframe_bytes: u32, delta_bytes: u32) -> Layout {
        Layout {
            depth,
            keyframe_bytes,
            delta_bytes,
        }
    }

    #[test]
    fn a_layout_survives_packing() {
        let largest = (1 << 28) - 1;
        for depth in [0, 1, 16, 254, 255] {
            for keyframe in [1, 2, 0x0123_4567, largest] {
                for delta in [0, 1, 0x0765_4321, largest] {
                    let layout = layout(depth, keyframe, delta);
                    assert_eq!(Layout::unpack(layout.pack()), Some(layout));
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_cut() {
        let huge = layout(u32::MAX, u32::MAX, u32::MAX);
        assert_eq!(huge.pack(), u64::MAX);
        assert_eq!(layout(256, 1 << 28, 1 << 28).pack(), u64::MAX);
        assert_eq!(huge.extended(usize::MAX), huge);
    }

    #[test]
    fn zero_is_no_layout() {
        assert_eq!(Layout::unpack(0), None);
        assert_eq!(Layout::unpack(0xFF00_0000_0FFF_FFFF), None);
        assert_eq!(
            Layout::unpack(layout(0, 0, 0).pack()),
            Some(layout(0, 1, 0))
        );
        assert_eq!(Layout::keyframe(0), layout(0, 1, 0));
    }

    #[test]
    fn a_delta_adds_to_its_base() {
        let layout = Layout::keyframe(1_000).extended(30).extended(12);
        assert_eq!(
            (layout.depth, layout.keyframe_bytes, layout.delta_bytes),
            (2, 1_000, 42)
        );
    }
}
