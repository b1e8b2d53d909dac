//! How a document is put into a snapshot row and taken out of it again.
//!
//! A row holds the document whole (`state`) or packed (`delta`): compressed, or as the difference from the snapshot
//! before. Where somebody has put a document into `state` by hand, that counts. Packing is `state_cache_delta`'s;
//! here are the rows. A head row that holds its document holds it whole. A delta is read together with the rows that
//! it builds upon, all under the same snapshot, so that nobody who prunes or packs anew in between is seen half-way.
//! A row is never believed: what comes out is compared with the hash beside it. And since whoever may write rows may
//! pack what he likes, and give it the right hash, what was packed must be a document that the server could have
//! built before the server sees it. `state` came through jsonb's input function.

use super::decoded::{Part, Walker};
use super::spi::{Connection, Row, Statement};
use super::texts::IS_KEYFRAME;
use crate::call::{bigint_datum, varlena_datum};
use crate::catalog::{Catalog, Class};
use crate::error::Result;
use crate::identity::Impersonation;
use crate::{settings, sys};
use once_cell::unsync::OnceCell;
use pgrx::pg_sys;
use state_cache_delta::{
    Base as PackBase, Decoder, Encoded, Encoder, Fault as PackFault, Form, Header, Layout,
};
use state_cache_memory::{Grow, OutOfMemory, copy};
use std::cell::RefCell;

/// The prepared statements of this file.
#[derive(Default)]
struct Statements {
    rows_below: OnceCell<Statement>,
    payloads_below: OnceCell<Statement>,
}

/// Those of an installation.
fn statements(catalog: &Catalog) -> &Statements {
    catalog.attached()
}

/// Whether a version is a recovery point, in [`Storage`]; the other bits are [`Layout::pack`]'s.
const RECOVERY_POINT: u64 = 1 << 63;
/// Whether it was written above all versions that were kept then. A bit of the layout's that says whether the deltas
/// take a byte more or less.
const NEWEST: u64 = 1;
/// Whether its head row holds it. A bit of the layout's too: what a head row holds has no deltas.
const IN_HEAD: u64 = 2;
/// The bits that are not the layout's.
const FLAGS: u64 = RECOVERY_POINT | NEWEST | IN_HEAD;

/// The row that holds the document of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// That of `state_head`.
    Head,
    /// One of `state_snapshot`.
    Snapshot,
}

impl Holder {
    /// Of a version that is to be written. Where the next one takes its place nothing stays, unless recovery may go
    /// back to it.
    pub fn of_new(class: &Class, is_recovery_point: bool) -> Self {
        match class.keeps_one() && !is_recovery_point {
            true => Self::Head,
            false => Self::Snapshot,
        }
    }
}

/// How a version is stored, as L1 carries it along: what the next version needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Storage(u64);

impl Storage {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self(0);

    fn new(layout: Layout, is_recovery_point: bool) -> Self {
        Self((layout.pack() & !FLAGS) | if is_recovery_point { RECOVERY_POINT } else { 0 })
    }

    /// The same of a version that this row holds.
    pub(super) fn held_by(self, holder: Holder) -> Self {
        match holder {
            Holder::Head => Self(self.0 | IN_HEAD),
            Holder::Snapshot => self,
        }
    }

    /// The same of a version that must have a snapshot row.
    pub(super) fn held_by_snapshot(self) -> Self {
        Self(self.0 & !IN_HEAD)
    }

    /// Which row holds it; `None` where that is not known.
    pub fn holder(self) -> Option<Holder> {
        self.layout().map(|_| match self.0 & IN_HEAD {
            0 => Holder::Snapshot,
            _ => Holder::Head,
        })
    }

    /// The same of a version that was just written, above all that are kept of the state.
    pub fn written_newest(self) -> Self {
        match self.layout() {
            Some(_) => Self(self.0 | NEWEST),
            None => self,
        }
    }

    /// Whether nothing is kept above it, given that nobody has changed the state by hand since: L1 would not hold it.
    pub fn is_newest(self) -> bool {
        self.0 & NEWEST != 0
    }

