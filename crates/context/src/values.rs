//! Merging two values that both changed.

use std::collections::HashMap;

use state_cache_document::{
    DocumentError, Member, StackGuard, array, elements, is_array, is_object, members, object,
};
use state_cache_memory::{Grow, room_in_map};

/// The three-way merge of two objects, in depth. `bases` are what the parent and the child have started from, mostly
/// the same; no base, or one that is no object, is as `{}`.
///
/// A member that the parent has as the child began with it, or that one side left as in its base, becomes what the
/// other made of it, be it gone; but what the child changed of an object or array that the parent never had, and has
/// not changed since, is done to the one that the parent has. Of a member that both changed, and differently: objects
/// on both sides are merged in turn; where one side removed it the other's value stays; else the value of the side
/// that is later is taken.
///
/// # Errors
/// [`DocumentError::NotAnObject`] if a side is none; [`DocumentError::Damaged`]; [`DocumentError::TooLarge`]; and
/// what `guard` raises, which is called at each level of the recursion.
pub fn merge_objects(
    bases: [Option<&[u8]>; 2],
    parent: &[u8],
    child: &[u8],
    child_is_later: bool,
    guard: StackGuard,
) -> Result<Vec<u8>, DocumentError> {
    guard();
    let [parent_base, child_base] = bases.map(|base| base.filter(|base| is_object(base)));
    let mut parent_base = parent_base
        .map_or(Ok(Vec::new()), members)?
        .into_iter()
        .peekable();
    let mut child_base = child_base
        .map_or(Ok(Vec::new()), members)?
        .into_iter()
        .peekable();
    let mut parent = members(parent)?.into_iter().peekable();
    let mut child = members(child)?.into_iter().peekable();
    let mut merged: Vec<Member<'_>> = Vec::new();
    loop {
        let heads = [
            parent_base.peek(),
            child_base.peek(),
            parent.peek(),
            child.peek(),
        ];
        let next = heads.into_iter().flatten().map(|(key, _)| *key);
        let Some(key) = next.min_by_key(|key| (key.len(), *key)) else {
            return object(&merged);
        };
        let is_next = |member: &Member<'_>| member.0 == key;
        let value = |(_, value)| value;
        let parent_base = parent_base.next_if(is_next).map(value);
        let child_base = child_base.next_if(is_next).map(value);
        let parent = parent.next_if(is_next).map(value);
        let child = child.next_if(is_next).map(value);
        let only_child_changed = parent == parent_base;
        let result = if parent == child || child == child_base {
            parent
        } else if parent == child_base {
            child
        } else {
            match (parent, child) {
                (Some(parent), Some(child)) if is_object(&parent) && is_object(&child) => {
                    let bases = [parent_base.as_deref(), child_base.as_deref()];
                    Some(merge_objects(bases, &parent, &child, child_is_later, guard)?.into())
                }
                (Some(parent), Some(child))
                    if only_child_changed && is_array(&parent) && is_array(&child) =>
                {
                    Some(concatenate(child_base.as_deref(), &parent, &child)?.into())
                }
                (_, child) if only_child_changed => child,
                (Some(_), Some(child)) if child_is_later => Some(child),
                (parent, child) => parent.or(child),
            }
        };
        if let Some(value) = result {
            merged.try_push((key, value))?;
        }
    }
}

