//! The survey of a cache at rest, for tests: is every chunk in exactly one place?

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use crate::arena::Arena;
use crate::cache::L1;
use crate::class::ClassId;
use crate::entry::{EntryHeader, Key, OVERTAKEN, flags_of, text_chunks};
use crate::geometry::{CHUNK, NO_CHUNK};
use crate::locks::Locks;
use crate::partition::Shard;

/// Where the chunks are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries linked.
    pub entries: u64,
    /// Free chunks.
    pub free: u64,
    /// Chunks of entries.
    pub in_entries: u64,
    /// Chunks of text forms.
    pub in_texts: u64,
    /// Dirty ones among the entries.
    pub dirty: u64,
    /// Chunks of dirty entries and their text forms, counted under `in_entries` and `in_texts` too.
    pub in_dirty: u64,
    /// Chunks of class records, in use or awaiting reuse.
    pub in_classes: u64,
    /// Chunks found nowhere: those of blocks reserved and not linked, and those lost to damage.
    pub elsewhere: u64,
}

/// Entries, bytes and dirty entries of each class.
type Gauges = HashMap<ClassId, (u64, u64, u64)>;

/// Which chunks have been seen.
struct Seen(Vec<bool>);

impl Seen {
    fn note(&mut self, chunk: u32, what: &str) -> Result<(), String> {
        match self.0.get_mut(chunk as usize) {
            None => Err(format!("{what}: chunk {chunk} does not exist")),
            Some(true) => Err(format!("{what}: chunk {chunk} is in two places")),
            Some(seen) => {
                *seen = true;
                Ok(())
            }
        }
    }

    fn note_chain(
        &mut self,
        arena: &Arena,
        head: u32,
        count: u32,
        what: &str,
    ) -> Result<(), String> {
        let mut chunk = head;
        for _ in 0..count {
            self.note(chunk, what)?;
            chunk = arena.after(chunk);
        }
        if chunk != NO_CHUNK {
            return Err(format!(
                "{what}: the chain at {head} is longer than {count}"
            ));
        }
        Ok(())
    }
}

impl<K: Locks> L1<K> {
    /// Checks every list, chain and gauge. Meaningful only while nobody changes the cache.
    ///
    /// # Errors
    ///
    /// The first contradiction, in words.
    pub fn verify(&self) -> Result<Report, String> {
        let mut seen = Seen(vec![false; self.arena.chunks() as usize]);
        let mut report = Report::default();
        let mut free = self.arena.first_free();
        while free != NO_CHUNK {
            seen.note(free, "free list")?;
            report.free += 1;
            free = self.arena.after(free);
        }
        if report.free != self.arena.free_chunks() {
            return Err(format!(
                "{} free chunks, {} counted",
                report.free,
                self.arena.free_chunks()
            ));
        }
        let records = self.arena.all_class_chunks();
        for chunk in &records {
            seen.note(*chunk, "class records")?;
            report.in_classes += 1;
        }
        if report.in_classes != u64::from(self.arena.header().class_chunks.load(Relaxed)) {
            return Err("class records are miscounted".into());
        }
        // All classes, so that the gauges of one without entries are seen to be zero.
        let ids = records.iter().step_by(2).map(|record| ClassId(*record));
        let mut gauges: Gauges = ids.map(|id| (id, (0, 0, 0))).collect();
        for n in 0..self.arena.partitions().len() {
            let shard = Shard::lock(self, n);
            self.verify_partition(&shard, &mut seen, &mut report, &mut gauges)?;
        }
        for (class, counted) in gauges {
            let (entries, bytes) = self.gauges(class);
            let shown = (entries, bytes, self.dirty(class));
            if shown != counted {
                return Err(format!(
                    "{class:?}: {counted:?} counted, {shown:?} in the gauges"
                ));
            }
        }
        report.elsewhere = seen.0.iter().filter(|s| !**s).count() as u64;
        // Blocks reserved dirty are the difference; with none, there is none.
        let dirty = self.arena.header().dirty_chunks.load(Relaxed);
        if dirty < report.in_dirty || dirty - report.in_dirty > report.elsewhere {
            return Err(format!(
                "{} dirty chunks, {dirty} counted, {} elsewhere",
                report.in_dirty, report.elsewhere
            ));
        }
        Ok(report)
    }

