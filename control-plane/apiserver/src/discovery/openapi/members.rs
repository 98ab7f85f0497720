//! Objects of JSON that are made member by member as they are written: documents are longer than what they are made of.
//! Both versions of the document are written so. Pure.

use serde::{Serialize, Serializer};

/// An object whose members are told anew each time that it is written.
pub struct Members<F>(pub F);

impl<F, I, K, V> Serialize for Members<F>
where
    F: Fn() -> I,
    I: IntoIterator<Item = (K, V)>,
    K: Serialize,
    V: Serialize,
{
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map((self.0)())
    }
}