    /// From what [`Storage::bits`] gave.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// For L1.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Deltas to be replayed, and the sizes that the next version is measured by.
    pub(super) fn layout(self) -> Option<Layout> {
        Layout::unpack(self.0 & !FLAGS)
    }

    /// Whether recovery may go back to it.
    pub fn is_recovery_point(self) -> bool {
        self.0 & RECOVERY_POINT != 0
    }

    /// Deltas to be replayed to read it.
    pub fn depth(self) -> u32 {
        self.layout().map_or(0, |layout| layout.depth)
    }
}

/// A version that the next one may be stored as a difference from: the one before, or the parent of a branch.
#[derive(Clone, Copy)]
pub struct Base<'a> {
    /// Its number.
    pub version: i64,
    /// Binary jsonb.
    pub document: &'a [u8],
    /// How it is stored.
    pub storage: Storage,
}

/// What goes into the row that holds a version.
pub struct Packed {
    /// The column `delta`; without it `state` holds the document.
    pub delta: Option<Vec<u8>>,
    /// The column `payload`, of a version that has bytes beside its document.
    pub payload: Option<Vec<u8>>,
    /// The version that `delta` builds upon, or else the first that it could have built upon.
    pub base: Option<i64>,
    /// How the version is stored then.
    pub storage: Storage,
}

/// Level of compression. On the recorded sessions 6 stores a tenth less than 3 and takes 44 us for a document of
/// 11 KB where that takes 18; 9 takes twice that and stores no less.
const LEVEL: i32 = 6;

thread_local! {
    /// Contexts of the compressor are dear to make. One of each for the session, made when first used.
    static ENCODER: OnceCell<RefCell<Encoder>> = const { OnceCell::new() };
    static DECODER: OnceCell<RefCell<Decoder>> = const { OnceCell::new() };
}

/// Packs bytes, where there is memory for the compressor: as the difference from `base` where that pays.
pub(super) fn encode(bytes: &[u8], version: i64, base: Option<PackBase<'_>>) -> Option<Encoded> {
    let max_chain = settings::max_delta_chain();
    ENCODER.with(|encoder| {
        let encoder = encoder.get_or_try_init(|| Encoder::new(LEVEL).map(RefCell::new));
        let mut encoder = encoder.ok()?.borrow_mut();
        encoder.encode(bytes, version, base, max_chain).ok()
    })
}

