//! Reading a document of a derived class: hit, fill, or the query itself. The header of the room says when which.

use super::definition::{self, Definition};
use super::error::DerivedError;
use super::flight::{Flight, Wait};
use super::settings::Fixed;
use crate::cache::StateRef;
use crate::cache::computed::{is_seen_by_caller, under_fresh_snapshot};
use crate::cache::forms::Document;
use crate::cache::found::{Form, Taken};
use crate::cache::noting::{self, Noting, Within};
use crate::cache::visibility::{Moment, has_moment, own_full_xid};
use crate::call::varlena_datum;
use crate::counters::{Counter, Timer};
use crate::error::{Error, Result, text};
use crate::error_context;
use crate::shared::{self, Fate, Key, SharedL1};
use crate::store::Connection;
use crate::transaction::{self, definitions};
use crate::{settings, sys};
use pgrx::pg_sys;
use state_cache_l1::{ClassId, FillToken, NewEntry, Refused};
use state_cache_memory::copy;
use std::cell::RefCell;
use std::rc::Rc;

/// What an entry says of a document that there is not, in the place of the version.
const ABSENT: i64 = 0;
/// What it says of one that there is.
const PRESENT: i64 = 1;
/// What an entry holds of a document that there is not: an empty object in binary form, which every form can read.
const NO_DOCUMENT: [u8; 4] = 0x2000_0000_u32.to_ne_bytes();

thread_local! {
    /// The documents that are being computed, outermost first.
    static COMPUTING: RefCell<Vec<u128>> = const { RefCell::new(Vec::new()) };
}

/// A document that is being computed, for as long as the value lives.
struct Computing(usize);

impl Computing {
    /// # Errors
    /// `55000` if it is being computed already.
    fn begin(state: &StateRef<'_>) -> Result<Self> {
        COMPUTING.with_borrow_mut(|computing| {
            if computing.contains(&state.id()) {
                return Err(DerivedError::Recursion {
                    document: state.shown(),
                }
                .into());
            }
            computing.push(state.id());
            Ok(Self(computing.len() - 1))
        })
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        // With those within, which an error may have left.
        COMPUTING.with_borrow_mut(|computing| computing.truncate(self.0));
    }
}

/// The generations that a read goes by, all of whose marks were quiet.
pub struct Seen {
    token: FillToken,
    class: u64,
    definitions: u64,
    /// How often entries of the class were evicted by request.
    evictions: u64,
}

impl Seen {
    /// Those of now; `None` while a mark is raised, or without shared memory.
    pub fn now(key: &Key<'_>, state: &StateRef<'_>) -> Option<Self> {
        let class = definition::class_tag(&state.catalog, &state.class)?;
        let definitions = shared::tags()?.definitions(state.catalog.database);
        Some(Self {
            token: shared::l1()?.fill_token(key)?,
            class: class.mark.quiet_generation()?,
            definitions: definitions.mark.quiet_generation()?,
            evictions: class.evictions(),
        })
    }

    /// The generation of the definitions.
    pub fn definitions(&self) -> u64 {
        self.definitions
    }

    /// What an entry says of the generations that it was filled under, for whom, and from which states.
    fn digest(&self, definition: &Definition, noted: &[u8]) -> u64 {
        let role = match definition.per_role {
            true => sys::current_user().to_u32(),
            false => 0,
        };
        let parts = [self.class, self.definitions, u64::from(role)].map(u64::to_ne_bytes);
        let of_reads = match noted {
            [] => 0,
            noted => state_cache_document::hash(noted) as u64,
        };
        state_cache_document::hash(parts.as_flattened()) as u64 ^ of_reads
    }
}

