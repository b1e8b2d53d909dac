//! What a session knows of a derived class: the query, what the query depends on, and how far L1 may answer for it.
//!
//! What is known is good for one generation of the definitions' mark; the header of the room says why that suffices.

use super::error::DerivedError;
use super::keys;
use super::relations;
use super::settings::Fixed;
use super::unattended;
use super::walk::{Walked, is_built_in, shown, volatility};
use super::watch::{self, Watching};
use crate::catalog::{self, Catalog, Class, Source};
use crate::error::{Error, Result, text};
use crate::shared::{self, Tag};
use crate::store::{Connection, Statement};
use crate::sys;
use once_cell::unsync::OnceCell;
use pgrx::pg_sys::{self, CmdType, Oid};
use std::cell::RefCell;
use std::rc::Rc;

/// Roles of which one session remembers what they may do; with more it starts over.
const ROLES: usize = 64;

/// A derived class as it is defined now.
pub struct Definition {
    /// The class.
    pub class: Rc<Class>,
    /// The query.
    pub statement: Statement,
    /// The definitions' generation that this was found out under; `None` if the mark was raised, or there is none.
    generation: Option<u64>,
    /// What the query depends on.
    walked: Walked,
    /// Why L1 may not answer for longer than `cache_ttl`; nothing for an exact class.
    pub inexact: Vec<String>,
    /// Whether row-level security is switched on for a relation that the query reads.
    pub row_security: bool,
    /// Whether a relation has partitions or children.
    pub has_children: bool,
    /// Whether the query calls functions of ours that read states: what they read is noted.
    pub reads_states: bool,
    /// Whether a function may read what nobody knows, as its caller: what it finds is that role's alone.
    pub per_role: bool,
    /// Whether it calls functions that are neither the server's nor ones of ours that read states.
    calls_users: bool,
    /// Roles, and whether each has the privileges that the query needs.
    may_read: RefCell<Vec<(Oid, bool)>>,
}

/// What is known of a class.
#[derive(Default)]
struct Slot {
    definition: RefCell<Option<Rc<Definition>>>,
    /// The tag of all its documents.
    tag: OnceCell<Option<&'static Tag>>,
}

/// The tag of all documents of a class; `None` without shared memory.
pub fn class_tag(catalog: &Catalog, class: &Class) -> Option<&'static Tag> {
    let tag = || shared::class_tag(catalog.database, catalog.incarnation, &class.name);
    *class.attached::<Slot>().tag.get_or_init(tag)
}

/// What is known already of a class that is good for this generation of the definitions' mark. While the mark is
/// raised anything is.
pub fn known(class: &Class, generation: Option<u64>) -> Option<Rc<Definition>> {
    // What runs for nobody is looked at anew: the header of `unattended` says why.
    if unattended::is_unattended() {
        return None;
    }
    let known = class.attached::<Slot>().definition.borrow();
    let is_good = |known: &&Rc<Definition>| known.generation == generation || generation.is_none();
    known.as_ref().filter(is_good).cloned()
}

/// The definition of a class, which is a derived one, under this generation of the definitions' mark; `None` if that
/// is raised.
///
/// # Errors
/// The server's own if the query cannot be read any more; `40001` if the class is no derived one any more.
pub fn of(
    catalog: &Rc<Catalog>,
    class: &Rc<Class>,
    generation: Option<u64>,
) -> Result<Rc<Definition>> {
    if let Some(known) = known(class, generation) {
        return Ok(known);
    }
    // What was sent before the mark was lowered must be taken in before anything is looked at.
    let catalog = catalog::renewed(catalog)?;
    let class = catalog.class(&class.name)?;
    let definition = Rc::new(read(&catalog, &class, generation)?);
    let slot = class.attached::<Slot>();
    slot.definition.replace(Some(Rc::clone(&definition)));
    Ok(definition)
}

/// Finds out what a class depends on.
///
/// # Errors
/// As for [`of`].
pub fn read(catalog: &Catalog, class: &Rc<Class>, generation: Option<u64>) -> Result<Definition> {
    let Some(source) = &class.source else {
        return Err(DerivedError::Redefined {
            class: text(&class.name),
        }
        .into());
    };
    if let Some(tags) = shared::tags() {
        tags.note_use();
    }
    let (statement, walked) = prepare(class, source)?;
    let mut definition = Definition {
        class: Rc::clone(class),
        statement,
        generation,
        inexact: Vec::new(),
        row_security: false,
        has_children: false,
        reads_states: false,
        per_role: false,
        calls_users: false,
        may_read: RefCell::default(),
        walked,
    };
    let walked = &definition.walked;
    definition.inexact.extend(
        (walked.changing())
            .map(|function| format!("the answer of {function} changes although no table does")),
    );
    let is_users = |function: Oid| !relations::reads_states(catalog, function);
    definition.calls_users = walked.foreign().any(is_users);
    for function in walked.foreign().filter(|it| volatility(*it) != b'i') {
        if relations::reads_states(catalog, function) {
            definition.reads_states = true;
            continue;
        }
        definition.per_role = true;
        let reason = format!("nobody knows what {} reads", shown(function));
        definition.inexact.push(reason);
    }
    for relation in walked.relations.iter().copied() {
        let name = relations::relation_name(relation);
        let all = sys::with_inheritors(relation);
        definition.has_children |= all.len() > 1;
        definition.row_security |= all.iter().any(|one| relations::has_row_security(*one));
        if let Some(kind) = relations::unwatchable(catalog, relation) {
            definition.inexact.push(format!("{name} is {kind}"));
            continue;
        }
        match watch::watching(catalog, &class.name, &all) {
            Watching::Whole => {}
            Watching::Nothing => definition.inexact.push(format!("{name} is not watched")),
            Watching::Broken(reason) => definition.inexact.push(reason),
        }
    }
    Ok(definition)
}

