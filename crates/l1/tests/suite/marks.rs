//! Fills that must not install an old value, and entries that a domain takes with it.

use state_cache_l1::{ClassId, FillToken, MIN_MEMORY};

use crate::support::{Cache, DB, INCARNATION, key, key_in, new_entry};

/// Begins a fill, lets `meanwhile` happen, ends the fill; was it linked?
fn fill_despite(meanwhile: impl FnOnce(&Cache)) -> bool {
    let cache = Cache::new(MIN_MEMORY);
    let token = cache.fill_token(&key("k")).unwrap();
    let block = cache
        .reserve(&new_entry(key("k"), ClassId::OTHER, 1, b"filled"))
        .unwrap();
    meanwhile(&cache);
    let linked = cache.link_if_unchanged(block, token);
    // Refused means discarded: nothing is lost, and what is there was not filled.
    assert_eq!(cache.verify().unwrap().elsewhere, 0);
    assert_eq!(
        cache
            .get(&key("k"))
            .is_some_and(|(_, value)| value == b"filled"),
        linked
    );
    linked
}

#[test]
fn a_fill_that_nothing_disturbs_is_linked() {
    assert!(fill_despite(|_| ()));
}

#[test]
fn a_fill_is_refused_while_a_commit_is_in_progress() {
    assert!(!fill_despite(|cache| cache.stripe(key("k").id).raise()));
}

#[test]
fn a_fill_is_refused_after_a_commit_has_published() {
    assert!(!fill_despite(|cache| {
        let stripe = cache.stripe(key("k").id);
        stripe.raise();
        cache.put(&key("k"), 2, b"committed").unwrap();
        stripe.publish();
        stripe.lower();
    }));
}

#[test]
fn a_fill_is_linked_after_a_commit_has_aborted() {
    assert!(fill_despite(|cache| {
        cache.stripe(key("k").id).raise();
        cache.stripe(key("k").id).lower();
    }));
}

#[test]
fn a_fill_is_refused_while_its_domain_changes() {
    assert!(!fill_despite(|cache| cache.domain(DB).raise()));
}

#[test]
fn a_fill_is_refused_after_its_domain_has_changed() {
    assert!(!fill_despite(|cache| cache.domain(DB).publish()));
}

#[test]
fn no_fill_begins_while_a_commit_is_in_progress() {
    let cache = Cache::new(MIN_MEMORY);
    for mark in [cache.stripe(key("k").id), cache.domain(DB)] {
        mark.raise();
        assert_eq!(cache.fill_token(&key("k")), None);
        mark.lower();
    }
    let token = FillToken {
        stripe_generation: 0,
        domain_generation: 0,
    };
    assert_eq!(cache.fill_token(&key("k")), Some(token));
}

#[test]
fn a_changed_domain_makes_its_entries_unreadable() {
    let cache = Cache::new(MIN_MEMORY);
    let elsewhere = key_in(DB + 1, INCARNATION, b"run", b"k");
    cache.put(&key("k"), 1, b"old").unwrap();
    cache.put(&elsewhere, 1, b"other").unwrap();
    cache.domain(DB).publish();
    assert!(!cache.has(&key("k")));
    assert!(cache.has(&elsewhere));
    let mut listed = 0;
    cache
        .for_each(DB, INCARNATION, |_, _, _| listed += 1)
        .unwrap();
    assert_eq!(listed, 0);
    // A commit after it is readable, and replaces the stale entry.
    cache.put(&key("k"), 2, b"new").unwrap();
    assert_eq!(cache.get(&key("k")), Some((2, b"new".to_vec())));
    assert_eq!(cache.verify().unwrap().entries, 2);
}

#[test]
fn the_newest_of_two_links_is_read() {
    let cache = Cache::new(MIN_MEMORY);
    cache.put(&key("k"), 1, &[1; 5000]).unwrap();
    cache.put(&key("k"), 2, &[2; 10]).unwrap();
    assert_eq!(cache.get(&key("k")), Some((2, vec![2; 10])));
    assert_eq!(cache.memory().entries, 1);
}
