//! A commit as an etcd transaction. Invariant: its comparisons hold exactly when [`crate::index::Index`] would take
//! the commit, and a refusal names the key that the index would name.

use super::{Names, revision, version};
use crate::engine::{Error, Outcome};
use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};
use longshore_model::change::{Commit, Guard, Key, Version, Write};

/// The conditions, the writes, and what to read when a condition fails.
pub fn of(names: &Names, commit: &Commit, limit: usize) -> Result<Txn, Error> {
    let conditions = conditions(commit);
    let compares: Vec<Compare> = conditions.iter().flat_map(|c| c.compares(names, commit.read)).collect();
    let mut writes: Vec<TxnOp> = commit.writes.iter().map(|write| operation(names, write)).collect();
    let deletes = commit.writes.iter().any(|write| matches!(write, Write::Delete { .. }));
    if deletes || writes.is_empty() {
        writes.push(TxnOp::put(names.mark(), "", None));
    }
    let mut reads = vec![TxnOp::get(names.mark(), Some(GetOptions::new().with_keys_only()))];
    reads.extend(conditions.iter().map(|condition| condition.read(names, commit.read)));
    let size = compares.len().max(writes.len()).max(reads.len());
    if size > limit {
        return Err(Error::TooLarge { size, limit });
    }
    Ok(Txn::new().when(compares).and_then(writes).or_else(reads))
}

pub fn outcome(names: &Names, commit: &Commit, answer: &TxnResponse) -> Outcome {
    if answer.succeeded() {
        return Outcome::Committed(version(answer.header().map_or(0, |header| header.revision())));
    }
    let mut found = answer.op_responses().into_iter().map(first_found);
    let mark = found.next().flatten().map_or(commit.read, |(_, written)| written);
    let mut refused: Option<(Key, Version)> = None;
    for (condition, found) in conditions(commit).into_iter().zip(found) {
        let Some(at) = condition.refusal(found.as_ref(), commit.read, mark) else { continue };
        let named = match (condition, &found) {
            (Condition::NothingNewUnder(prefix), found) => {
                found.as_ref().and_then(|(name, _)| names.key(name)).unwrap_or_else(|| Key::new(prefix))
            }
            (Condition::Present(key) | Condition::Absent(key), _) => key.clone(),
        };
        // The first one is named; the next attempt is to see all of them.
        refused = Some(match refused {
            None => (named, at),
            Some((first, before)) => (first, before.max(at)),
        });
    }
    // etcd refused it, so one of the conditions failed; without an answer nothing more is known than that.
    let (key, version) = refused.unwrap_or_else(|| (Key::new(""), commit.read));
    Outcome::Conflict { key, version }
}

/// What must hold of a key or a prefix.
#[derive(Clone, Copy)]
enum Condition<'a> {
    /// It exists and was not written after the version read.
    Present(&'a Key),
    Absent(&'a Key),
    NothingNewUnder(&'a str),
}

/// In the order in which the index looks at them.
fn conditions(commit: &Commit) -> Vec<Condition<'_>> {
    let of_writes = commit.writes.iter().map(|write| match write {
        Write::Create { key, .. } => Condition::Absent(key),
        Write::Update { key, .. } | Write::Delete { key } => Condition::Present(key),
    });
    let of_guards = commit.guards.iter().map(|guard| match guard {
        Guard::Unchanged(key) => Condition::Present(key),
        Guard::Absent(key) => Condition::Absent(key),
        Guard::NothingNewUnder(prefix) => Condition::NothingNewUnder(prefix),
    });
    of_writes.chain(of_guards).collect()
}

impl Condition<'_> {
    fn compares(self, names: &Names, read: Version) -> Vec<Compare> {
        let after = revision(read).saturating_add(1);
        match self {
            Self::Absent(key) => {
                vec![Compare::create_revision(names.record(key.as_str()), CompareOp::Equal, 0)]
            }
            // A key that is gone has modification revision 0: not written after, and still not as it was.
            Self::Present(key) => vec![
                Compare::create_revision(names.record(key.as_str()), CompareOp::Greater, 0),
                Compare::mod_revision(names.record(key.as_str()), CompareOp::Less, after),
            ],
            Self::NothingNewUnder(prefix) => {
                vec![Compare::mod_revision(names.record(prefix), CompareOp::Less, after).with_prefix()]
            }
        }
    }

    fn read(self, names: &Names, read: Version) -> TxnOp {
        let options = GetOptions::new().with_keys_only();
        match self {
            Self::Absent(key) | Self::Present(key) => TxnOp::get(names.record(key.as_str()), Some(options)),
            Self::NothingNewUnder(prefix) => {
                let newer = options.with_prefix().with_min_mod_revision(revision(read).saturating_add(1));
                TxnOp::get(names.record(prefix), Some(newer.with_limit(1)))
            }
        }
    }

    /// As of which version the condition fails; `mark` is when a key was deleted last.
    fn refusal(self, found: Option<&(Vec<u8>, Version)>, read: Version, mark: Version) -> Option<Version> {
        match (self, found) {
            (Self::Absent(_), None) | (Self::NothingNewUnder(_), None) => None,
            (Self::Absent(_), Some((_, written))) => Some(*written),
            (Self::Present(_), None) => Some(mark),
            (Self::Present(_) | Self::NothingNewUnder(_), Some((_, written))) => {
                (*written > read).then_some(*written)
            }
        }
    }
}

fn operation(names: &Names, write: &Write) -> TxnOp {
    match write {
        Write::Create { key, value } | Write::Update { key, value } => {
            TxnOp::put(names.record(key.as_str()), value.as_slice(), None)
        }
        Write::Delete { key } => TxnOp::delete(names.record(key.as_str()), None),
    }
}

fn first_found(answer: TxnOpResponse) -> Option<(Vec<u8>, Version)> {
    let TxnOpResponse::Get(found) = answer else { return None };
    found.kvs().first().map(|kv| (kv.key().to_vec(), version(kv.mod_revision())))
}
