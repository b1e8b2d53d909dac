//! The expression of a watch: which keys a row names.
//!
//! An expression is kept as text, and compiled for each relation whose rows it is asked about, a partition being one
//! of its own. What is compiled lives until the relation or a function changes.
//!
//! It may call functions that are IMMUTABLE and belong to the server or to a superuser, and no others: it runs in the
//! transactions of whoever changes a row.

use super::error::DerivedError;
use super::relations;
use super::settings::Fixed;
use super::walk::{Walked, is_built_in, shown, volatility};
use crate::error::{Error, Result};
use crate::store::{Connection, Statement};
use crate::{call, sys};
use pgrx::pg_sys::{self, Oid};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::rc::Rc;

/// Functions and operators are found in these schemas only: the text of an expression names all others.
const SEARCH_PATH: &CStr = c"pg_catalog, pg_temp";

thread_local! {
    /// Counts what may have changed an expression.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    /// The relations that expressions were compiled for. Of others no change counts.
    static RELATIONS: RefCell<Vec<Oid>> = const { RefCell::new(Vec::new()) };
    static COMPILED: RefCell<Known> = RefCell::default();
}

/// What was compiled, by the trigger that it belongs to, up to a count of changes.
#[derive(Default)]
struct Known {
    changes: u64,
    compiled: HashMap<Oid, Option<Rc<Keys>>>,
}

/// Registers the callbacks.
pub fn init() {
    // SAFETY: static callbacks, registered once per process (or once before the fork).
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::from(0usize));
        pg_sys::CacheRegisterSyscacheCallback(
            pg_sys::SysCacheIdentifier::PROCOID as i32,
            Some(function_changed),
            pg_sys::Datum::from(0usize),
        );
    }
}

unsafe extern "C-unwind" fn relation_changed(_: pg_sys::Datum, relation: Oid) {
    let concerned = relation == pg_sys::InvalidOid
        || RELATIONS.with(|known| match known.try_borrow() {
            Ok(known) => known.contains(&relation),
            // It is being added to.
            Err(_) => true,
        });
    if concerned {
        CHANGES.set(CHANGES.get().wrapping_add(1));
    }
}

unsafe extern "C-unwind" fn function_changed(_: pg_sys::Datum, _: i32, _: u32) {
    CHANGES.set(CHANGES.get().wrapping_add(1));
}

/// A compiled expression.
pub struct Keys {
    state: *mut pg_sys::ExprState,
    context: *mut pg_sys::ExprContext,
    memory: pg_sys::MemoryContext,
    /// Whether it gives an array of keys.
    is_array: bool,
    /// What writes a key.
    output: Box<pg_sys::FmgrInfo>,
    /// How the elements of the array are laid out.
    element: (Oid, i16, bool, std::ffi::c_char),
}

impl Drop for Keys {
    fn drop(&mut self) {
        // SAFETY: made by `compile`, in its own memory, and used by nobody any more.
        unsafe { pg_sys::MemoryContextDelete(self.memory) };
    }
}

/// What the expression of a trigger is for a relation; `None` if it cannot be compiled any more.
pub fn of_trigger(trigger: Oid, relation: Oid, expression: &CStr) -> Option<Rc<Keys>> {
    let known = COMPILED.with_borrow_mut(|known| {
        if known.changes != CHANGES.get() {
            known.compiled.clear();
            known.changes = CHANGES.get();
        }
        known.compiled.get(&trigger).cloned()
    });
    if let Some(known) = known {
        return known;
    }
    RELATIONS.with_borrow_mut(|relations| {
        if !relations.contains(&relation) {
            relations.push(relation);
        }
    });
    let compiled = try_compile(relation, expression).ok().map(Rc::new);
    COMPILED.with_borrow_mut(|known| known.compiled.insert(trigger, compiled.clone()));
    compiled
}

/// The same, with what is wrong with it.
pub fn try_compile(relation: Oid, expression: &CStr) -> std::result::Result<Keys, String> {
    crate::subtransaction::survive_failure(|| compile(relation, expression))
}

