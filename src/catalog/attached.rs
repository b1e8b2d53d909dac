//! What higher rooms keep as long as a session knows an installation, without the catalog knowing them.

use std::any::Any;
use std::cell::OnceCell;

/// A value of each type that somebody has asked for, as a list: there are few.
#[derive(Default)]
pub(super) struct Attached {
    here: OnceCell<Link>,
}

struct Link {
    value: Box<dyn Any>,
    rest: Box<Attached>,
}

impl Attached {
    /// The value of a type, made now if there is none yet.
    pub fn get<T: Default + 'static>(&self) -> &T {
        let mut list = self;
        loop {
            let link = list.here.get_or_init(|| Link {
                value: Box::<T>::default(),
                rest: Box::default(),
            });
            if let Some(value) = link.value.downcast_ref() {
                return value;
            }
            list = &link.rest;
        }
    }
}