/// Reads a document; `None` if the source gives none.
///
/// # Errors
/// Those of the source, with class and key in their context.
pub fn read<F: Form>(state: &StateRef<'_>, form: &mut F) -> Result<Option<F::Output>> {
    if sys::is_parallel_worker() {
        return Err(Error::ParallelWorker);
    }
    noting::begin_document();
    let timer = Timer::start();
    let key = document_key(state);
    let seen = Seen::now(&key, state);
    let generation = seen.as_ref().map(|seen| seen.definitions);
    let definition = match definition::known(&state.class, generation) {
        Some(known) => known,
        None => named(state, || {
            definition::of(&state.catalog, &state.class, generation)
        })?,
    };
    let counters = Rc::clone(&definition.class.counters);
    let reader = Reader::new(state, &definition, key);
    let (counter, time, found) = match reader.bypass(seen.is_some()) {
        Some(reason) => (reason, Counter::L3ReadTime, reader.by_query(form)?),
        None => reader.by_cache(seen, form)?,
    };
    counters.count(counter);
    timer.stop(&counters, time);
    Ok(found)
}

/// The document as L1 knows it.
pub fn document_key<'a>(state: &'a StateRef<'_>) -> Key<'a> {
    let catalog = &state.catalog;
    shared::derived_key(
        catalog.database,
        catalog.incarnation,
        &state.class.name,
        state.key,
    )
}

/// What a read comes to: its counter, that of its time, and the document.
type Answer<T> = Result<(Counter, Counter, Option<T>)>;

/// One document, as one session reads it.
pub struct Reader<'a> {
    state: &'a StateRef<'a>,
    definition: &'a Rc<Definition>,
    key: Key<'a>,
}

/// Why an entry cannot answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// There is none.
    NotThere,
    /// What it depends on is not what it was.
    Changed,
    /// Its time is over.
    Expired,
}

/// What was noted of a document, and when the first of the states expires that it was computed from.
struct Depends {
    noted: Vec<u8>,
    expires_at: i64,
}

/// What L1 has.
enum Look<T> {
    /// This answer, and what a document depends on that it is read within.
    Hit(Option<T>, Depends),
    /// The same, beyond its age.
    Stale(Option<T>),
    /// An entry that was filled after the snapshot was taken.
    Newer,
    /// An entry for others: this role, or this transaction, must not be answered by a document within.
    Barred(Counter),
    /// Nothing.
    Miss(Gone),
    /// An entry of which nothing can be made.
    Failed(Error),
}

impl<'a> Reader<'a> {
    /// A document of a class that is defined like this.
    pub fn new(state: &'a StateRef<'a>, definition: &'a Rc<Definition>, key: Key<'a>) -> Self {
        Self {
            state,
            definition,
            key,
        }
    }

    /// What L1 would answer now and would not let go by age; the inner `None` for an absent document.
    ///
    /// # Errors
    /// `53200`.
    pub fn peek(&self, seen: &Seen) -> Result<Option<Option<Vec<u8>>>> {
        let (Some(l1), true) = (shared::l1(), self.definition.is_exact()) else {
            return Ok(None);
        };
        if self.bypass(true).is_some() {
            return Ok(None);
        }
        match self.look(l1, seen, &mut Document)? {
            Look::Hit(found, _) => Ok(Some(found)),
            Look::Failed(error) => Err(error),
            Look::Stale(_) | Look::Newer | Look::Barred(_) | Look::Miss(_) => Ok(None),
        }
    }

    /// Why L1 is not asked; `None` if it is.
    fn bypass(&self, is_quiet: bool) -> Option<Counter> {
        let definition = self.definition;
        let has_id = || own_full_xid() != 0;
        if shared::l1().is_none()
            || !settings::enabled()
            || sys::recovery_in_progress()
            || !has_moment(sys::active_snapshot())
        {
            return Some(Counter::BypassOff);
        }
        if sys::isolation_is_serializable() {
            return Some(Counter::BypassSerializable);
        }
        if transaction::has_touched()
            || definitions::has_changed()
            || definition.has_children && has_id()
            || (definition.per_role || definition.reads_states) && transaction::has_changes()
            // The server fires no triggers for statements there, only for rows.
            || has_id() && is_logical_worker()
        {
            return Some(Counter::BypassOwn);
        }
        if definition.row_security {
            return Some(Counter::BypassPrivileges);
        }
        if !definition.may_be_kept() {
            return Some(Counter::Misses);
        }
        if !definition.may_read(&self.state.catalog) {
            return Some(Counter::BypassPrivileges);
        }
        // What such a transaction reads of behind classes is noted, for the conflicts of its own changes.
        if definition.reads_states && sys::isolation_uses_transaction_snapshot() {
            return Some(Counter::BypassSnapshot);
        }
        if !is_quiet {
            return Some(Counter::BypassWriters);
        }
        let key = self.state.key;
        if !definition.is_plainly_canonical(key)
            && !named(self.state, || definition.is_canonical(key))
        {
            return Some(Counter::Misses);
        }
        None
    }