/// Decides how a version is stored: as the difference from that of these versions which makes it smallest, or upon
/// none. A recovery point depends on no other row.
pub fn pack(
    catalog: &Catalog,
    class: &Class,
    version: i64,
    document: &[u8],
    bases: [Option<Base<'_>>; 2],
    is_recovery_point: bool,
) -> Packed {
    let keyframe = Storage::new(Layout::keyframe(document.len()), is_recovery_point);
    let whole = Packed {
        delta: None,
        payload: None,
        base: None,
        storage: keyframe.held_by(Holder::of_new(class, is_recovery_point)),
    };
    // A user's trigger that looks at documents finds them.
    if !class.packs() || catalog.rows_may_be_rewritten() {
        return whole;
    }
    let mut bases = bases
        .into_iter()
        .flatten()
        .filter(|_| !is_recovery_point)
        .filter_map(|base| {
            Some(PackBase {
                version: base.version,
                document: base.document,
                layout: base.storage.layout()?,
            })
        });
    let first = bases.next();
    let mut base = first.map(|base| base.version);
    // Out of memory for the compressor: whole is as good.
    let Some(mut best) = encode(document, version, first) else {
        return whole;
    };
    let size = |encoded: &Encoded| match &encoded.form {
        Form::Whole => document.len(),
        Form::Packed(bytes) => bytes.len(),
    };
    for other in bases {
        if let Some(encoded) = encode(document, version, Some(other))
            && size(&encoded) < size(&best)
        {
            (best, base) = (encoded, Some(other.version));
        }
    }
    Packed {
        storage: Storage::new(best.layout, is_recovery_point),
        payload: None,
        base,
        delta: match best.form {
            Form::Whole => None,
            Form::Packed(bytes) => Some(bytes),
        },
    }
}

/// A snapshot row's document columns, copied out of it.
pub enum Columns {
    /// `state`.
    Whole(Vec<u8>),
    /// `delta`.
    Packed(Vec<u8>),
    /// Neither.
    Neither,
}

impl Columns {
    /// Copies them out of the columns `state` and `delta` of a row.
    pub(super) fn of(row: &Row<'_>, state: i32, delta: i32) -> Self {
        Self::new(row.bytes(state), || row.bytes(delta))
    }

    /// Of these values, of which the second is asked for only without the first.
    pub(super) fn new(state: Option<Vec<u8>>, delta: impl FnOnce() -> Option<Vec<u8>>) -> Self {
        match state {
            Some(state) => Self::Whole(state),
            None => delta().map_or(Self::Neither, Self::Packed),
        }
    }
}

/// First byte of a payload that is stored as it is; those of `state_cache_delta` are the next ones.
pub(super) const WHOLE: u8 = 0x50;
const _: () = assert!(WHOLE < state_cache_delta::DELTA);

/// Bytes of the hash behind a payload.
pub(super) const HASH: usize = 8;

/// The form in which a column holds a payload, and the hash of that.
pub(super) fn payload_form(
    mut column: Vec<u8>,
) -> Result<std::result::Result<(Columns, [u8; HASH]), Fault>> {
    let Some((form, hash)) = column.split_last_chunk::<HASH>() else {
        return Ok(Err(TOO_SHORT));
    };
    let hash = *hash;
    match form.first() {
        None => Ok(Err(TOO_SHORT)),
        Some(&WHOLE) => Ok(Ok((Columns::Whole(copy(&form[1..])?), hash))),
        Some(_) => {
            column.truncate(column.len() - HASH);
            Ok(Ok((Columns::Packed(column), hash)))
        }
    }
}

const TOO_SHORT: Fault = "the stored payload is too short";

/// What is wrong with a stored version.
pub type Fault = &'static str;

/// A document as a row held it.
pub struct Unpacked {
    /// Binary jsonb.
    pub document: Vec<u8>,
    /// xxh3-128 of it, which the row says too.
    pub hash: u128,
    /// How it is stored.
    pub storage: Storage,
}

/// Whether versions that were decoded before may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoding {
    /// The rows are read and decoded, whatever was decoded before.
    Anew,
    /// For walks through a history: see [`super::decoded`].
    Remembered,
}

/// The document of a row, or what is wrong with it. `is_right` says whether a hash is the one beside it. No
/// connection to SPI is open.
pub fn unpack(
    catalog: &Catalog,
    name: (&[u8], &[u8], i64),
    columns: Columns,
    is_recovery_point: bool,
    decoding: Decoding,
    is_right: impl FnOnce(u128) -> bool,
) -> Result<std::result::Result<Unpacked, Fault>> {
    let was_packed = matches!(columns, Columns::Packed(_));
    let part = Part::Document;
    let decoded = decode(catalog, name, (part, columns), is_recovery_point, decoding)?;
    let (document, storage) = match decoded {
        Ok(decoded) => decoded,
        Err(fault) => return Ok(Err(fault)),
    };
    // First, since what an accident leaves is mostly no document either.
    let hash = state_cache_document::hash(&document);
    if !is_right(hash) {
        return Ok(Err("the document does not match its hash"));
    }
    let is_forged = was_packed
        && state_cache_document::check(&document, sys::is_text, sys::check_stack).is_err();
    if is_forged {
        return Ok(Err("what is stored is no well-formed document"));
    }
    Ok(Ok(Unpacked {
        document,
        hash,
        storage,
    }))
}