/// Prepares a query and walks through it.
fn prepare(class: &Class, source: &Source) -> Result<(Statement, Walked)> {
    let refused = |fault: &str, hint: Option<&'static str>| {
        Error::from(DerivedError::Source {
            class: text(&class.name),
            fault: fault.to_owned(),
            hint,
        })
    };
    const ONE: Option<&str> =
        Some("It is one SELECT that gives one jsonb, with the key as $1, a text.");
    let _settings = Fixed::set(&source.search_path);
    let connection = Connection::open()?;
    let statement = Statement::of_text(&connection, &source.query, &[pg_sys::TEXTOID])?;
    let Some((query, columns)) = statement.query() else {
        return Err(refused("is not one query", ONE));
    };
    // SAFETY: the query was analysed and rewritten just now, and lives as long as the statement.
    let walked = unsafe {
        let query = &*query;
        if query.commandType != CmdType::CMD_SELECT || query.hasModifyingCTE {
            return Err(refused("is not a SELECT, or changes something", ONE));
        }
        let is_document = !columns.is_null()
            && (*columns).natts == 1
            && pg_sys::SPI_gettypeid(columns, 1) == pg_sys::JSONBOID;
        if !is_document {
            return Err(refused("does not give one column of type jsonb", ONE));
        }
        Walked::query(std::ptr::from_ref(query).cast_mut())
    };
    if walked.locks_rows {
        return Err(refused(
            "locks rows",
            Some("Leave FOR UPDATE and FOR SHARE out."),
        ));
    }
    let volatile = walked.volatile();
    if !volatile.is_empty() {
        let fault = format!("calls volatile functions: {}", volatile.join(", "));
        return Err(refused(
            &fault,
            Some("Its answer must depend on tables and the key only."),
        ));
    }
    if let Some(function) = walked.of_session() {
        let fault = format!("calls {function}, which answers each session differently");
        return Err(refused(
            &fault,
            Some("Its answer must depend on tables and the key only."),
        ));
    }
    let temporary = walked
        .relations
        .iter()
        .find(|relation| relations::is_temporary(**relation));
    if let Some(relation) = temporary {
        let fault = format!(
            "reads the temporary table {}",
            relations::relation_name(*relation)
        );
        return Err(refused(&fault, None));
    }
    Ok((statement, walked))
}

impl Definition {
    /// The class's source.
    pub fn source(&self) -> Option<&Source> {
        self.class.source.as_ref()
    }

    /// Whether an entry is what the query would give, and not only what the query gave.
    pub fn is_exact(&self) -> bool {
        self.inexact.is_empty()
    }

    /// Whether L1 may keep documents of the class at all.
    pub fn may_be_kept(&self) -> bool {
        !self.row_security && (self.is_exact() || self.class.cache_ttl.is_some())
    }

    /// Whether the current role has the privileges that the query needs. Where it has them in other ways than this
    /// looks for (for single columns), the query itself answers.
    pub fn may_read(&self, catalog: &Catalog) -> bool {
        if self.reads_states && !catalog.access().l1 {
            return false;
        }
        let role = sys::current_user();
        let known = self.may_read.borrow();
        if let Some((_, may)) = known.iter().find(|(of, _)| *of == role) {
            return *may;
        }
        drop(known);
        let tables = self.walked.privileges.iter();
        let mut functions = self.walked.functions.iter();
        let may = tables
            .copied()
            .all(|table| relations::may_select(table, role))
            && functions
                .all(|function| is_built_in(*function) || relations::may_execute(*function, role));
        let mut known = self.may_read.borrow_mut();
        if known.len() >= ROLES {
            known.clear();
        }
        known.push((role, may));
        may
    }

    /// Whether the query is to be run: for nobody none is that calls functions of users.
    pub fn is_to_be_run(&self) -> bool {
        !unattended::is_unattended() || !self.calls_users
    }

    /// Whether that can be told at a glance: a key that is a plain number, or a UUID.
    pub fn is_plainly_canonical(&self, key: &[u8]) -> bool {
        let casts = self.walked.casts.iter();
        casts.copied().all(|of| keys::is_plainly_canonical(of, key))
    }

    /// Whether a key is written as the types write it to which the query casts it. The cast raises its own error for
    /// a key that is none.
    pub fn is_canonical(&self, key: &[u8]) -> bool {
        let casts = self.walked.casts.iter();
        casts.copied().all(|of| keys::is_canonical(of, key))
    }

    /// The relations that the query reads.
    pub fn relations(&self) -> &[Oid] {
        &self.walked.relations
    }
}