    /// Answers from L1, or fills it, or waits for who does.
    fn by_cache<F: Form>(&self, seen: Option<Seen>, form: &mut F) -> Answer<F::Output> {
        let (Some(l1), Some(mut seen)) = (shared::l1(), seen) else {
            return Ok((
                Counter::BypassOff,
                Counter::L3ReadTime,
                self.by_query(form)?,
            ));
        };
        let mut wait: Option<Wait> = None;
        let mut gone = None;
        loop {
            let look = self.look(l1, &seen, form)?;
            let look = match look {
                Look::Hit(found, depends) => {
                    self.hand_on(l1, &seen, &depends)?;
                    return Ok((Counter::Hits, Counter::L1ReadTime, found));
                }
                Look::Failed(error) => return Err(error),
                Look::Barred(counter) => {
                    let found = self.by_query(form)?;
                    return Ok((counter, Counter::L3ReadTime, found));
                }
                Look::Newer => {
                    let found = self.by_query(form)?;
                    return Ok((Counter::BypassSnapshot, Counter::L3ReadTime, found));
                }
                Look::Miss(why) => {
                    gone.get_or_insert(why);
                    Look::Miss(why)
                }
                stale @ Look::Stale(_) => {
                    gone.get_or_insert(Gone::Expired);
                    stale
                }
            };
            if sys::is_in_parallel_mode() || own_full_xid() != 0 {
                self.count_miss(gone);
                return Ok((Counter::Misses, Counter::L3ReadTime, self.by_query(form)?));
            }
            if let Some(_flight) = Flight::begin(self.state) {
                // Whoever had it may have filled the entry since.
                if let Look::Hit(found, depends) = self.look(l1, &seen, form)? {
                    self.hand_on(l1, &seen, &depends)?;
                    return Ok((Counter::Hits, Counter::L1ReadTime, found));
                }
                self.count_miss(gone);
                let found = self.fill(l1, &seen, form)?;
                return Ok((Counter::Misses, Counter::L3ReadTime, found));
            }
            if let Look::Stale(found) = look {
                self.count_miss(gone);
                return Ok((Counter::Hits, Counter::L1ReadTime, found));
            }
            if wait.is_none() {
                self.definition.class.counters.count(Counter::Waits);
            }
            if !wait.get_or_insert_with(Wait::begin).on() {
                self.count_miss(gone);
                return Ok((Counter::Misses, Counter::L3ReadTime, self.by_query(form)?));
            }
            // What has changed meanwhile is to be seen.
            match Seen::now(&self.key, self.state) {
                Some(now) if now.definitions == seen.definitions => seen = now,
                _ => {
                    let found = self.by_query(form)?;
                    return Ok((Counter::BypassWriters, Counter::L3ReadTime, found));
                }
            }
        }
    }

    /// Counts why a document is not there, or past its time.
    fn count_miss(&self, gone: Option<Gone>) {
        let counter = match gone {
            None => None,
            Some(Gone::Expired) => Some(Counter::Expirations),
            Some(Gone::Changed) => Some(Counter::MissesChanged),
            Some(Gone::NotThere) => match shared::fate(self.key.id) {
                Fate::Unknown => None,
                Fate::Changed => Some(Counter::MissesChanged),
                Fate::Filled => Some(Counter::MissesEvicted),
            },
        };
        if let Some(counter) = counter {
            self.definition.class.counters.count(counter);
        }
    }