/// What the columns stand for; nothing is known of it yet.
pub(super) fn decode(
    catalog: &Catalog,
    (class, key, version): (&[u8], &[u8], i64),
    (part, columns): (Part, Columns),
    is_recovery_point: bool,
    decoding: Decoding,
) -> Result<std::result::Result<(Vec<u8>, Storage), Fault>> {
    let packed = match columns {
        Columns::Whole(document) => {
            let storage = Storage::new(Layout::keyframe(document.len()), is_recovery_point);
            return Ok(Ok((document, storage)));
        }
        Columns::Packed(packed) => packed,
        Columns::Neither => return Ok(Err("its snapshot holds no document")),
    };
    let header = match Header::checked(&packed) {
        Ok(header) => header,
        Err(fault) => return Ok(Err(fault.message())),
    };
    let storage = Storage::new(header.layout(packed.len()), is_recovery_point);
    let walker = match decoding {
        Decoding::Remembered => Walker::of(class, key, part),
        Decoding::Anew => None,
    };
    let known = walker.and_then(|walker| remembered(walker, version, &packed, &header));
    if let Some(document) = known {
        return Ok(Ok((document, storage)));
    }
    let chain = match chain(catalog, (class, key, version), part, packed, header)? {
        Ok(chain) => chain,
        Err(fault) => return Ok(Err(fault)),
    };
    Ok(replay(chain, walker)?.map(|document| (document, storage)))
}

/// A version that was decoded before, or whose base was; `None` where the rows below must be read.
fn remembered(walker: Walker, version: i64, packed: &[u8], header: &Header) -> Option<Vec<u8>> {
    if let Some(document) = walker.document(version, packed) {
        return Some(document);
    }
    let base = header.base_version(version).ok().flatten()?;
    let document = walker.upon(base, |base| {
        let decode = |decoder: &mut Decoder| decoder.decode(packed, Some(base)).ok();
        with_decoder(decode).ok().flatten()
    })?;
    let kept = copy(&document).ok()?;
    walker.remember(version, packed, kept);
    Some(document)
}

/// The rows from a version down to the keyframe that it builds upon; the keyframe is last.
fn chain(
    catalog: &Catalog,
    name: (&[u8], &[u8], i64),
    part: Part,
    packed: Vec<u8>,
    header: Header,
) -> Result<std::result::Result<Vec<(i64, Columns)>, Fault>> {
    let mut chain = vec![(name.2, Columns::Packed(packed))];
    let base = match header.base_version(name.2) {
        Ok(Some(base)) => base,
        Ok(None) => return Ok(Ok(chain)),
        Err(fault) => return Ok(Err(fault.message())),
    };
    crate::fault::stop_at!(Chain);
    // Who sees the version may see what it is made of, and gets only the version.
    let _owner = catalog
        .access()
        .row_security
        .then(|| Impersonation::owner_of(catalog.snapshot));
    let found = match walk(base, rows_below(catalog, name, part, None)?)? {
        // What looks like the keyframe may be another row of a version that is kept twice.
        Err(MISSING) => walk(base, rows_below(catalog, name, part, Some(i64::MIN))?)?,
        found => found,
    };
    let below = match found {
        Ok(below) => below,
        Err(fault) => return Ok(Err(fault)),
    };
    chain.try_room(below.len())?;
    chain.extend(below);
    Ok(Ok(chain))
}

/// Of these rows, newest first, those that lead from version `base` down to a keyframe.
fn walk(
    base: i64,
    rows: Vec<(i64, Columns)>,
) -> Result<std::result::Result<Vec<(i64, Columns)>, Fault>> {
    let mut rows = rows.into_iter();
    let (mut chain, mut base) = (Vec::new(), Some(base));
    while let Some(wanted) = base {
        let Some((_, columns)) = rows
            .find(|(number, _)| *number <= wanted)
            .filter(|(number, _)| *number == wanted)
        else {
            return Ok(Err(MISSING));
        };
        base = match &columns {
            Columns::Packed(packed) => {
                let header = Header::checked(packed);
                match header.and_then(|header| header.base_version(wanted)) {
                    Ok(base) => base,
                    Err(fault) => return Ok(Err(fault.message())),
                }
            }
            Columns::Whole(_) => None,
            Columns::Neither => return Ok(Err("a version that it builds upon holds no document")),
        };
        chain.try_push((wanted, columns))?;
    }
    Ok(Ok(chain))
}

/// A row of the chain is not there, or row-level security hides it.
pub const MISSING: Fault = "a version that it builds upon is missing";

