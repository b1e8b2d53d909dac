//! The survey of a cache at rest, for tests: is every chunk in exactly one place?

use std::sync::atomic::Ordering::Relaxed;

use crate::arena::Arena;
use crate::cache::L1;
use crate::class::ClassId;
use crate::entry::{HEADER, Key, KeyId, MAX_CLASS, MAX_KEY, text_chunks};
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
    /// Chunks of class records, in use or awaiting reuse.
    pub in_classes: u64,
    /// Chunks found nowhere: those of blocks reserved and not linked, and those lost to damage.
    pub elsewhere: u64,
}

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
        for chunk in self.arena.all_class_chunks() {
            seen.note(chunk, "class records")?;
            report.in_classes += 1;
        }
        if report.in_classes != u64::from(self.arena.header().class_chunks.load(Relaxed)) {
            return Err("class records are miscounted".into());
        }
        let mut gauges = std::collections::HashMap::<ClassId, (u64, u64)>::new();
        for n in 0..self.arena.partitions().len() {
            let shard = Shard::lock(self, n);
            self.verify_partition(&shard, &mut seen, &mut report, &mut gauges)?;
        }
        for (class, counted) in gauges {
            if self.gauges(class) != counted {
                return Err(format!(
                    "{class:?}: {counted:?} counted, {:?} in the gauges",
                    self.gauges(class)
                ));
            }
        }
        report.elsewhere = seen.0.iter().filter(|s| !**s).count() as u64;
        Ok(report)
    }

    fn verify_partition(
        &self,
        shard: &Shard<'_, K>,
        seen: &mut Seen,
        report: &mut Report,
        gauges: &mut std::collections::HashMap<ClassId, (u64, u64)>,
    ) -> Result<(), String> {
        let lists = shard.lists();
        let hand = lists.hand.load(Relaxed);
        let (mut at, mut newer, mut count) = (lists.head.load(Relaxed), NO_CHUNK, 0);
        let mut hand_seen = hand == NO_CHUNK;
        while at != NO_CHUNK {
            let entry = shard
                .entry(at)
                .ok_or_else(|| format!("FIFO: {at} is no entry of this partition"))?;
            if !entry.is_sound() || entry.newer.load(Relaxed) != newer {
                return Err(format!("FIFO: entry {at} contradicts itself"));
            }
            seen.note_chain(&self.arena, at, entry.chunks, "entry")?;
            report.in_entries += u64::from(entry.chunks);
            if let Some((head, len)) = entry.text() {
                seen.note_chain(&self.arena, head, text_chunks(len), "text form")?;
                report.in_texts += u64::from(text_chunks(len));
            }
            let mut names = [0; MAX_CLASS + MAX_KEY];
            let class_len = usize::from(entry.class_len);
            let names = &mut names[..class_len + usize::from(entry.key_len)];
            // SAFETY: the entry is linked in this partition, whose lock `shard` holds.
            let copied = unsafe { self.arena.copy_out(at, HEADER, names) };
            let (class, key) = names.split_at(class_len);
            let id = KeyId(u128::from(entry.id[0]) | u128::from(entry.id[1]) << 64);
            let key = Key {
                id,
                db: entry.db,
                incarnation: entry.incarnation,
                class,
                key,
            };
            if !copied || !matches!(shard.find(&key), Ok(Some(found)) if found == at) {
                return Err(format!("the bucket does not lead to entry {at}"));
            }
            let gauge = gauges.entry(ClassId(entry.class)).or_default();
            gauge.0 += 1;
            gauge.1 += entry.occupied_chunks() * CHUNK as u64;
            hand_seen |= at == hand;
            count += 1;
            (newer, at) = (at, entry.older.load(Relaxed));
        }
        if newer != lists.tail.load(Relaxed) || !hand_seen || count != lists.entries.load(Relaxed) {
            return Err(format!(
                "partition {}: tail, hand or count is wrong",
                shard.n
            ));
        }
        report.entries += u64::from(count);
        Ok(())
    }
}
