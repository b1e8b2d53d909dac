//! Committers that publish in another order than that in which they became visible.
//!
//! In each test `first` becomes visible before `second`, and `second` builds upon it.

use state_cache_l1::{ClassId, Cleaned, Dirty, DirtyBefore, MIN_MEMORY, NewEntry, Noted, Removes};

use crate::dirty::{behind, dirty_entry, info, link, put_dirty};
use crate::support::{Cache, DB, key, new_entry};

/// A commit whose mark is raised: what it notes, and what it publishes.
struct Commit<'a> {
    cache: &'a Cache,
    name: &'a str,
    noted: Noted,
}

impl<'a> Commit<'a> {
    fn enter(cache: &'a Cache, name: &'a str) -> Self {
        cache.stripe(key(name).id).raise();
        let noted = cache.note(&key(name));
        Commit { cache, name, noted }
    }

    fn link(self, version: i64, value: &[u8]) {
        let entry = new_entry(key(self.name), ClassId::OTHER, version, value);
        self.link_entry(&entry);
    }

    fn link_entry(self, entry: &NewEntry<'_>) {
        let block = self.cache.reserve(entry).unwrap();
        self.cache.link(block, self.noted, DirtyBefore::TakenOver);
        self.lower();
    }

    fn remove(self, removes: Removes) -> bool {
        let removed = self.cache.unlink(&key(self.name), self.noted, removes);
        self.lower();
        removed
    }

    fn lower(self) {
        self.cache.stripe(key(self.name).id).lower();
    }
}

/// Another key of the stripe of `k`.
fn neighbour(cache: &Cache) -> String {
    let stripe = cache.stripe_number(key("k").id);
    let names = (0..).map(|n| format!("n{n}"));
    let mut of_stripe = names.filter(|name| cache.stripe_number(key(name).id) == stripe);
    of_stripe.next().unwrap()
}

fn version(cache: &Cache) -> Option<i64> {
    let report = cache.verify().unwrap();
    assert_eq!(report.elsewhere, 0, "nothing is lost");
    cache.get(&key("k")).map(|(version, _)| version)
}

fn with_version_1() -> Cache {
    let cache = Cache::new(MIN_MEMORY);
    cache.put(&key("k"), 1, b"one").unwrap();
    cache
}

#[test]
fn an_older_version_does_not_take_the_place_of_a_newer_one() {
    let cache = with_version_1();
    let first = Commit::enter(&cache, "k");
    let second = Commit::enter(&cache, "k");
    second.link(3, b"three");
    first.link(2, b"two");
    assert_eq!(version(&cache), Some(3));
}

#[test]
fn an_older_version_is_not_linked_where_a_newer_one_has_gone() {
    for evict in [false, true] {
        let cache = with_version_1();
        let first = Commit::enter(&cache, "k");
        let second = Commit::enter(&cache, "k");
        match evict {
            true => {
                second.link(3, b"three");
                cache.remove(&key("k"));
            }
            false => assert!(second.remove(Removes::Any)),
        }
        first.link(2, b"two");
        assert_eq!(version(&cache), None);
    }
}

#[test]
fn an_older_version_is_not_linked_where_there_was_none() {
    let cache = Cache::new(MIN_MEMORY);
    let first = Commit::enter(&cache, "k");
    let second = Commit::enter(&cache, "k");
    assert!(!second.remove(Removes::Clean));
    first.link(1, b"one");
    assert_eq!(version(&cache), None);
}

#[test]
fn a_newer_version_that_notices_an_older_one_too_late_is_not_kept_from_the_readers() {
    let cache = with_version_1();
    let first = Commit::enter(&cache, "k");
    let second = Commit::enter(&cache, "k");
    first.link(2, b"two");
    // Which of the two is newer the number alone does not tell.
    second.link(3, b"three");
    assert_eq!(version(&cache), None);
}

#[test]
fn a_commit_that_another_key_makes_late_is_linked_upon_the_entry_that_it_noted() {
    let cache = with_version_1();
    let other = neighbour(&cache);
    let first = Commit::enter(&cache, "k");
    Commit::enter(&cache, &other).link(1, b"other");
    first.link(2, b"two");
    assert_eq!(version(&cache), Some(2));
}

#[test]
fn a_commit_that_another_key_makes_late_links_nothing_where_nothing_is() {
    let cache = Cache::new(MIN_MEMORY);
    let other = neighbour(&cache);
    let first = Commit::enter(&cache, "k");
    Commit::enter(&cache, &other).link(1, b"other");
    first.link(1, b"one");
    assert_eq!(version(&cache), None);
}

#[test]
fn a_commit_is_not_made_late_by_what_it_has_published_itself() {
    let cache = Cache::new(MIN_MEMORY);
    let other = neighbour(&cache);
    let mut one = Commit::enter(&cache, "k");
    Commit::enter(&cache, &other).link(1, b"other");
    one.noted = one.noted.after_own(1);
    one.link(1, b"one");
    assert_eq!(version(&cache), Some(1));
}