/// Compiles an expression over the columns of a relation.
///
/// # Errors
/// `22023` for one that is not allowed, the server's own for one that cannot be read.
pub fn compile(relation: Oid, expression: &CStr) -> Result<Keys> {
    let _settings = Fixed::set(SEARCH_PATH);
    let connection = Connection::open()?;
    let statement = statement(&connection, relation, expression)?;
    // SAFETY: the statement lives until the expression is copied.
    unsafe { Keys::of(relation, analysed(&statement, relation)?) }
}

/// An expression as it is read under the current `search_path`, written so that it means the same under ours.
///
/// # Errors
/// As for [`compile`].
pub fn canonical(relation: Oid, expression: &[u8]) -> Result<CString> {
    let connection = Connection::open()?;
    let expression = CString::new(expression).unwrap_or_default();
    let statement = statement(&connection, relation, &expression)?;
    let analysed = analysed(&statement, relation)?;
    let _settings = Fixed::set(SEARCH_PATH);
    // SAFETY: the expression is one over columns of the relation, of which there is one in the range table; the text
    // is NUL-terminated and copied.
    let written = unsafe {
        let context = pg_sys::deparse_context_for(pg_sys::get_rel_name(relation), relation);
        let written = pg_sys::deparse_expression(analysed, context, false, false);
        CStr::from_ptr(written).to_owned()
    };
    Ok(written)
}

fn statement(connection: &Connection, relation: Oid, expression: &CStr) -> Result<Statement> {
    let name = relations::quoted_name(relation);
    // The line ends a comment that the expression may end with.
    let parts = [
        &b"SELECT ("[..],
        expression.to_bytes(),
        b"\n) FROM ONLY ",
        &name,
    ];
    let sql = CString::new(parts.concat()).unwrap_or_default();
    Statement::of_text(connection, &sql, &[])
}

/// The expression of a statement made by [`statement`].
fn analysed(statement: &Statement, relation: Oid) -> Result<*mut pg_sys::Node> {
    let refused = |fault: String, hint: Option<&'static str>| {
        Err(Error::from(DerivedError::Keys {
            relation: relations::relation_name(relation),
            fault,
            hint,
        }))
    };
    const PLAIN: Option<&str> = Some("They are an expression over the columns of one row.");
    let Some((query, _)) = statement.query() else {
        return refused("are not one expression".to_owned(), PLAIN);
    };
    // SAFETY: the query was analysed just now; its lists hold what their names say.
    unsafe {
        let query = &*query;
        let mut tables = sys::pointers::<pg_sys::RangeTblEntry>(query.rtable);
        let mut targets = sys::pointers::<pg_sys::TargetEntry>(query.targetList);
        let is_the_one =
            matches!((tables.next(), tables.next()), (Some(it), None) if (*it).relid == relation);
        let (true, Some(target), None) = (is_the_one, targets.next(), targets.next()) else {
            return refused("are not one expression".to_owned(), PLAIN);
        };
        let from = query.jointree.as_ref();
        let is_plain = from.is_some_and(|from| from.quals.is_null())
            && query.commandType == pg_sys::CmdType::CMD_SELECT
            && [
                query.groupClause,
                query.sortClause,
                query.distinctClause,
                query.rowMarks,
                query.cteList,
            ]
            .iter()
            .all(|list| list.is_null());
        if query.hasSubLinks {
            return refused("hold a subquery".to_owned(), PLAIN);
        }
        if query.hasAggs || query.hasWindowFuncs {
            return refused("hold an aggregate or a window function".to_owned(), PLAIN);
        }
        if query.hasTargetSRFs {
            return refused("return a set".to_owned(), Some("Return an array."));
        }
        if !is_plain {
            return refused("are not one expression".to_owned(), PLAIN);
        }
        let expression = (*target).expr.cast::<pg_sys::Node>();
        let walked = Walked::expression(expression);
        if let Some(function) = walked.of_session().or(walked.changing()) {
            return refused(format!("call {function}"), PLAIN);
        }
        let fault = walked
            .functions
            .iter()
            .find_map(|function| function_fault(*function));
        if let Some((fault, hint)) = fault {
            return refused(fault, Some(hint));
        }
        let of = output_type(pg_sys::exprType(expression));
        if volatility(of.output) != b'i' {
            return refused(
                "are of a type that settings write differently".to_owned(),
                Some(
                    "Cast them to text in a way that depends on no setting, or name another column.",
                ),
            );
        }
        Ok(expression)
    }
}