    fn verify_partition(
        &self,
        shard: &Shard<'_, K>,
        seen: &mut Seen,
        report: &mut Report,
        gauges: &mut Gauges,
    ) -> Result<(), String> {
        let lists = shard.lists();
        let (clean, _) = self.verify_list(shard, false, seen, report, gauges)?;
        let hand = lists.hand.load(Relaxed);
        if hand != NO_CHUNK && !clean.contains(&hand) {
            return Err(format!("partition {}: the hand is nowhere", shard.n));
        }
        let (dirty, chunks) = self.verify_list(shard, true, seen, report, gauges)?;
        if chunks != lists.dirty_chunks.load(Relaxed) {
            return Err(format!("partition {}: {chunks} dirty chunks", shard.n));
        }
        report.entries += (clean.len() + dirty.len()) as u64;
        report.dirty += dirty.len() as u64;
        report.in_dirty += chunks;
        Ok(())
    }

    /// Follows the list of a partition's dirty or clean entries; returns them and how many chunks they
    /// occupy.
    fn verify_list(
        &self,
        shard: &Shard<'_, K>,
        dirty: bool,
        seen: &mut Seen,
        report: &mut Report,
        gauges: &mut Gauges,
    ) -> Result<(Vec<u32>, u64), String> {
        let lists = shard.lists();
        let list = if dirty { &lists.dirty } else { &lists.clean };
        let (mut at, mut newer) = (list.head.load(Relaxed), NO_CHUNK);
        let (mut found, mut chunks) = (Vec::new(), 0);
        while at != NO_CHUNK {
            let entry = shard
                .entry(at)
                .ok_or_else(|| format!("list: {at} is no entry of this partition"))?;
            if !entry.is_sound() || entry.newer.load(Relaxed) != newer {
                return Err(format!("list: entry {at} contradicts itself"));
            }
            let overtaken = if entry.is_dirty() { OVERTAKEN } else { 0 };
            if entry.flags.load(Relaxed) & !overtaken != flags_of(entry.dirty())
                || entry.is_dirty() != dirty
            {
                return Err(format!(
                    "entry {at} is in the other list, or has no such flags"
                ));
            }
            seen.note_chain(&self.arena, at, entry.chunks, "entry")?;
            report.in_entries += u64::from(entry.chunks);
            if let Some((head, len)) = entry.text() {
                seen.note_chain(&self.arena, head, text_chunks(len), "text form")?;
                report.in_texts += u64::from(text_chunks(len));
            }
            self.verify_bucket(shard, at, entry)?;
            let gauge = gauges.entry(ClassId(entry.class)).or_default();
            gauge.0 += 1;
            gauge.1 += entry.occupied_chunks() * CHUNK as u64;
            gauge.2 += u64::from(dirty);
            chunks += entry.occupied_chunks();
            found.push(at);
            (newer, at) = (at, entry.older.load(Relaxed));
        }
        if newer != list.tail.load(Relaxed) || found.len() != list.entries.load(Relaxed) as usize {
            return Err(format!("partition {}: tail or count is wrong", shard.n));
        }
        Ok((found, chunks))
    }

    /// Does the bucket lead to the entry at `at`?
    fn verify_bucket(
        &self,
        shard: &Shard<'_, K>,
        at: u32,
        entry: &EntryHeader,
    ) -> Result<(), String> {
        let names = shard.names(at, entry);
        let found = names.map(|names| {
            shard.find(&Key {
                id: entry.key_id(),
                db: entry.db,
                incarnation: entry.incarnation,
                class: names.class(),
                key: names.key(),
            })
        });
        if !matches!(found, Some(Ok(Some(found))) if found == at) {
            return Err(format!("the bucket does not lead to entry {at}"));
        }
        Ok(())
    }
}