/// The snapshots of a state below a version down to the next keyframe, or to version `from`, newest first.
fn rows_below(
    catalog: &Catalog,
    (class, key, below): (&[u8], &[u8], i64),
    part: Part,
    from: Option<i64>,
) -> Result<Vec<(i64, Columns)>> {
    let connection = Connection::open()?;
    let (slot, columns) = match part {
        Part::Document => (&statements(catalog).rows_below, "state, delta"),
        Part::Payload => (&statements(catalog).payloads_below, "NULL, payload"),
    };
    let statement = connection.prepare(
        slot,
        &catalog.schema,
        || {
            format!(
                "SELECT version, {columns}, created_at FROM @extschema@.state_snapshot \
                 WHERE class OPERATOR(pg_catalog.=) $1 AND key OPERATOR(pg_catalog.=) $2 \
                 AND version OPERATOR(pg_catalog.<) $3 AND version OPERATOR(pg_catalog.>=) COALESCE($4, \
                 (SELECT k.version FROM @extschema@.state_snapshot k \
                 WHERE k.class OPERATOR(pg_catalog.=) $1 AND k.key OPERATOR(pg_catalog.=) $2 \
                 AND k.version OPERATOR(pg_catalog.<) $3 AND {IS_KEYFRAME} \
                 ORDER BY k.version USING OPERATOR(pg_catalog.>) LIMIT 1)) \
                 ORDER BY version USING OPERATOR(pg_catalog.>)"
            )
        },
        &[
            pg_sys::TEXTOID,
            pg_sys::TEXTOID,
            pg_sys::INT8OID,
            pg_sys::INT8OID,
        ],
    )?;
    let rows = connection.query(
        statement,
        [
            Some(varlena_datum(class)),
            Some(varlena_datum(key)),
            Some(bigint_datum(below)),
            from.map(bigint_datum),
        ],
    )?;
    let mut found: Vec<(i64, Columns)> = Vec::new();
    let mut written = 0;
    for row in rows.iter() {
        let number = row.bigint(1);
        let columns = match part {
            Part::Document => Columns::of(&row, 2, 3),
            Part::Payload => match row.bytes(3).map(payload_form).transpose()? {
                Some(Ok((columns, _))) => columns,
                Some(Err(_)) | None => Columns::Neither,
            },
        };
        let created_at = row.bigint(4);
        match found.last_mut() {
            // Of a version that a partitioned table holds twice, as it should not, the row that was written last
            // counts.
            Some((same, _)) if *same == number && created_at < written => continue,
            Some(last) if last.0 == number => *last = (number, columns),
            _ => found.try_push((number, columns))?,
        }
        written = created_at;
    }
    Ok(found)
}

/// Makes the document of the first of these rows, beginning with the last; a walker remembers those on the way.
fn replay(
    chain: Vec<(i64, Columns)>,
    walker: Option<Walker>,
) -> Result<std::result::Result<Vec<u8>, Fault>> {
    with_decoder(|decoder| {
        let mut document: Option<Vec<u8>> = None;
        for (version, row) in chain.into_iter().rev() {
            document = Some(match row {
                Columns::Whole(whole) => whole,
                Columns::Packed(packed) => match decoder.decode(&packed, document.as_deref()) {
                    Ok(document) => {
                        // Where there is no memory for a copy, there is none to remember.
                        if let (Some(walker), Ok(kept)) = (walker, copy(&document)) {
                            walker.remember(version, &packed, kept);
                        }
                        document
                    }
                    // That is no damage.
                    Err(PackFault::Memory) => {
                        let size = Header::read(&packed).map_or(0, |it| it.whole_bytes as usize);
                        return Err(OutOfMemory { size }.into());
                    }
                    Err(fault) => return Ok(Err(fault.message())),
                },
                Columns::Neither => return Ok(Err(MISSING)),
            });
        }
        Ok(document.ok_or(MISSING))
    })?
}

/// Runs `f` with the decoder of this session.
fn with_decoder<T>(f: impl FnOnce(&mut Decoder) -> T) -> Result<T> {
    DECODER.with(|decoder| {
        let decoder = decoder.get_or_try_init(|| match Decoder::new() {
            Ok(decoder) => Ok(RefCell::new(decoder)),
            // Of a fixed size, which the library does not say.
            Err(_) => Err(OutOfMemory { size: 0 }),
        })?;
        Ok(f(&mut decoder.borrow_mut()))
    })
}