/// What is wrong with a function that an expression calls.
fn function_fault(function: Oid) -> Option<(String, &'static str)> {
    if volatility(function) != b'i' {
        return Some((
            format!("call {}, which is not immutable", shown(function)),
            "What they give must depend on the row only.",
        ));
    }
    if !is_built_in(function) && !relations::belongs_to_superuser(function) {
        return Some((
            format!("call {}, which belongs to a user", shown(function)),
            "They run as whoever changes a row, so they call functions of the server and of superusers only.",
        ));
    }
    None
}

/// How a value of a type becomes keys.
struct OutputType {
    /// The element type, if it is an array.
    element: Option<Oid>,
    /// The function that writes one key.
    output: Oid,
}

fn output_type(of: Oid) -> OutputType {
    // SAFETY: look-ups in the system caches.
    unsafe {
        let element = pg_sys::get_element_type(of);
        let element = (element != pg_sys::InvalidOid).then_some(element);
        let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
        pg_sys::getTypeOutputInfo(element.unwrap_or(of), &mut output, &mut is_varlena);
        OutputType { element, output }
    }
}

impl Keys {
    /// # Safety
    /// `expression` is an analysed one over columns of the relation, which is number 1 in its range table.
    unsafe fn of(relation: Oid, expression: *mut pg_sys::Node) -> Result<Self> {
        // SAFETY: the caller's promise. All that is made lives in memory of its own, which goes with the value, or,
        // on an error, with the transaction; it is moved to the session's memory last.
        unsafe {
            let memory = pg_sys::AllocSetContextCreateInternal(
                pg_sys::CurTransactionContext,
                c"state_cache keys".as_ptr(),
                pg_sys::ALLOCSET_SMALL_MINSIZE as usize,
                pg_sys::ALLOCSET_SMALL_INITSIZE as usize,
                pg_sys::ALLOCSET_SMALL_MAXSIZE as usize,
            );
            let outer = pg_sys::MemoryContextSwitchTo(memory);
            let copy = pg_sys::copyObjectImpl(expression.cast()).cast::<pg_sys::Expr>();
            let planned = pg_sys::expression_planner(copy);
            let state = pg_sys::ExecInitExpr(planned, std::ptr::null_mut());
            let context = pg_sys::CreateStandaloneExprContext();
            let of = output_type(pg_sys::exprType(expression));
            let mut output = Box::<pg_sys::FmgrInfo>::default();
            pg_sys::fmgr_info_cxt(of.output, &mut *output, memory);
            let (mut length, mut by_value, mut align) = (0_i16, false, 0);
            let element = of.element.unwrap_or(pg_sys::InvalidOid);
            if of.element.is_some() {
                pg_sys::get_typlenbyvalalign(element, &mut length, &mut by_value, &mut align);
            }
            pg_sys::MemoryContextSwitchTo(outer);
            pg_sys::MemoryContextSetParent(memory, pg_sys::TopMemoryContext);
            let _ = relation;
            Ok(Self {
                state,
                context,
                memory,
                is_array: of.element.is_some(),
                output,
                element: (element, length, by_value, align),
            })
        }
    }

