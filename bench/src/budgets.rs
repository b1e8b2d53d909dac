//! Reserving and settling money, beside counters that somebody keeps by hand.

use crate::Failure;
use crate::crew::{CLIENTS, Crew, Until};
use crate::report::{Row, Target};
use crate::rounds::{Comparison, Plan, Side};
use crate::wire::Connection;

/// Budgets that the clients use in turns: two seldom meet.
const BUDGETS: u64 = 100;
/// Clients that use one budget.
const CROWD: usize = 16;

/// A hold and its cost by the functions, and by two UPDATEs of a counter that check the limit.
const STATEMENTS: [(&str, &str); 4] = [
    (
        "reserve",
        "SELECT state_budget_reserve($1, NULL, 1, hold_id => $2)",
    ),
    ("settle", "SELECT state_budget_settle($1, 0.9)"),
    (
        "hold",
        "UPDATE plain_budget SET held = held + 1 WHERE name = $1 AND spent + held + 1 <= total",
    ),
    (
        "spend",
        "UPDATE plain_budget SET held = held - 1, spent = spent + 0.9 WHERE name = $1",
    ),
];

/// Makes the budgets of both sides, as new.
fn define(connection: &mut Connection) -> Result<(), Failure> {
    connection.query(&format!(
        "SELECT state_budget_drop(budget) FROM state_budget;
         DROP TABLE IF EXISTS plain_budget;
         CREATE TABLE plain_budget (name text PRIMARY KEY, total numeric NOT NULL, spent numeric NOT NULL DEFAULT 0,
             held numeric NOT NULL DEFAULT 0) WITH (fillfactor = 50);
         INSERT INTO plain_budget SELECT 'budget-' || n, 1e9 FROM generate_series(0, {BUDGETS} - 1) n;
         SELECT state_budget_define('budget-' || n, 1e9, 'USD') FROM generate_series(0, {BUDGETS} - 1) n;
         SELECT state_budget_define('one', 1e9, 'USD'), state_budget_define('sharded', 1e9, 'USD', shards => 8)"
    ))?;
    Ok(())
}

fn tidy(connection: &mut Connection) -> Result<(), Failure> {
    connection.query("VACUUM plain_budget, state_budget_account, state_budget_hold")?;
    Ok(())
}

/// What tells the holds of one turn from those of the others.
fn turn(connection: &mut Connection) -> Result<String, Failure> {
    connection.value("SELECT txid_current()::text")
}

/// Holds and costs in many budgets, each in a transaction of its own.
pub fn many(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    define(connection)?;
    let mut crew = Crew::connect(CLIENTS, &STATEMENTS)?;
    let rounds = plan.alternate([Side::Cached, Side::Plain], |side| {
        tidy(connection)?;
        let turn = turn(connection)?;
        crew.work(Until::Elapsed(plan.turn), |client| {
            let number = client.number();
            let budget = format!("budget-{}", number.wrapping_mul(37) % BUDGETS);
            if side == Side::Cached {
                let hold = format!("{}-{turn}-{number}", client.key_name());
                client.connection.execute("reserve", &[&budget, &hold])?;
                client.connection.execute("settle", &[&hold])?;
            } else {
                client.connection.execute("hold", &[&budget])?;
                client.connection.execute("spend", &[&budget])?;
            }
            Ok(())
        })
    })?;
    let row = Comparison {
        measured: format!("reserve and settle, {CLIENTS} clients, {BUDGETS} budgets"),
        against: "two `UPDATE`s that check the limit".to_owned(),
        target: Target::AtLeast(0.7),
        sides: [0, 1],
    };
    Ok(vec![row.by_rate(&rounds)])
}

/// Holds and costs in one budget, whose counters are several rows or one.
pub fn one(connection: &mut Connection, plan: &Plan) -> Result<Vec<Row>, Failure> {
    define(connection)?;
    let mut crew = Crew::connect(CROWD, &STATEMENTS)?;
    let rounds = plan.alternate([Side::Cached, Side::Plain], |side| {
        tidy(connection)?;
        let turn = turn(connection)?;
        let budget = match side {
            Side::Cached => "sharded",
            _ => "one",
        };
        crew.work(Until::Elapsed(plan.turn), |client| {
            let hold = format!("{}-{turn}-{}", client.key_name(), client.number());
            client.connection.execute("reserve", &[budget, &hold])?;
            client.connection.execute("settle", &[&hold])?;
            Ok(())
        })
    })?;
    let row = Comparison {
        measured: format!("reserve and settle, {CROWD} clients, one budget, `shards => 8`"),
        against: "the same with one shard".to_owned(),
        target: Target::AtLeast(2.0),
        sides: [0, 1],
    };
    Ok(vec![row.by_rate(&rounds)])
}
