//! What can go wrong with budgets, and what each error says.

use crate::error::Report;
use crate::sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgSqlErrorCode, function_name};
use state_cache_budget::Amount;

/// Names that a message shows at most.
const NAMED: usize = 10;

/// What can go wrong; see [`BudgetError`'s `report`](Report::report) for the SQLSTATEs.
#[derive(Debug)]
pub enum BudgetError {
    /// There is no such budget.
    Unknown { budget: String },
    /// These agents are not in the budget.
    UnknownAgents { budget: String, agents: Vec<String> },
    /// There is no such hold.
    UnknownHold { hold: String },
    /// There is no room.
    NoRoom {
        budget: String,
        agent: Option<String>,
        left: Amount,
        asked: Amount,
        currency: String,
    },
    /// Nobody has said how much, and the agent has no price.
    NoPrice { budget: String, agent: String },
    /// A hold of that name was made with other arguments.
    OtherHold {
        hold: String,
        difference: &'static str,
    },
    /// A cost of that name was recorded with other values.
    OtherCost { budget: String, id: String },
    /// The hold was settled with another amount.
    Settled {
        hold: String,
        actual: Amount,
        asked: Amount,
    },
    /// The hold was settled, and is to be voided or extended.
    HoldEnded {
        hold: String,
        status: String,
        wanted: &'static str,
    },
    /// The hold's time is over.
    Expired { hold: String, at: i64 },
    /// Another currency than the budget's.
    Currency {
        what: String,
        currency: String,
        other: String,
    },
    /// Something that cannot change while money is in it.
    InUse { budget: String, what: &'static str },
    /// Something is held in a budget that is to go.
    Held { budget: String },
    /// Budgets would be above themselves.
    Circle { budget: String, parent: String },
    /// More budgets above each other than there may be.
    TooDeep { budget: String, limit: usize },
    /// Another budget is below the one that is to go.
    HasChildren { budget: String, child: String },
    /// The budget was redefined while this waited.
    Redefined { budget: String },
}

impl From<BudgetError> for crate::error::Error {
    fn from(error: BudgetError) -> Self {
        Self::Capability(Box::new(error))
    }
}

/// Names in a message, not too many of them.
fn list(names: &[String]) -> String {
    let shown: Vec<_> = names
        .iter()
        .take(NAMED)
        .map(|name| format!("\"{name}\""))
        .collect();
    match names.len().saturating_sub(NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

impl Report for BudgetError {
    fn report(self: Box<Self>) -> ErrorReport {
        use PgSqlErrorCode as Code;
        let new = |code, message: String| ErrorReport::new(code, message, function_name!());
        match *self {
            Self::Unknown { budget } => new(
                Code::ERRCODE_UNDEFINED_OBJECT,
                format!("budget \"{budget}\" does not exist"),
            )
            .set_hint("state_budget_define() makes budgets."),
            Self::UnknownAgents { budget, agents } => new(
                Code::ERRCODE_UNDEFINED_OBJECT,
                format!("budget \"{budget}\" has no agent {}", list(&agents)),
            )
            .set_hint("state_budget_define() names the agents of a budget."),
            Self::UnknownHold { hold } => new(
                Code::ERRCODE_UNDEFINED_OBJECT,
                format!("hold \"{hold}\" does not exist"),
            ),
            Self::NoRoom {
                budget,
                agent,
                left,
                asked,
                currency,
            } => new(
                Code::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                match agent {
                    Some(agent) => {
                        format!("agent \"{agent}\" of budget \"{budget}\" has not so much left")
                    }
                    None => format!("budget \"{budget}\" has not so much left"),
                },
            )
            .set_detail(format!("{left} {currency} left, {asked} asked for."))
            .set_hint("What is held counts until it is settled, voided or expires."),
            Self::NoPrice { budget, agent } => new(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("agent \"{agent}\" of budget \"{budget}\" has no price above 0"),
            )
            .set_hint("Say how much, or give the agent a price with state_budget_define()."),
            Self::OtherHold { hold, difference } => new(
                Code::ERRCODE_DUPLICATE_OBJECT,
                format!("hold \"{hold}\" exists already, with another {difference}"),
            )
            .set_hint("The same hold can be asked for again with the same arguments only."),
            Self::OtherCost { budget, id } => new(
                Code::ERRCODE_DUPLICATE_OBJECT,
                format!("cost \"{id}\" of budget \"{budget}\" was recorded already, with other values"),
            )
            .set_hint("The same cost can be recorded again with the same values only, which charges nothing."),
            Self::Settled {
                hold,
                actual,
                asked,
            } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("hold \"{hold}\" is settled with {actual}"),
            )
            .set_detail(format!("It was to be settled with {asked}."))
            .set_hint("state_budget_record_costs() charges what comes later."),
            Self::HoldEnded {
                hold,
                status,
                wanted,
            } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("hold \"{hold}\" is {status}, and cannot be {wanted}"),
            ),
            Self::Expired { hold, at } => new(
                Code::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("hold \"{hold}\" has expired"),
            )
            .set_detail(format!("Its time was over at {}.", sys::timestamp_text(at)))
            .set_hint("Reserve anew. A cost can still be settled."),
            Self::Currency {
                what,
                currency,
                other,
            } => new(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("{what} is in {currency}, not in {other}"),
            )
            .set_hint("A budget has one currency, which is that of the budgets above it."),
            Self::InUse { budget, what } => new(
                Code::ERRCODE_OBJECT_IN_USE,
                format!("{what} of budget \"{budget}\" cannot change while money is spent or held in it"),
            )
            .set_hint("Define another budget, and let this one run out."),
            Self::Held { budget } => new(
                Code::ERRCODE_OBJECT_IN_USE,
                format!("something is held in budget \"{budget}\""),
            )
            .set_hint("Settle or void what state_budget_holds shows, or wait until it expires."),
            Self::Circle { budget, parent } => new(
                Code::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("budget \"{budget}\" would be above itself: \"{parent}\" is below it"),
            ),
            Self::TooDeep { budget, limit } => new(
                Code::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
                format!("budget \"{budget}\" would have more than {limit} budgets above each other"),
            ),
            Self::HasChildren { budget, child } => new(
                Code::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
                format!("budget \"{budget}\" is above budget \"{child}\""),
            )
            .set_hint("Drop the budgets below it first."),
            Self::Redefined { budget } => new(
                Code::ERRCODE_T_R_SERIALIZATION_FAILURE,
                format!("budget \"{budget}\" was redefined by another transaction"),
            )
            .set_hint("Retry the transaction."),
        }
    }
}