    /// Looks for an entry that may answer.
    fn look<F: Form>(&self, l1: &SharedL1, seen: &Seen, form: &mut F) -> Result<Look<F::Output>> {
        let class = &self.definition.class;
        let noted = match self.noted(l1)? {
            Ok(noted) => noted,
            Err(why) => return Ok(Look::Miss(why)),
        };
        let (info, value) = match form.take(l1, &self.key) {
            Taken::Miss => return Ok(Look::Miss(Gone::NotThere)),
            Taken::Failed(error) => return Ok(Look::Failed(error)),
            Taken::Damaged => {
                class.counters.count(Counter::Damaged);
                l1.remove_unsound(&self.key);
                return Ok(Look::Miss(Gone::NotThere));
            }
            Taken::Entry(info, value) => (info, value),
        };
        if info.stored != seen.digest(self.definition, &noted)
            && !crate::fault::leaves_out!(DerivedDigest)
        {
            return Ok(Look::Miss(Gone::Changed));
        }
        // SAFETY: L1 is asked only where the active snapshot has a moment, and not in recovery (`bypass`).
        let is_seen = || unsafe { is_seen_by_caller(&info) };
        if self.definition.is_exact() && !is_seen() && !crate::fault::leaves_out!(DerivedMoment) {
            return Ok(Look::Newer);
        }
        if let Some(counter) = self.bar(seen, &noted)? {
            return Ok(Look::Barred(counter));
        }
        // A state that it was computed from has ended.
        if self.definition.reads_states && info.expires_at <= sys::statement_timestamp() {
            return Ok(Look::Miss(Gone::Expired));
        }
        let found = match info.version {
            ABSENT => None,
            _ => Some(value?),
        };
        let expires_at = info.expires_at;
        let hit = |found| Look::Hit(found, Depends { noted, expires_at });
        let Some(ttl) = class.cache_ttl else {
            return Ok(hit(found));
        };
        let age = sys::statement_timestamp().saturating_sub(info.loaded_at);
        if age < ttl {
            return Ok(hit(found));
        }
        let serve_stale = self
            .definition
            .source()
            .and_then(|source| source.serve_stale);
        match serve_stale {
            Some(longer) if age < ttl.saturating_add(longer) => Ok(Look::Stale(found)),
            _ => Ok(Look::Miss(Gone::Expired)),
        }
    }

    /// Why the caller must not be answered by an entry that documents of these classes are part of; `None` if it may
    /// be. What bars it from this document itself [`Reader::bypass`] knows.
    fn bar(&self, seen: &Seen, noted: &[u8]) -> Result<Option<Counter>> {
        for name in noting::classes(noted) {
            let catalog = &self.state.catalog;
            let class = catalog.class(name)?;
            let inner = definition::of(catalog, &class, Some(seen.definitions))?;
            if inner.has_children && own_full_xid() != 0 {
                return Ok(Some(Counter::BypassOwn));
            }
            if !inner.may_be_kept() || !inner.may_read(catalog) {
                return Ok(Some(Counter::BypassPrivileges));
            }
        }
        Ok(None)
    }

    /// The document is the newest one as of these generations, and the one that the active snapshot sees: the
    /// document that it is read within, if there is one, depends on what it depends on.
    fn hand_on(&self, l1: &SharedL1, seen: &Seen, depends: &Depends) -> Result<()> {
        if !self.definition.is_exact() {
            return Ok(());
        }
        let within = Within {
            class: (&self.definition.class.name, seen.class),
            stripe: (
                l1.stripe_number(self.key.id) as u64,
                seen.token.stripe_generation,
            ),
            domain: seen.token.domain_generation,
            noted: &depends.noted,
            expires_at: depends.expires_at,
        };
        noting::end_document(&within)
    }

