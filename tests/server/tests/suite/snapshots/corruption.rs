//! Snapshots damaged at random, as a disk would or somebody by hand: whatever is read is right or refused as damaged,
//! `state_verify` names what is refused, and a repair leaves nothing to be found.
//!
//! `STATE_CACHE_CORRUPTION_SEED` repeats one seed.

use super::quoted;
use postgres::Client;
use state_cache_histories::history;
use state_cache_server_tests::{Dice, Server, Sql};
use std::collections::BTreeMap;

/// Histories of the suite, and of the soak test.
const HISTORIES: (u64, u64) = (150, 5000);
const VERSIONS: usize = 14;
const NEWEST: i64 = VERSIONS as i64;

/// What reads of every version come to: right, damaged (`XX001`), gone or wrong. One row of JSON each.
const READ: &str = "CREATE FUNCTION read_version(k text, v bigint, wanted jsonb) RETURNS text LANGUAGE plpgsql AS $$
    DECLARE found jsonb; BEGIN
        found := state_at(k, v, 'sick');
        RETURN CASE WHEN found IS NULL THEN 'gone'
            WHEN found = wanted AND state_hash(found) = state_hash(wanted) THEN 'right' ELSE 'wrong' END;
    EXCEPTION WHEN data_corrupted THEN RETURN 'damaged';
    END $$;
    CREATE FUNCTION read_current(k text, wanted jsonb) RETURNS text LANGUAGE plpgsql AS $$
    DECLARE found jsonb; BEGIN
        found := state_get(k, 'sick');
        RETURN CASE WHEN found IS NULL THEN 'gone'
            WHEN found = wanted AND state_hash(found) = state_hash(wanted) THEN 'right' ELSE 'wrong' END;
    EXCEPTION WHEN data_corrupted THEN RETURN 'damaged';
    END $$;";

struct Case<'a> {
    client: &'a mut Client,
    dice: Dice,
    seed: u64,
    key: String,
    /// A document and a hash that were taken from other versions might fit together: no damage.
    has_swapped: bool,
    log: Vec<String>,
}

