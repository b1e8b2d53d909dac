//! The server, its classes, and the states that a history is about.

use super::record::{Element, Promise, Seen, State};
use postgres::Client;
use state_cache_server_tests::{Server, Sql};
use std::sync::atomic::{AtomicU64, Ordering};

/// The classes: name, promise and how many versions are kept. The rows of `purged` are deleted by hand, all at a
/// time.
const CLASSES: [(&str, Promise, &str); 4] = [
    ("kept", Promise::Through, "'through', keep => 1"),
    ("purged", Promise::Through, "'through', keep => 5"),
    ("left", Promise::Behind, "'behind', keep => 1"),
    ("switched", Promise::Switching, "'behind', keep => 1"),
];
/// Of each class, states that are appended to, and states that are replaced.
const LISTS: usize = 4;
const REGISTERS: usize = 3;

/// How old a change of a `behind` class may become, and how long a flush may take on a machine that does much
/// else.
pub const INTERVAL: &str = "state_cache.flush_interval = '100ms'";
/// Both together, in nanoseconds.
pub const REACH: u64 = 1_600_000_000;

/// One state.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its class.
    pub class: &'static str,
    /// Its key.
    pub key: String,
    /// What its class promises.
    pub promise: Promise,
    /// It is mostly appended to; the others are replaced.
    pub list: bool,
}

/// The server and what all lives have in common.
pub struct Arena {
    /// The server.
    pub server: Server,
    elements: AtomicU64,
}

impl Arena {
    /// A server with little L1 and the classes.
    pub fn new() -> Self {
        let server = Server::new(&[
            INTERVAL,
            "state_cache.memory = '1MB'",
            "deadlock_timeout = '20ms'",
            "shared_buffers = '64MB'",
            "max_connections = 60",
        ]);
        let mut client = server.connect();
        for (class, _, settings) in CLASSES {
            client.run(&format!("SELECT state_class_define('{class}', {settings})"));
        }
        client.run(FUNCTIONS);
        Self {
            server,
            elements: AtomicU64::new(1),
        }
    }

    /// A number that nobody has written yet.
    pub fn element(&self) -> Element {
        self.elements.fetch_add(1, Ordering::SeqCst)
    }
}

/// The states of a generation, by number.
pub fn places(generation: usize) -> Vec<Place> {
    let of_class = |(class, promise, _): (&'static str, Promise, &str)| {
        (0..LISTS + REGISTERS).map(move |number| {
            let list = number < LISTS;
            let what = if list { "list" } else { "register" };
            Place {
                class,
                key: format!("{what} {number}/{generation}"),
                promise,
                list,
            }
        })
    };
    CLASSES.into_iter().flat_map(of_class).collect()
}

/// A query of all that is there of these states, by their numbers.
pub fn read_many(places: &[Place], states: &[State]) -> String {
    let of_class = |class: &str| {
        let keys: Vec<String> = states
            .iter()
            .filter(|state| places[**state].class == class)
            .map(|state| format!("'{}'", places[*state].key))
            .collect();
        (!keys.is_empty()).then(|| {
            format!(
                "SELECT '{class}', r.key, r.version, r.state -> 'log'
                     FROM state_get_many(ARRAY[{}], class => '{class}') r",
                keys.join(", ")
            )
        })
    };
    let parts: Vec<String> = CLASSES
        .iter()
        .filter_map(|(class, ..)| of_class(class))
        .collect();
    parts.join(" UNION ALL ")
}

/// The answer to such a query; each row is class, key, version and list.
pub fn seen(places: &[Place], states: &[State], rows: &[Vec<Option<String>>]) -> Vec<Seen> {
    let find = |state: &State| {
        let place = &places[*state];
        let row = rows.iter().find(|row| {
            row[0].as_deref() == Some(place.class) && row[1].as_deref() == Some(&place.key)
        });
        Seen {
            state: *state,
            version: row.and_then(|row| Some(row[2].as_ref()?.parse().unwrap())),
            value: row.and_then(|row| row[3].as_deref()).map(elements),
        }
    };
    states.iter().map(find).collect()
}

/// The list in a document, as text.
pub fn elements(text: &str) -> Vec<Element> {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("not a list of numbers: {text}"))
}

/// What is there of all states now.
pub fn look(client: &mut Client, places: &[Place]) -> Vec<Seen> {
    let states: Vec<State> = (0..places.len()).collect();
    let rows = client.rows(&read_many(places, &states));
    let rows: Vec<Vec<Option<String>>> = rows
        .into_iter()
        .map(|row| row.into_iter().map(Some).collect())
        .collect();
    seen(places, &states, &rows)
}

/// What is done by hand, as the documentation says.
const FUNCTIONS: &str = r#"
    -- A version with one more element, its number; NULL if the state is absent.
    CREATE FUNCTION history_append(of text, named text, element bigint) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE
        was bigint;
        is_in_head boolean;
        document jsonb;
    BEGIN
        SELECT version, state IS NOT NULL INTO was, is_in_head
            FROM state_head WHERE class = of AND key = named AND NOT deleted FOR UPDATE;
        IF was IS NULL THEN
            RETURN NULL;
        END IF;
        document := state_at(named, was, of);
        document := jsonb_set(document, '{log}', (document -> 'log') || to_jsonb(element));
        INSERT INTO state_snapshot (class, key, version, parent_version, state, hash)
            SELECT of, named, was + 1, was, document, state_hash(document) WHERE NOT is_in_head;
        UPDATE state_head SET version = was + 1, hash = state_hash(document), size = pg_column_size(document) - 4,
                updated_at = clock_timestamp(), parent_version = CASE WHEN is_in_head THEN was END,
                state = CASE WHEN is_in_head THEN document END
            WHERE class = of AND key = named;
        RETURN was + 1;
    END $$;
    -- The version that was deleted with its rows; NULL if the state was absent.
    CREATE FUNCTION history_remove(of text, named text) RETURNS bigint LANGUAGE plpgsql AS $$
    DECLARE
        was bigint;
        gone boolean;
    BEGIN
        SELECT version, deleted INTO was, gone FROM state_head WHERE class = of AND key = named FOR UPDATE;
        IF NOT FOUND THEN
            -- The next statements would see, and delete, what others have committed since.
            RETURN NULL;
        END IF;
        DELETE FROM state_snapshot WHERE class = of AND key = named;
        DELETE FROM state_head WHERE class = of AND key = named;
        RETURN CASE WHEN NOT gone THEN was END;
    END $$;
"#;
