//! For tests, which declare these functions themselves: breaks what L1 holds, reads JSON, calls the worker.

use crate::call::{self, sql_functions};
use crate::catalog;
use crate::error::Error;
use crate::{json_text, shared};
use state_cache_l1::Part;

sql_functions! {
    /// `state_cache_test_damage(class, key, part)`: whether there was an entry to break.
    fn state_cache_test_damage(call) {
        let catalog = catalog::current(call.function())?;
        let class = catalog.class(call.required_text(0, "class")?)?;
        let key = call.required_text(1, "key")?;
        let part = match call.required_text(2, "part")? {
            b"value" => Part::Value,
            b"chain" => Part::Chain,
            b"header" => Part::Header,
            b"list" => Part::List,
            _ => return Err(Error::argument("there is no such part")),
        };
        let key = catalog.l1_key(&class, key);
        let broken = shared::l1().is_some_and(|l1| l1.damage(&key, part));
        Ok(call::boolean_datum(broken))
    }

    /// `state_cache_test_json(state, on_invalid)`: the document that a text spells, as `state_set_text` reads it.
    fn state_cache_test_json(call) {
        let document = json_text::argument(call, 0, 1)?;
        Ok(call::varlena_datum(&document))
    }

    /// Calls the worker of this database.
    fn state_cache_test_call_worker(_call) {
        if let Some(database) = shared::database() {
            database.wake_worker();
        }
        Ok(call::void_datum())
    }
}