    /// Computes the document under the active snapshot.
    fn by_query<F: Form>(&self, form: &mut F) -> Result<Option<F::Output>> {
        let document = self.compute()?;
        document.map(|document| form.make(&document)).transpose()
    }

    /// Computes the document under a snapshot taken now, leaves it in L1, and answers what the caller's own gives.
    fn fill<F: Form>(&self, l1: &SharedL1, seen: &Seen, form: &mut F) -> Result<Option<F::Output>> {
        let loaded_at = sys::now();
        let compute_and_offer = |moment: Moment, is_callers: bool| {
            let noting = Noting::begin();
            let document = self.compute()?;
            let reads = noting.end();
            crate::fault::stop_at!(BeforeFill);
            let noted = match self.definition.is_exact() {
                true => reads.noted()?,
                false => Some((Vec::new(), i64::MAX)),
            };
            if let (Some((noted, expires_at)), false) = (noted, own_full_xid() != 0) {
                let depends = Depends { noted, expires_at };
                self.offer(l1, seen, (moment, loaded_at), &depends, document.as_deref())?;
                if is_callers {
                    self.hand_on(l1, seen, &depends)?;
                }
            }
            Ok(document)
        };
        // SAFETY: L1 is filled only where the active snapshot has a moment, and not in recovery (`bypass`).
        let (document, is_callers) = unsafe { under_fresh_snapshot(compute_and_offer)? };
        // What goes by age is as old as that for everybody.
        if is_callers || !self.definition.is_exact() {
            return document.map(|document| form.make(&document)).transpose();
        }
        self.by_query(form)
    }

    /// Leaves a document in L1 if nothing that it depends on has changed since the generations were read.
    fn offer(
        &self,
        l1: &SharedL1,
        seen: &Seen,
        (moment, loaded_at): (Moment, i64),
        depends: &Depends,
        document: Option<&[u8]>,
    ) -> Result<()> {
        let class = &self.definition.class;
        if self.notes_reads() && !self.offer_noted(l1, &depends.noted, loaded_at) {
            class.counters.count(Counter::FillsRefused);
            return Ok(());
        }
        let longest = class.cache_ttl.map(|ttl| {
            let stale = self
                .definition
                .source()
                .and_then(|source| source.serve_stale);
            ttl.saturating_add(stale.unwrap_or(0))
        });
        let value = document.unwrap_or(&NO_DOCUMENT);
        let entry = NewEntry {
            key: self.key,
            class: class.counters.class_id(),
            max_entries: class.max_entries,
            version: match document {
                Some(_) => PRESENT,
                None => ABSENT,
            },
            head_xid: moment.ended,
            doc_xid: moment.running,
            hash: state_cache_document::hash(value),
            expires_at: longest
                .map_or(i64::MAX, |longest| loaded_at.saturating_add(longest))
                .min(depends.expires_at),
            loaded_at,
            dirty: None,
            stored: seen.digest(self.definition, &depends.noted),
            value,
        };
        let token = match crate::fault::leaves_out!(GenerationCheck) {
            true => l1.fill_token(&self.key).unwrap_or(seen.token),
            false => seen.token,
        };
        let tag = definition::class_tag(&self.state.catalog, &self.state.class);
        let is_wanted = || {
            tag.is_some_and(|tag| tag.evictions() == seen.evictions)
                || crate::fault::leaves_out!(DerivedEviction)
        };
        let linked = l1
            .reserve(&entry)
            .map(|block| l1.link_if_unchanged_and(block, token, is_wanted));
        if matches!(linked, Ok(true)) {
            shared::note_filled(self.key.id);
        }
        let counter = match linked {
            Ok(true) => Counter::Fills,
            Ok(false) | Err(Refused::Full | Refused::Gone) => Counter::FillsRefused,
            Err(Refused::TooLarge) => Counter::TooLarge,
        };
        class.counters.count(counter);
        Ok(())
    }

