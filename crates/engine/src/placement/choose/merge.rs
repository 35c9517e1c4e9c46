//! Some ordered sets as one sequence.

use imbl::OrdSet;
use imbl::ordset::RangedIter;
use imbl::shared_ptr::DefaultSharedPtr;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// What is in the sets from `from` on, in order. A set is walked only if the sequence is read as far as its first.
pub fn merge<'a, T: Ord + Copy + 'a>(
    sets: impl Iterator<Item = &'a OrdSet<T>>,
    from: T,
) -> impl Iterator<Item = T> + 'a {
    let mut walks: Vec<Walk<'a, T>> = sets.map(|set| Walk { set, rest: None }).collect();
    let heads = walks.iter().enumerate().filter_map(|(number, walk)| {
        let head = walk.set.get_next(&from)?;
        Some(Reverse((*head, number)))
    });
    let mut heads: BinaryHeap<_> = heads.collect();
    std::iter::from_fn(move || {
        let mut top = heads.peek_mut()?;
        let Reverse((value, number)) = *top;
        match walks.get_mut(number).and_then(|walk| walk.after(value)) {
            Some(next) => *top = Reverse((next, number)),
            None => {
                PeekMut::pop(top);
            }
        }
        Some(value)
    })
}

struct Walk<'a, T> {
    set: &'a OrdSet<T>,
    rest: Option<RangedIter<'a, T, DefaultSharedPtr>>,
}

impl<T: Ord + Copy> Walk<'_, T> {
    /// What comes after the first, the first time, and then after what came the last time.
    fn after(&mut self, first: T) -> Option<T> {
        let begin = || {
            let mut rest = self.set.range(first..);
            rest.next();
            rest
        };
        self.rest.get_or_insert_with(begin).next().copied()
    }
}
