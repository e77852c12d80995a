//! A value for each stream that a worker knows.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::identifier::StreamIdentifier;

/// A value for each stream of a lease table. Clones share the values.
#[derive(Debug)]
pub enum ByStream<T> {
    /// For the only stream of a table of one stream.
    One(T),
    /// For each known stream of a table of several streams.
    Several(Arc<RwLock<BTreeMap<StreamIdentifier, T>>>),
}

impl<T: Clone> Clone for ByStream<T> {
    fn clone(&self) -> Self {
        match self {
            Self::One(value) => Self::One(value.clone()),
            Self::Several(values) => Self::Several(values.clone()),
        }
    }
}

impl<T: Clone> ByStream<T> {
    /// For a table of several streams, none of which is known yet.
    pub fn several() -> Self {
        Self::Several(Arc::default())
    }

    /// The value for the stream that the key of a lease names. None for a stream that has none, and for a key of the other
    /// kind of table.
    pub fn get(&self, stream: Option<&StreamIdentifier>) -> Option<T> {
        match (self, stream) {
            (Self::One(value), None) => Some(value.clone()),
            (Self::Several(values), Some(stream)) => {
                values.read().unwrap_or_else(PoisonError::into_inner).get(stream).cloned()
            }
            (Self::One(_), Some(_)) | (Self::Several(_), None) => None,
        }
    }

    /// Sets the value for one of several streams.
    pub fn insert(&self, stream: StreamIdentifier, value: T) {
        match self {
            Self::Several(values) => {
                values.write().unwrap_or_else(PoisonError::into_inner).insert(stream, value);
            }
            Self::One(_) => debug_assert!(false, "a table of one stream has no other"),
        }
    }

    /// Whether one of several streams has a value.
    pub fn has(&self, stream: &StreamIdentifier) -> bool {
        match self {
            Self::Several(values) => {
                values.read().unwrap_or_else(PoisonError::into_inner).contains_key(stream)
            }
            Self::One(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_of_a_stream_is_found_in_its_kind_of_table_only() {
        let [orders, payments] =
            ["1:orders:5", "1:payments:5"].map(|text| StreamIdentifier::parse(text).unwrap());
        let one = ByStream::One(7);
        assert_eq!((one.get(None), one.get(Some(&orders))), (Some(7), None));
        let several = ByStream::several();
        let shared = several.clone();
        shared.insert(orders.clone(), 8);
        assert_eq!(several.get(Some(&orders)), Some(8), "clones share the values");
        assert_eq!((several.get(Some(&payments)), several.get(None)), (None, None));
        assert!(several.has(&orders) && !several.has(&payments));
    }
}
