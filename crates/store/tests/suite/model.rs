//! A store written for being obviously right, and engines compared with it.

use crate::support::*;
use longshore_model::change::{Commit, Guard, Key, Version, Write};
use longshore_store::{Engine, Outcome};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Everything that ever happened; every question is answered by going through it.
#[derive(Default)]
pub struct Model {
    log: Vec<(Version, Key, Option<Vec<u8>>)>,
}

impl Model {
    /// The version and value that a key has now.
    fn get(&self, key: &Key) -> Option<(Version, &Vec<u8>)> {
        let (version, _, value) = self.log.iter().rev().find(|(_, written, _)| written == key)?;
        value.as_ref().map(|value| (*version, value))
    }

    pub fn records(&self, prefix: &str) -> BTreeMap<Key, Vec<u8>> {
        let keys = self.log.iter().map(|(_, key, _)| key).filter(|key| key.as_str().starts_with(prefix));
        keys.filter_map(|key| Some((key.clone(), self.get(key)?.1.clone()))).collect()
    }

    pub fn takes(&self, commit: &Commit) -> bool {
        let as_read = |key: &Key| self.get(key).is_some_and(|(version, _)| version <= commit.read);
        let writes = commit.writes.iter().all(|write| match write {
            Write::Create { key, .. } => self.get(key).is_none(),
            Write::Update { key, .. } | Write::Delete { key } => as_read(key),
        });
        let guards = commit.guards.iter().all(|guard| match guard {
            Guard::Unchanged(key) => as_read(key),
            Guard::Absent(key) => self.get(key).is_none(),
            Guard::NothingNewUnder(prefix) => self.records(prefix).keys().all(as_read),
        });
        writes && guards
    }

    pub fn apply(&mut self, version: Version, commit: &Commit) {
        for write in &commit.writes {
            self.log.push((version, write.key().clone(), write.value().map(<[u8]>::to_vec)));
        }
    }
}

pub async fn random_commits_do_what_the_model_does(engine: Arc<dyn Engine>) {
    let mut chance = Chance(7);
    let mut model = Model::default();
    let start = engine.load("").await.unwrap().version;
    let mut versions = vec![start];
    let mut expected = Vec::new();
    let mut refusals = 0;
    for step in 0..400 {
        let commit = random_commit(&mut chance, &versions, step);
        let takes = model.takes(&commit);
        match engine.commit(commit.clone()).await.unwrap() {
            Outcome::Committed(version) => {
                assert!(takes, "step {step}: {commit:?} was taken as {version}");
                model.apply(version, &commit);
                versions.push(version);
                expected.push((version, commit.writes));
            }
            Outcome::Conflict { key, version } => {
                assert!(!takes, "step {step}: {commit:?} was refused for {key} at {version}");
                assert!(versions.contains(&version), "step {step}: nobody made {version}");
                refusals += 1;
            }
        }
    }
    assert!(refusals > 50 && expected.len() > 50, "{refusals} refused, {} taken", expected.len());
    let loaded = engine.load("").await.unwrap().entries.into_iter();
    let loaded: BTreeMap<Key, Vec<u8>> = loaded.map(|(key, value)| (key, value.to_vec())).collect();
    assert_eq!(loaded, model.records(""));
    let mut changes = engine.changes(start).await.unwrap();
    for (version, writes) in expected {
        let batch = next_batch(&mut changes).await;
        assert_eq!(batch.version, version);
        let written = writes.iter().map(|write| (write.key(), write.value()));
        assert!(batch.changes.iter().map(|change| (&change.key, change.value.as_deref())).eq(written));
    }
}

/// Few keys and versions read a little while ago, so that about half of them conflict.
fn random_commit(chance: &mut Chance, versions: &[Version], step: u64) -> Commit {
    let back = usize::try_from(chance.below(4)).unwrap();
    let read = versions[versions.len().saturating_sub(1 + back)];
    let mut names = ["a", "a/x", "a/y", "b/x", "b/y", "c"].map(Key::new).to_vec();
    let mut draw = |chance: &mut Chance| {
        let at = usize::try_from(chance.below(names.len() as u64)).unwrap();
        names.remove(at)
    };
    let writes = (0..1 + chance.below(3)).map(|n| {
        let value = format!("{step}.{n}").into_bytes();
        match chance.below(5) {
            0 | 1 => Write::Create { key: draw(chance), value },
            2 | 3 => Write::Update { key: draw(chance), value },
            _ => Write::Delete { key: draw(chance) },
        }
    });
    let writes = writes.collect();
    let guards = (0..chance.below(3)).map(|_| match chance.below(4) {
        0 | 1 => Guard::NothingNewUnder(["a/", "b/", "c", "z"][chance.below(4) as usize].to_owned()),
        2 => Guard::Unchanged(draw(chance)),
        _ => Guard::Absent(draw(chance)),
    });
    let guards = guards.collect();
    Commit { read, guards, writes }
}
