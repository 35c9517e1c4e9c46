//! The index decides as the model does, for all sequences of commits that proptest thinks of.

use crate::model::Model;
use longshore_model::change::{Commit, Guard, Key, Version, Write};
use longshore_store::Error;
use longshore_store::index::Index;
use proptest::prelude::*;

fn a_key() -> impl Strategy<Value = Key> {
    prop::sample::select(vec!["a", "a/1", "a/2", "b/1", "b/2", "b"]).prop_map(Key::new)
}

fn a_write() -> impl Strategy<Value = Write> {
    prop_oneof![
        (a_key(), any::<u8>()).prop_map(|(key, value)| Write::Create { key, value: vec![value] }),
        (a_key(), any::<u8>()).prop_map(|(key, value)| Write::Update { key, value: vec![value] }),
        a_key().prop_map(|key| Write::Delete { key }),
    ]
}

fn a_guard() -> impl Strategy<Value = Guard> {
    prop_oneof![
        a_key().prop_map(Guard::Unchanged),
        a_key().prop_map(Guard::Absent),
        prop::sample::select(vec!["", "a", "a/", "b/", "z"])
            .prop_map(|prefix| Guard::NothingNewUnder(prefix.to_owned())),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    /// How many versions back it was decided, the guards, the writes.
    Commit(u64, Vec<Guard>, Vec<Write>),
    Compact(u64),
    Reset,
}

fn a_step() -> impl Strategy<Value = Step> {
    let commit = (0..4u64, prop::collection::vec(a_guard(), 0..3), prop::collection::vec(a_write(), 0..4));
    prop_oneof![
        20 => commit.prop_map(|(back, guards, writes)| Step::Commit(back, guards, writes)),
        1 => (0..6u64).prop_map(Step::Compact),
        1 => Just(Step::Reset),
    ]
}

proptest! {
    #[test]
    fn the_index_decides_as_the_model_does(steps in prop::collection::vec(a_step(), 1..60)) {
        let mut index = Index::default();
        let mut model = Model::default();
        let mut made = Vec::new();
        let mut compacted = Version(0);
        for step in steps {
            let next = Version(index.version().0 + 1);
            let writes = match step {
                Step::Commit(back, guards, writes) => {
                    let read = Version(index.version().0.saturating_sub(back));
                    let commit = Commit { read, guards, writes };
                    let mut keys: Vec<_> = commit.writes.iter().map(Write::key).collect();
                    keys.sort();
                    let twice = keys.windows(2).any(|pair| pair[0] == pair[1]);
                    match index.commit(commit.clone()) {
                        Err(error) => {
                            prop_assert!(twice && matches!(error, Error::DuplicateKey(_)));
                            None
                        }
                        Ok(Err(_)) => {
                            prop_assert!(!twice && !model.takes(&commit));
                            None
                        }
                        Ok(Ok(batch)) => {
                            prop_assert!(!twice && model.takes(&commit));
                            prop_assert_eq!(batch.version, next);
                            model.apply(next, &commit);
                            Some(commit.writes.len())
                        }
                    }
                }
                Step::Compact(back) => {
                    let at = Version(index.version().0.saturating_sub(back));
                    index.compact(at);
                    compacted = compacted.max(at);
                    None
                }
                Step::Reset => {
                    let writes: Vec<_> =
                        model.records("").into_keys().map(|key| Write::Delete { key }).collect();
                    let count = writes.len();
                    model.apply(next, &Commit { read: index.version(), guards: vec![], writes });
                    prop_assert_eq!(index.reset().version, next);
                    Some(count)
                }
            };
            made.extend(writes.map(|count| (next, count)));
            prop_assert!(index.keys().eq(model.records("").keys()));
        }
        for since in (0..=index.version().0).map(Version) {
            match index.changes_since(since) {
                Err(error) => {
                    let compacted_error = matches!(error, Error::Compacted { .. });
                    prop_assert!(compacted_error && since < compacted);
                }
                Ok(batches) => {
                    prop_assert!(since >= compacted);
                    let seen = batches.iter().map(|batch| (batch.version, batch.changes.len()));
                    prop_assert!(seen.eq(made.iter().copied().filter(|(version, _)| *version > since)));
                }
            }
        }
    }
}
