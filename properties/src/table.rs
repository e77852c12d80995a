//! The iteration order of a `java.util.Properties`, which is not the order of the file.
//!
//! Since JDK 9 the pairs are in a `ConcurrentHashMap` that starts with 16 bins. This module simulates only what
//! determines the order: the bin of each key, when the table doubles, how a doubling reorders a bin, and that a
//! bin of more than eight keys becomes a tree that inserts new keys at its front. JDK 8 iterated in another
//! order.

/// `String.hashCode`: over UTF-16 units, wrapping at 32 bits.
pub fn java_hash(text: &str) -> i32 {
    hash(text.encode_utf16())
}

/// [`java_hash`] of a text that may hold lone surrogates.
pub(crate) fn hash(units: impl IntoIterator<Item = u16>) -> i32 {
    units.into_iter().fold(0, |sum: i32, unit| sum.wrapping_mul(31).wrapping_add(unit.into()))
}

/// Number of bins of a new `Properties`.
const FIRST_SIZE: usize = 16;
/// A list that had at least this many keys before a put becomes a tree (`TREEIFY_THRESHOLD`).
const TREE_FROM: usize = 8;
/// A half of a tree with at most this many keys becomes a list after a doubling (`UNTREEIFY_THRESHOLD`).
const LIST_UNTIL: usize = 6;
/// A table with fewer bins grows instead of creating trees (`MIN_TREEIFY_CAPACITY`).
const SMALLEST_WITH_TREES: usize = 64;

/// The iteration order after the given sequence of puts.
///
/// Each put is the key's hash and a number that identifies the key; the result contains each number once.
pub(crate) fn order(puts: impl IntoIterator<Item = (i32, usize)>) -> Vec<usize> {
    let mut table = Table { bins: vec![Bin::default(); FIRST_SIZE], keys: 0 };
    for (hash, id) in puts {
        table.put(Node { spread: spread(hash), id });
    }
    table.bins.iter().flat_map(|bin| &bin.nodes).map(|node| node.id).collect()
}

/// Folds the high half of the hash into the low half and clears the sign bit (`ConcurrentHashMap.spread`).
fn spread(hash: i32) -> usize {
    let hash = hash.cast_unsigned();
    // 31 bits fit into `usize` on every supported platform.
    usize::try_from((hash ^ (hash >> 16)) & 0x7fff_ffff).unwrap_or_default()
}

#[derive(Clone, Copy)]
struct Node {
    spread: usize,
    id: usize,
}

#[derive(Clone, Default)]
struct Bin {
    nodes: Vec<Node>,
    is_tree: bool,
}

struct Table {
    bins: Vec<Bin>,
    keys: usize,
}

impl Table {
    fn put(&mut self, node: Node) {
        let size = self.bins.len();
        let Some(bin) = self.bins.get_mut(node.spread & (size - 1)) else { return };
        let known = bin.nodes.iter().position(|old| old.id == node.id);
        if bin.is_tree {
            if known.is_none() {
                bin.nodes.insert(0, node);
            }
        } else {
            // Java counts the nodes up to and including the found one, even if it only replaces a value.
            let passed = known.map_or(bin.nodes.len(), |index| index + 1);
            if known.is_none() {
                bin.nodes.push(node);
            }
            if passed >= TREE_FROM {
                if size >= SMALLEST_WITH_TREES {
                    bin.is_tree = true;
                } else {
                    // `tryPresize` targets twice the size and overshoots: it stops when the next limit reaches
                    // four times the size.
                    while self.limit() < 4 * size {
                        self.double();
                    }
                }
            }
        }
        if known.is_none() {
            self.keys += 1;
            while self.keys >= self.limit() {
                self.double();
            }
        }
    }

    /// The number of keys at which the table doubles: three quarters of its bins (`sizeCtl`).
    fn limit(&self) -> usize {
        self.bins.len() - self.bins.len() / 4
    }

    fn double(&mut self) {
        let size = self.bins.len();
        let mut upper = Vec::with_capacity(size);
        for bin in &mut self.bins {
            let (low, high) = std::mem::take(bin).split(size);
            *bin = low;
            upper.push(high);
        }
        self.bins.append(&mut upper);
    }
}

impl Bin {
    /// Partitions the keys by the additional hash bit that selects a bin in the doubled table.
    fn split(self, bit: usize) -> (Self, Self) {
        let is_high = |node: &Node| node.spread & bit != 0;
        if self.is_tree {
            let (high, low): (Vec<_>, Vec<_>) = self.nodes.into_iter().partition(is_high);
            let tree = |nodes: Vec<Node>| Self { is_tree: nodes.len() > LIST_UNTIL, nodes };
            return (tree(low), tree(high));
        }
        // The longest tail that belongs to one half is reused as it is; each earlier node is inserted at the
        // front of its half, so these are reversed.
        let tail_is_high = self.nodes.last().is_some_and(is_high);
        let tail = self.nodes.iter().rev().take_while(|node| is_high(node) == tail_is_high).count();
        let (head, tail) = self.nodes.split_at(self.nodes.len() - tail);
        let side = |high: bool| {
            let moved = head.iter().rev().filter(|node| is_high(node) == high);
            let kept = tail.iter().filter(|_| tail_is_high == high);
            Self { nodes: moved.chain(kept).copied().collect(), is_tree: false }
        };
        (side(false), side(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_covers_utf16_units_and_wraps() {
        assert_eq!(java_hash(""), 0);
        assert_eq!(java_hash("Aa"), java_hash("BB"));
        assert_eq!(java_hash("polygenelubricants"), i32::MIN);
        assert_eq!(java_hash("\u{1f600}"), 0xd83d * 31 + 0xde00);
    }

    #[test]
    fn bins_iterate_upwards_and_keys_in_insertion_order() {
        assert_eq!(order([(3, 0), (1, 1), (17, 2), (3, 0)]), [1, 2, 0]);
    }

    #[test]
    fn twelfth_key_doubles_the_table() {
        let eleven = [16, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
        let puts = |hashes: &[i32]| order(hashes.iter().copied().zip(0..));
        assert_eq!(puts(&eleven).first(), Some(&0), "16 and 0 share a bin");
        let mut twelve = eleven.to_vec();
        twelve.push(10);
        assert_eq!(puts(&twelve).last(), Some(&0), "16 has its own bin");
    }

    #[test]
    fn equal_hashes_grow_the_table_then_become_a_tree() {
        let found = order((0..11).map(|id| (5, id)));
        assert_eq!(found, [10, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    }
}