    /// Calls `each` for the keys of a row; `None` stands for all of the class.
    ///
    /// # Safety
    /// The slot holds a row of the relation that the expression was compiled for.
    ///
    /// # Errors
    /// Those of `each`; the server raises those of the expression.
    pub unsafe fn each(
        &self,
        slot: *mut pg_sys::TupleTableSlot,
        mut each: impl FnMut(Option<&[u8]>) -> Result<()>,
    ) -> Result<()> {
        // SAFETY: the caller's promise. What is allocated goes when the memory of one row is emptied; an error that
        // jumps over this leaves it to the next row.
        unsafe {
            let row = (*self.context).ecxt_per_tuple_memory;
            pg_sys::MemoryContextReset(row);
            (*self.context).ecxt_scantuple = slot;
            let outer = pg_sys::MemoryContextSwitchTo(row);
            let mut is_null = false;
            let value = match (*self.state).evalfunc {
                Some(evaluate) => evaluate(self.state, self.context, &mut is_null),
                None => {
                    is_null = true;
                    pg_sys::Datum::from(0usize)
                }
            };
            let outcome = match (is_null, self.is_array) {
                (true, _) => each(None),
                (false, false) => each(Some(self.written(value))),
                (false, true) => self.each_element(value, &mut each),
            };
            pg_sys::MemoryContextSwitchTo(outer);
            (*self.context).ecxt_scantuple = std::ptr::null_mut();
            outcome
        }
    }

    /// # Safety
    /// The value is one that the output function takes.
    unsafe fn written<'a>(&self, value: pg_sys::Datum) -> &'a [u8] {
        // SAFETY: the caller's promise; the text is NUL-terminated, in memory of the row.
        unsafe {
            let output = std::ptr::from_ref(&*self.output).cast_mut();
            CStr::from_ptr(pg_sys::OutputFunctionCall(output, value)).to_bytes()
        }
    }

    /// # Safety
    /// The value is an array of elements that the output function takes.
    unsafe fn each_element(
        &self,
        value: pg_sys::Datum,
        each: &mut impl FnMut(Option<&[u8]>) -> Result<()>,
    ) -> Result<()> {
        let (element, length, by_value, align) = self.element;
        let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        // SAFETY: the caller's promise; as many values and nulls as the count says.
        unsafe {
            let array = pg_sys::pg_detoast_datum(value.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            pg_sys::deconstruct_array(
                array,
                element,
                length.into(),
                by_value,
                align,
                &mut values,
                &mut nulls,
                &mut count,
            );
            for n in 0..usize::try_from(count).unwrap_or(0) {
                let is_null: bool = *nulls.add(n);
                let key = (!is_null).then(|| self.written(*values.add(n)));
                each(key)?;
            }
        }
        Ok(())
    }
}

/// Whether a type is known to write a text as it is written; false says nothing.
pub fn is_plainly_canonical(of: Oid, key: &[u8]) -> bool {
    match of {
        pg_sys::TEXTOID | pg_sys::VARCHAROID => true,
        // Below ten digits every number fits into an integer, below 19 into a bigint.
        pg_sys::INT4OID => key.len() < 10 && is_plain_number(key),
        pg_sys::INT8OID => key.len() < 19 && is_plain_number(key),
        pg_sys::UUIDOID => is_plain_uuid(key),
        _ => false,
    }
}

/// Digits without a zero in front.
fn is_plain_number(key: &[u8]) -> bool {
    key == b"0"
        || key.first() != Some(&b'0') && !key.is_empty() && key.iter().all(u8::is_ascii_digit)
}

/// Small hexadecimal digits, in groups of 8, 4, 4, 4 and 12.
fn is_plain_uuid(key: &[u8]) -> bool {
    key.len() == 36
        && key.iter().enumerate().all(|(n, byte)| match n {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        })
}

/// Whether a type writes a text as it is written. Raises the type's own error for a text that it does not take.
pub fn is_canonical(of: Oid, key: &[u8]) -> bool {
    if [pg_sys::TEXTOID, pg_sys::VARCHAROID].contains(&of) {
        return true;
    }
    // SAFETY: look-ups in the system caches, and the functions that they name; texts are NUL-terminated.
    unsafe {
        let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
        pg_sys::getTypeInputInfo(of, &mut input, &mut parameter);
        let text = call::cstring_datum(key).cast_mut_ptr::<std::ffi::c_char>();
        let value = pg_sys::OidInputFunctionCall(input, text, parameter, -1);
        let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
        pg_sys::getTypeOutputInfo(of, &mut output, &mut is_varlena);
        let written = pg_sys::OidOutputFunctionCall(output, value);
        CStr::from_ptr(written).to_bytes() == key
    }
}
