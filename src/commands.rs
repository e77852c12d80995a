//! The commands that need more than a call of the library.

pub(crate) mod aspects;
pub(crate) mod check;
pub(crate) mod copy;
pub(crate) mod health;
pub(crate) mod leases;
pub(crate) mod letters;
pub(crate) mod streams;
pub(crate) mod test;
