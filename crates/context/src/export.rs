//! What a run gives away when it ends.

use state_cache_document::elements;

use crate::error::ShapeError;
use crate::fields;
use crate::labels::{Destination, Sensitivity};
use crate::record::Run;
use state_cache_memory::Grow;

/// One export that a run has declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export<'a> {
    /// The variable.
    pub key: Vec<u8>,
    /// Where its value goes.
    pub destination: Destination,
    /// Who may see it there.
    pub sensitivity: Sensitivity,
    /// What is made of the value on the way: the text of an SQL/JSON path.
    pub transformation: Option<Vec<u8>>,
    /// The class of the state, or the name of the system, that it goes to.
    pub target: Option<Vec<u8>>,
    /// The key under which it arrives.
    pub target_key: Option<Vec<u8>>,
    /// What else the item of a blackboard is given, an object.
    pub item: Option<&'a [u8]>,
    /// The record that it was read from.
    pub raw: &'a [u8],
}

impl<'a> Run<'a> {
    /// All exports in their order.
    ///
    /// # Errors
    /// A [`ShapeError`] if one is not as it must be.
    pub fn exports(&self) -> Result<Vec<Export<'a>>, ShapeError> {
        let Some(exports) = fields::array(self.document(), "exports")? else {
            return Ok(Vec::new());
        };
        let mut read = Vec::new();
        for (place, raw) in elements(exports)?.into_iter().enumerate() {
            let export = fields::as_object(raw)
                .map_err(ShapeError::whole)
                .and_then(Export::read);
            let export = export.map_err(|error| error.within_element(place).within(b"exports"))?;
            read.try_push(export)?;
        }
        Ok(read)
    }
}

impl<'a> Export<'a> {
    fn read(raw: &'a [u8]) -> Result<Self, ShapeError> {
        let destination = fields::label::<Destination>(raw, "destination")?;
        let sensitivity = fields::label::<Sensitivity>(raw, "sensitivity")?;
        Ok(Export {
            key: fields::required(fields::text(raw, "key")?, "key")?,
            destination: fields::required(destination, "destination")?,
            sensitivity: fields::required(sensitivity, "sensitivity")?,
            transformation: fields::text(raw, "transformation")?,
            target: fields::text(raw, "target")?,
            target_key: fields::text(raw, "targetKey")?,
            item: fields::object(raw, "item")?,
            raw,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::support::jsonb;
    use serde_json::{Value, json};

    fn with(exports: &Value) -> Vec<u8> {
        jsonb(&json!({"runId": "r", "variables": {}, "exports": exports}))
    }

    #[test]
    fn exports_are_read_in_their_order() {
        let whole = json!({"key": "b", "destination": "external_system", "sensitivity": "pii",
            "transformation": "$.a", "target": "t", "targetKey": "k", "item": {"type": "goal"}});
        let least = json!({"key": "a", "destination": "parent_context", "sensitivity": "public"});
        let document = with(&json!([whole, least]));
        let exports = Run::open(&document, b"r").unwrap().exports().unwrap();
        assert_eq!(
            exports,
            [
                Export {
                    key: b"b".to_vec(),
                    destination: Destination::ExternalSystem,
                    sensitivity: Sensitivity::Pii,
                    transformation: Some(b"$.a".to_vec()),
                    target: Some(b"t".to_vec()),
                    target_key: Some(b"k".to_vec()),
                    item: Some(&jsonb(&json!({"type": "goal"}))),
                    raw: &jsonb(&whole),
                },
                Export {
                    key: b"a".to_vec(),
                    destination: Destination::ParentContext,
                    sensitivity: Sensitivity::Public,
                    transformation: None,
                    target: None,
                    target_key: None,
                    item: None,
                    raw: &jsonb(&least),
                }
            ]
        );
        let document = jsonb(&json!({"runId": "r", "variables": {}}));
        assert_eq!(
            Run::open(&document, b"r").unwrap().exports(),
            Ok(Vec::new())
        );
    }

    #[test]
    fn a_wrong_export_is_named() {
        let good = json!({"key": "a", "destination": "blackboard", "sensitivity": "public"});
        for (name, wrong) in [
            ("key", json!(1)),
            ("destination", json!("moon")),
            ("sensitivity", json!("loud")),
            ("sensitivity", json!(null)),
            ("transformation", json!({})),
            ("target", json!([])),
            ("targetKey", json!(false)),
            ("item", json!("i")),
        ] {
            let mut bad = good.clone();
            bad[name] = wrong;
            let document = with(&json!([good, bad]));
            let error = Run::open(&document, b"r").unwrap().exports().unwrap_err();
            assert_eq!(error.field, format!("exports.1.{name}"));
        }
        let document = with(&json!([good, 1]));
        let error = Run::open(&document, b"r").unwrap().exports().unwrap_err();
        assert_eq!(error.to_string(), "field \"exports.1\" is not an object");
    }
}
