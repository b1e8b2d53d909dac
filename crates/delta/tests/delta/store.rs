//! A table of snapshots, written and read as the extension does.

use std::collections::BTreeMap;

use state_cache_delta::{Base, Decoder, Encoder, Fault, Form, Header, Layout, MAX_HEADER};

/// One row.
pub enum Row {
    Whole(Vec<u8>),
    Packed(Vec<u8>),
}

pub struct Store {
    pub rows: BTreeMap<i64, Row>,
    encoder: Encoder,
    last: Option<(i64, Vec<u8>, Layout)>,
}

impl Store {
    pub fn new(level: i32) -> Self {
        Self {
            rows: BTreeMap::new(),
            encoder: Encoder::new(level).unwrap(),
            last: None,
        }
    }

    pub fn save(&mut self, version: i64, document: &[u8], max_chain: u32) -> Layout {
        let base = self.last.as_ref().map(|(version, document, layout)| Base {
            version: *version,
            document,
            layout: *layout,
        });
        let encoded = self
            .encoder
            .encode(document, version, base, max_chain)
            .unwrap();
        let row = match encoded.form {
            Form::Whole => Row::Whole(document.to_vec()),
            Form::Packed(packed) => Row::Packed(packed),
        };
        self.rows.insert(version, row);
        self.last = Some((version, document.to_vec(), encoded.layout));
        encoded.layout
    }

    /// The document of a version, by the rows alone.
    pub fn read(&self, decoder: &mut Decoder, version: i64) -> Result<Vec<u8>, Fault> {
        let packed = match &self.rows[&version] {
            Row::Whole(document) => return Ok(document.clone()),
            Row::Packed(packed) => packed,
        };
        let base = Header::read(packed)?.base_version(version)?;
        let base = base.map(|base| self.read(decoder, base)).transpose()?;
        decoder.decode(packed, base.as_deref())
    }

    /// The layout of a version, by the first bytes and the length of its row.
    pub fn layout(&self, version: i64) -> Layout {
        match &self.rows[&version] {
            Row::Whole(document) => Layout::keyframe(document.len()),
            Row::Packed(packed) => Header::read(&packed[..packed.len().min(MAX_HEADER)])
                .unwrap()
                .layout(packed.len()),
        }
    }

    pub fn stored_bytes(&self, version: i64) -> usize {
        match &self.rows[&version] {
            Row::Whole(bytes) | Row::Packed(bytes) => bytes.len(),
        }
    }

    pub fn packed(&self, version: i64) -> Option<&[u8]> {
        match &self.rows[&version] {
            Row::Whole(_) => None,
            Row::Packed(packed) => Some(packed),
        }
    }
}