    /// What L1 has noted of the states that the document was computed from, which are all unchanged; nothing where
    /// the source reads none, and why not where nothing is noted, or one of them has changed.
    fn noted(&self, l1: &SharedL1) -> Result<std::result::Result<Vec<u8>, Gone>> {
        if !self.notes_reads() {
            return Ok(Ok(Vec::new()));
        }
        let catalog = &self.state.catalog;
        let key = self.reads_key();
        let noted = match Document.take(l1, &key) {
            Taken::Entry(_, noted) => noted?,
            Taken::Failed(error) => return Err(error),
            Taken::Damaged | Taken::Miss => return Ok(Err(Gone::NotThere)),
        };
        let is_unchanged = noting::are_unchanged(catalog, &noted);
        Ok(is_unchanged.then_some(noted).ok_or(Gone::Changed))
    }

    /// Whether L1 notes for each document which states it was computed from.
    fn notes_reads(&self) -> bool {
        self.definition.reads_states && self.definition.is_exact()
    }

    /// Where L1 notes that.
    fn reads_key(&self) -> Key<'_> {
        let catalog = &self.state.catalog;
        let (database, class) = (catalog.database, &self.state.class.name);
        shared::reads_key(database, catalog.incarnation, class, self.state.key)
    }

    /// Leaves it in L1; whether it is there. An entry of a document names it by its hash, so it does not matter who
    /// else leaves something there, or when.
    fn offer_noted(&self, l1: &SharedL1, noted: &[u8], loaded_at: i64) -> bool {
        let key = self.reads_key();
        let Some(token) = l1.fill_token(&key) else {
            return false;
        };
        let entry = NewEntry {
            key,
            class: ClassId::OTHER,
            max_entries: None,
            version: PRESENT,
            head_xid: 0,
            doc_xid: 0,
            hash: state_cache_document::hash(noted),
            expires_at: i64::MAX,
            loaded_at,
            dirty: None,
            stored: 0,
            value: noted,
        };
        let linked = l1
            .reserve(&entry)
            .map(|block| l1.link_if_unchanged(block, token));
        linked.unwrap_or(false)
    }

    /// What the source gives under the active snapshot.
    ///
    /// # Errors
    /// Those of the source, with class and key in their context.
    pub fn compute(&self) -> Result<Option<Vec<u8>>> {
        named(self.state, || self.compute_named())
    }

    fn compute_named(&self) -> Result<Option<Vec<u8>>> {
        let Some(source) = self.definition.source() else {
            return Err(DerivedError::Redefined {
                class: text(&self.state.class.name),
            }
            .into());
        };
        if !self.definition.is_to_be_run() {
            return Err(DerivedError::Unattended {
                class: text(&self.state.class.name),
            }
            .into());
        }
        let _computing = Computing::begin(self.state)?;
        sys::check_stack();
        let counters = &self.definition.class.counters;
        counters.count(Counter::Evaluations);
        let timer = Timer::start();
        let _settings = Fixed::set(&source.search_path);
        let connection = Connection::open()?;
        let arguments = [Some(varlena_datum(self.state.key))];
        let rows = connection.query_some(&self.definition.statement, arguments, 2)?;
        timer.stop(counters, Counter::EvaluationTime);
        let mut rows = rows.iter();
        let Some(row) = rows.next() else {
            return Ok(None);
        };
        if rows.next().is_some() {
            return Err(DerivedError::ManyRows {
                document: self.state.shown(),
            }
            .into());
        }
        match row.bytes(1) {
            Some(document) => Ok(Some(copy(&document)?)),
            None => Ok(None),
        }
    }
}

/// Runs something whose errors are to say which document they are about.
fn named<T>(state: &StateRef<'_>, f: impl FnOnce() -> T) -> T {
    let line = [b"document \"", &*state.class.name, b"/", state.key, b"\""].concat();
    error_context::named(&line, f)
}

/// Whether this is a process that applies what another server has replicated.
fn is_logical_worker() -> bool {
    // SAFETY: reads a global of this process.
    unsafe { pg_sys::IsLogicalWorker() }
}