#[test]
fn numbers_set_back_by_hand_do_not_bring_the_older_version_back() {
    // Version 7 was written, then its row set back to 3 by hand, then 4 written upon that.
    let cache = with_version_1();
    let seven = Commit::enter(&cache, "k");
    let by_hand = Commit::enter(&cache, "k");
    by_hand.remove(Removes::Clean);
    Commit::enter(&cache, "k").link(4, b"four");
    seven.link(7, b"seven");
    assert_ne!(version(&cache), Some(7));

    let cache = with_version_1();
    let seven = Commit::enter(&cache, "k");
    let by_hand = Commit::enter(&cache, "k");
    let four = Commit::enter(&cache, "k");
    seven.link(7, b"seven");
    four.link(4, b"four");
    by_hand.remove(Removes::Clean);
    assert_eq!(version(&cache), None);
}

#[test]
fn a_removal_that_is_late_leaves_what_was_left_to_the_worker_since() {
    let cache = with_version_1();
    let first = Commit::enter(&cache, "k");
    Commit::enter(&cache, "k").link_entry(&dirty_entry("k", 3, b"three", behind(1, 2)));
    assert!(!first.remove(Removes::Any));
    assert_eq!(version(&cache), Some(3));
    let first = Commit::enter(&cache, "k");
    Commit::enter(&cache, "k").link_entry(&dirty_entry("k", 5, b"five", behind(1, 2)));
    first.link(4, b"four");
    assert_eq!(version(&cache), Some(5));
    assert!(info(&cache, &key("k")).unwrap().dirty.is_some());
}

#[test]
fn a_version_left_to_the_worker_is_linked_however_late() {
    let cache = Cache::new(MIN_MEMORY);
    let other = neighbour(&cache);
    let first = Commit::enter(&cache, "k");
    Commit::enter(&cache, &other).link(1, b"other");
    first.link_entry(&dirty_entry("k", 1, b"one", behind(1, 0)));
    assert_eq!(version(&cache), Some(1));
}

#[test]
fn a_version_over_rows_of_its_own_takes_nothing_over_from_a_dirty_one() {
    let cache = Cache::new(MIN_MEMORY);
    put_dirty(&cache, "k", 4);
    let entry = dirty_entry("k", 9, b"nine", behind(50, 8));
    let block = cache.reserve(&entry).unwrap();
    cache.link(block, cache.note(&key("k")), DirtyBefore::Ended);
    assert_eq!(info(&cache, &key("k")).unwrap().dirty, Some(behind(50, 8)));
    assert_eq!(cache.verify().unwrap().entries, 1);
}

#[test]
fn what_was_written_is_not_made_clean_after_a_change_by_hand() {
    let cache = Cache::new(MIN_MEMORY);
    let before = put_dirty(&cache, "k", 4);
    // The worker's transaction is visible; a change by hand of the row that it wrote commits and publishes.
    assert!(!Commit::enter(&cache, "k").remove(Removes::Clean));
    assert_eq!(
        version(&cache),
        Some(4),
        "it is what readers see until then"
    );
    let cleaned = cache.mark_clean(&key("k"), before.serial, 4, 9, 4);
    assert_eq!(cleaned, Cleaned::Gone);
    assert_eq!(version(&cache), None);
    assert_eq!(cache.memory().dirty, 0);
}

#[test]
fn a_dirty_entry_in_the_place_of_one_that_was_overtaken_is_marked_clean() {
    let cache = Cache::new(MIN_MEMORY);
    put_dirty(&cache, "k", 4);
    Commit::enter(&cache, "k").remove(Removes::Clean);
    let after = link(&cache, &dirty_entry("k", 5, b"five", behind(2, 4)));
    assert!(cache.set_parked(&key("k"), after.serial, true));
    assert!(cache.set_parked(&key("k"), after.serial, false));
    let cleaned = cache.mark_clean(&key("k"), after.serial, 5, 9, 4);
    assert_eq!(cleaned, Cleaned::Clean);
    assert_eq!(version(&cache), Some(5));
}

#[test]
fn to_park_an_entry_does_not_hide_that_it_was_overtaken() {
    let cache = Cache::new(MIN_MEMORY);
    let before = put_dirty(&cache, "k", 4);
    Commit::enter(&cache, "k").remove(Removes::Clean);
    cache.set_parked(&key("k"), before.serial, true);
    let dirty = info(&cache, &key("k")).unwrap().dirty;
    assert!(matches!(dirty, Some(Dirty { parked: true, .. })));
    cache.set_parked(&key("k"), before.serial, false);
    let cleaned = cache.mark_clean(&key("k"), before.serial, 4, 9, 4);
    assert_eq!(cleaned, Cleaned::Gone);
}

#[test]
fn two_writers_of_dirty_versions_are_marked_clean_in_any_order() {
    let cache = Cache::new(MIN_MEMORY);
    let four = put_dirty(&cache, "k", 4);
    link(&cache, &dirty_entry("k", 5, b"five", behind(2, 3)));
    let five = info(&cache, &key("k")).unwrap();
    link(&cache, &dirty_entry("k", 6, b"six", behind(3, 3)));
    assert_eq!(
        cache.mark_clean(&key("k"), five.serial, 5, 9, 4),
        Cleaned::Newer
    );
    assert_eq!(
        cache.mark_clean(&key("k"), four.serial, 4, 8, 3),
        Cleaned::Newer
    );
    let dirty = info(&cache, &key("k")).unwrap().dirty.unwrap();
    assert_eq!(dirty.base, 5, "the tables hold version 5");
}

#[test]
fn a_version_noted_before_its_domain_has_changed_is_unreadable() {
    let cache = with_version_1();
    let first = Commit::enter(&cache, "k");
    cache.domain(DB).publish();
    first.link(2, b"two");
    assert_eq!(version(&cache), None);
}