/// The parent's array, and behind it the elements that the child's has and the base has not, in the child's order. An
/// element that is there more than once counts as often. No base, or one that is no array, is as `[]`.
///
/// # Errors
/// [`DocumentError::NotAnArray`] if a side is none; [`DocumentError::Damaged`]; [`DocumentError::TooLarge`].
pub fn concatenate(
    base: Option<&[u8]>,
    parent: &[u8],
    child: &[u8],
) -> Result<Vec<u8>, DocumentError> {
    let base = match base {
        Some(base) if is_array(base) => elements(base)?,
        _ => Vec::new(),
    };
    let mut known: HashMap<&[u8], usize> = HashMap::new();
    room_in_map(&mut known, base.len())?;
    for element in &base {
        *known.entry(element).or_default() += 1;
    }
    let mut all = elements(parent)?;
    for element in elements(child)? {
        match known.get_mut(&*element) {
            Some(count) if *count > 0 => *count -= 1,
            _ => all.try_push(element)?,
        }
    }
    array(&all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::cell::Cell;

    use super::*;
    use crate::support::{jsonb, value};
    use serde_json::{Value, json};

    thread_local! {
        static CALLS: Cell<usize> = const { Cell::new(0) };
    }

    fn count() {
        CALLS.set(CALLS.get() + 1);
    }

    fn merged(base: &Value, parent: &Value, child: &Value, child_is_later: bool) -> Value {
        let (base, parent, child) = (jsonb(base), jsonb(parent), jsonb(child));
        let merged =
            merge_objects([Some(&base); 2], &parent, &child, child_is_later, count).unwrap();
        assert_eq!(merged, jsonb(&value(&merged)), "not what the server builds");
        value(&merged)
    }

    #[test]
    fn what_one_side_changed_is_taken() {
        let base = json!({"left": 1, "ours": 1, "theirs": 1, "gone": 1, "lost": 1, "in": {"a": 1, "b": 1}});
        let parent =
            json!({"left": 1, "ours": 2, "theirs": 1, "lost": 1, "new": 1, "in": {"a": 2, "b": 1}});
        let child = json!({"left": 1, "ours": 1, "theirs": 3, "gone": 1, "add": 1, "in": {"a": 1, "b": 3, "c": []}});
        for child_is_later in [false, true] {
            assert_eq!(
                merged(&base, &parent, &child, child_is_later),
                json!({"left": 1, "ours": 2, "theirs": 3, "new": 1, "add": 1, "in": {"a": 2, "b": 3, "c": []}})
            );
        }
    }

    #[test]
    fn what_both_changed_is_the_later_side_s() {
        let base = json!({"n": 1, "list": [1], "kind": {"a": 1}, "same": 1});
        let parent =
            json!({"n": 2, "list": [1, 2], "kind": {"a": 2}, "same": 5, "both": {"p": 1, "q": 1}});
        let child =
            json!({"n": 3, "list": [1, 3], "kind": [], "same": 5, "both": {"c": 1, "q": 2}});
        assert_eq!(
            merged(&base, &parent, &child, false),
            json!({"n": 2, "list": [1, 2], "kind": {"a": 2}, "same": 5, "both": {"p": 1, "c": 1, "q": 1}})
        );
        assert_eq!(
            merged(&base, &parent, &child, true),
            json!({"n": 3, "list": [1, 3], "kind": [], "same": 5, "both": {"p": 1, "c": 1, "q": 2}})
        );
    }

    #[test]
    fn a_change_survives_a_removal() {
        let base = json!({"a": 1, "b": 1, "c": {"d": 1, "e": 1}});
        for child_is_later in [false, true] {
            assert_eq!(
                merged(&base, &json!({"a": 2}), &json!({"b": 2}), child_is_later),
                json!({"a": 2, "b": 2})
            );
            assert_eq!(
                merged(&base, &json!({"c": {"d": 2}}), &json!({}), child_is_later),
                json!({"c": {"d": 2}})
            );
            assert_eq!(merged(&base, &base, &json!({}), child_is_later), json!({}));
        }
    }

    #[test]
    fn a_base_of_another_kind_is_none() {
        let (parent, child) = (json!({"a": 1, "b": 1}), json!({"a": 2, "c": 1}));
        for base in [json!([1]), json!("x"), json!({})] {
            assert_eq!(
                merged(&base, &parent, &child, true),
                json!({"a": 2, "b": 1, "c": 1})
            );
        }
        let (parent, child) = (jsonb(&parent), jsonb(&child));
        let without = merge_objects([None; 2], &parent, &child, true, count).unwrap();
        assert_eq!(value(&without), json!({"a": 2, "b": 1, "c": 1}));
        let list = jsonb(&json!([]));
        let refused = merge_objects([None; 2], &parent, &list, true, count);
        assert_eq!(refused, Err(DocumentError::NotAnObject));
    }

    #[test]
    fn the_guard_is_called_at_each_level() {
        let nest = |leaf| (0..50).fold(json!(leaf), |inner, _| json!({"in": inner}));
        CALLS.set(0);
        assert_eq!(merged(&nest(1), &nest(2), &nest(3), true), nest(3));
        assert_eq!(CALLS.get(), 50);
        // What only one side changed is not looked into.
        CALLS.set(0);
        assert_eq!(merged(&nest(1), &nest(1), &nest(3), true), nest(3));
        assert_eq!(CALLS.get(), 1);
    }

    #[test]
    fn an_array_gets_what_the_child_added() {
        let concatenated = |base: Value, parent: Value, child: Value| {
            let (base, parent, child) = (jsonb(&base), jsonb(&parent), jsonb(&child));
            value(&concatenate(Some(&base), &parent, &child).unwrap())
        };
        assert_eq!(
            concatenated(json!([1, 2]), json!([1, 2, 3]), json!([1, 2, 4, {"a": 1}])),
            json!([1, 2, 3, 4, {"a": 1}])
        );
        // What the child removed is not removed, and its order does not matter.
        assert_eq!(
            concatenated(json!([1, 2]), json!([2, 1, 9]), json!([5, 2])),
            json!([2, 1, 9, 5])
        );
        // As often as the base has it, and no more.
        assert_eq!(
            concatenated(json!([1, 1]), json!([7]), json!([1, 1, 1, [1]])),
            json!([7, 1, [1]])
        );
        // Also what the parent added as well.
        assert_eq!(
            concatenated(json!("x"), json!([1]), json!([1, 2])),
            json!([1, 1, 2])
        );
        let (list, scalar) = (jsonb(&json!([1])), jsonb(&json!(1)));
        let refused = Err(DocumentError::NotAnArray);
        assert_eq!(concatenate(None, &list, &scalar), refused);
        assert_eq!(concatenate(None, &scalar, &list), refused);
    }
}