impl Case<'_> {
    fn run(&mut self, sql: &str) -> Vec<Vec<String>> {
        self.log.push(sql.to_owned());
        self.client.rows(sql)
    }

    fn check(&self, holds: bool, what: &str) {
        assert!(
            holds,
            "{what}\nSTATE_CACHE_CORRUPTION_SEED={}; the statements:\n{}",
            self.seed,
            self.log.join(";\n")
        );
    }

    fn save_history(&mut self) {
        for (number, document) in history(self.seed, VERSIONS).iter().enumerate() {
            let document = quoted(&document.to_string());
            let point = self.dice.roll(6) == 0;
            let key = quoted(&self.key);
            self.run(&format!(
                "SELECT state_save({key}, {document}, 'manual', recovery_point => {point}, class => 'sick');
                 INSERT INTO truth VALUES ({key}, {}, {document})",
                number + 1
            ));
        }
    }

    /// A row of the state, by chance.
    fn any_version(&mut self) -> i64 {
        1 + self.dice.roll(VERSIONS as u64) as i64
    }

    fn damage(&mut self) {
        let (one, other) = (self.any_version(), self.any_version());
        let (place, size) = (self.dice.roll(1 << 20), self.dice.roll(1 << 20));
        let bit = self.dice.roll(8);
        let of = format!("class = 'sick' AND key = {} AND version", quoted(&self.key));
        let other =
            |column: &str| format!("(SELECT {column} FROM state_snapshot WHERE {of} = {other})");
        let bit = format!("(({place} % length(delta)) * 8 + {bit})::bigint");
        let way = match self.dice.roll(9) {
            4..=6 if self.has_swapped => 0,
            way => way,
        };
        self.has_swapped |= matches!(way, 4..=6);
        let change = match way {
            0..3 => format!("delta = set_bit(delta, {bit}, 1 - get_bit(delta, {bit}))"),
            3 => format!("delta = substr(delta, 1, {size} % (length(delta) + 1))"),
            4 => format!("delta = coalesce({}, delta)", other("delta")),
            5 => format!("state = {}", other("coalesce(state, '[1.0]')")),
            6 => format!("hash = coalesce({}, hash)", other("hash")),
            7 => format!("hash = set_byte(hash, {place} % 16, {size} % 256)"),
            _ => {
                self.run(&format!("DELETE FROM state_snapshot WHERE {of} = {one}"));
                return;
            }
        };
        let sql = format!("UPDATE state_snapshot SET {change} WHERE {of} = {one}");
        self.run(&sql);
    }

    /// What a read of each version comes to, the newest last.
    fn read_all(&mut self) -> BTreeMap<i64, String> {
        let rows = self.run(&format!(
            "SELECT version, read_version(key, version, document) FROM truth WHERE key = {}",
            quoted(&self.key)
        ));
        rows.into_iter()
            .map(|row| (row[0].parse().unwrap(), row[1].clone()))
            .collect()
    }

    /// The versions of which there is a row.
    fn rows(&mut self) -> Vec<i64> {
        let key = quoted(&self.key);
        self.numbers(&format!(
            "SELECT version FROM state_snapshot WHERE class = 'sick' AND key = {key}"
        ))
    }

    fn read_current(&mut self, version: i64) -> String {
        self.run(&format!(
            "SELECT read_current(key, document) FROM truth WHERE key = {} AND version = {version}",
            quoted(&self.key)
        ))[0][0]
            .clone()
    }

    fn numbers(&mut self, sql: &str) -> Vec<i64> {
        let rows = self.run(sql);
        rows.iter().map(|row| row[0].parse().unwrap()).collect()
    }

    fn check_numbers(&self, what: &str, found: &[i64], wanted: &[i64]) {
        self.check(
            found == wanted,
            &format!("{what}: {found:?} and not {wanted:?}"),
        );
    }

    fn findings(&mut self, repair: bool) -> Vec<i64> {
        self.numbers(&format!(
            "SELECT version FROM state_verify('sick', repair => {repair}) ORDER BY 1"
        ))
    }

    /// Damages a history, looks, repairs, looks again; whether something was found.
    fn run_all(&mut self) -> bool {
        self.save_history();
        for _ in 0..1 + self.dice.roll(3) {
            self.damage();
        }
        let is_cold = self.dice.roll(2) == 0;
        if is_cold {
            self.run("SELECT state_cache_clear()");
        }
        let read = self.look(is_cold);
        let rows = self.rows();
        // L1 may hold what the tables do not any more.
        let is_lost = |number: i64| number == NEWEST && !rows.contains(&number);
        let is_intact = |number: i64| read[&number] == "right" && !is_lost(number);
        let is_damaged = |number: i64| read[&number] == "damaged" || is_lost(number);
        let damaged: Vec<i64> = (1..=NEWEST).filter(|number| is_damaged(*number)).collect();
        let found = self.findings(false);
        self.check_numbers("found", &found, &damaged);
        let found = self.findings(true);
        self.check_numbers("repaired", &found, &damaged);
        match (1..=NEWEST).rev().find(|number| is_intact(*number)) {
            Some(intact) => self.look_at_repaired(&read, &rows, &damaged, intact),
            None => {
                let left = self.findings(false);
                self.check_numbers("left with nothing intact", &left, &damaged);
            }
        }
        self.forget();
        !damaged.is_empty()
    }

    /// What is read is right, or refused as damaged; L1 may hold what the tables do not any more.
    fn look(&mut self, is_cold: bool) -> BTreeMap<i64, String> {
        let read = self.read_all();
        let is_wrong = read.values().any(|how| how == "wrong");
        self.check(!is_wrong, &format!("{read:?}"));
        let current = self.read_current(NEWEST);
        let may_be = match (read[&NEWEST].as_str(), is_cold) {
            ("right", _) => &["right"][..],
            (_, true) => &["damaged"][..],
            (_, false) => &["damaged", "right"][..],
        };
        let is_one = may_be.contains(&current.as_str());
        self.check(
            is_one,
            &format!("the current version is {current}: {read:?}"),
        );
        read
    }

    /// Nothing is found any more, the newest intact version is current, what was intact is there, and what was not
    /// is put aside.
    fn look_at_repaired(
        &mut self,
        before: &BTreeMap<i64, String>,
        rows: &[i64],
        damaged: &[i64],
        intact: i64,
    ) {
        let left = self.findings(false);
        self.check_numbers("left", &left, &[]);
        if self.dice.roll(2) == 0 {
            self.run("SELECT state_cache_clear()");
        }
        let current = self.read_current(intact);
        self.check(
            current == "right",
            &format!("version {intact} is current and {current}"),
        );
        let key = quoted(&self.key);
        let aside = self.numbers(&format!(
            "SELECT d.version FROM state_damaged d JOIN state_recovery_log l ON l.id = log_id
                WHERE d.key = {key} AND l.version = d.version ORDER BY 1"
        ));
        let had_row = |number: &i64| rows.contains(number);
        let wanted: Vec<i64> = damaged.iter().copied().filter(had_row).collect();
        self.check_numbers("put aside", &aside, &wanted);
        for (number, after) in self.read_all() {
            let was_intact = before[&number] == "right" && !damaged.contains(&number);
            let wanted = if was_intact { "right" } else { "gone" };
            self.check(after == wanted, &format!("version {number} is {after}"));
        }
        let is_new = damaged.contains(&NEWEST);
        let version = self.numbers(&format!("SELECT state_version({key}, 'sick')"));
        self.check_numbers("current", &version, &[NEWEST + i64::from(is_new)]);
    }

    /// Makes the class empty for the next case, which begins with version 1.
    fn forget(&mut self) {
        self.run(
            "BEGIN; DELETE FROM state_head WHERE class = 'sick'; DELETE FROM state_snapshot WHERE class = 'sick'; \
                COMMIT;
             DELETE FROM state_floor WHERE class = 'sick'; TRUNCATE truth",
        );
    }
}

fn corruption(count: u64) {
    let server = Server::new(&["synchronous_commit = off"]);
    let mut client = server.connect();
    client.run(READ);
    client.run(
        "CREATE TABLE truth (key text, version bigint, document jsonb);
         SELECT state_class_define('sick');
         SELECT state_class_define('sick', keep => 0);
         ALTER TABLE state_snapshot DISABLE TRIGGER state_cache_changed",
    );
    let one = std::env::var("STATE_CACHE_CORRUPTION_SEED").ok();
    let seeds = one.map_or(0..count, |text| {
        let seed = text.parse().unwrap();
        seed..seed + 1
    });
    let (mut found, all) = (0, seeds.end - seeds.start);
    for seed in seeds {
        let mut case = Case {
            client: &mut client,
            dice: Dice::new(seed),
            seed,
            key: format!("patient {seed}"),
            has_swapped: false,
            log: Vec::new(),
        };
        found += u64::from(case.run_all());
    }
    println!("{found} of {all} histories were found damaged");
    assert!(all == 1 || found > all / 2);
}

#[test]
fn damaged_versions_are_refused_and_repaired() {
    corruption(HISTORIES.0);
}

#[test]
#[ignore = "soak"]
fn damaged_versions_of_thousands_of_histories_are_refused_and_repaired() {
    corruption(HISTORIES.1);
}
