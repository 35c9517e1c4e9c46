//! Restart policies. Invariant: an exit that leads to another start is never reported; a restart is written down
//! before it is begun and again when it is done, so that an agent killed in between finishes it and counts it once.
//!
//! <https://docs.aws.amazon.com/AmazonECS/latest/developerguide/container-restart-policy.html>

use super::containers::Held;
use super::prepare::chain;
use super::start::is_away;
use super::{Done, RETRY, Supervisor, order};
use crate::runtime::{StartError, Started};
use longshore_model::Timestamp;
use longshore_model::link::{ContainerSpec, ContainerState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// An exit of which it is not decided yet what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsettled {
    /// It may be the end of the container.
    Fresh { ran: Duration },
    /// An earlier agent has written down that the container is started again.
    UnderWay,
}

/// What is written down of a container's restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    pub count: u32,
    /// The exit after which a restart is under way.
    pub exit: Option<Exit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    pub code: i32,
    pub at: Timestamp,
    pub out_of_memory: bool,
}

impl Exit {
    pub fn state(self) -> ContainerState {
        let Self { code, at, out_of_memory } = self;
        ContainerState::Exited { code, at, out_of_memory }
    }

    fn of(state: &ContainerState) -> Option<Self> {
        match *state {
            ContainerState::Exited { code, at, out_of_memory } => Some(Self { code, at, out_of_memory }),
            ContainerState::Waiting | ContainerState::Running | ContainerState::Gone { .. } => None,
        }
    }
}

impl Note {
    fn text(self) -> String {
        match self.exit {
            Some(exit) => format!("{} {} {} {}", self.count, exit.code, exit.at.millis(), exit.out_of_memory),
            None => self.count.to_string(),
        }
    }

    fn read(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let count = words.next()?.parse().ok()?;
        let mut exit = || {
            let code = words.next()?.parse().ok()?;
            let at = Timestamp(words.next()?.parse().ok()?);
            Some(Exit { code, at, out_of_memory: words.next()?.parse().ok()? })
        };
        Some(Self { count, exit: exit() })
    }
}

impl Supervisor {
    /// Decides of the containers that ended whether they are started again.
    pub(super) fn settle_exits(&mut self) {
        for index in 0..self.containers.len() {
            let stopping = self.must_stop();
            let Some(held) = self.containers.get_mut(index) else { continue };
            let Some(unsettled) = held.unsettled.take() else { continue };
            let Some(exit) = Exit::of(held.state()) else { continue };
            let again = match unsettled {
                Unsettled::Fresh { ran } => {
                    order::starts_again(held.spec.restart_policy.as_ref(), exit.code, ran)
                }
                Unsettled::UnderWay => true,
            };
            if stopping || held.is_asked_to_stop() || !again {
                continue;
            }
            if matches!(unsettled, Unsettled::Fresh { .. }) {
                held.restarts += 1;
            }
            self.begin_restart(index, exit);
        }
    }

    /// While a task stops, an exit is an exit.
    pub(super) fn settle_for_good(&mut self) {
        self.containers.iter_mut().for_each(|held| held.unsettled = None);
    }

    fn begin_restart(&mut self, index: usize, exit: Exit) {
        let Some(held) = self.containers.get_mut(index) else { return };
        held.begin_restart();
        let (spec, note) = (held.spec.clone(), Note { count: held.restarts, exit: Some(exit) });
        self.write_note(&spec, note);
        tracing::info!(container = spec.runtime_id, code = exit.code, "a container is started again");
        let log_path = spec.log.as_ref().map(|_| self.log_path(&spec));
        let (instance, told) = (Arc::clone(&self.instance), self.told.clone());
        self.work.spawn(async move {
            loop {
                match instance.runtime.restart(&spec.runtime_id, log_path.as_deref()).await {
                    Err(StartError::Runtime(error)) if is_away(&error) && told.borrow().is_wanted() => {
                        tokio::time::sleep(RETRY).await;
                    }
                    restarted => return Done::Restarted(index, exit, restarted),
                }
            }
        });
    }

    pub(super) fn restarted(&mut self, index: usize, exit: Exit, restarted: Result<Started, StartError>) {
        let Some(held) = self.containers.get_mut(index) else { return };
        held.busy = false;
        let (spec, note) = (held.spec.clone(), Note { count: held.restarts, exit: None });
        match restarted {
            Ok(started) => held.running(started.at),
            Err(error) => {
                tracing::warn!(container = spec.runtime_id, error = chain(&error), "start a container again");
                held.end(exit.state());
            }
        }
        self.write_note(&spec, note);
    }

    pub(super) fn read_note(&self, held: &Held) -> Option<Note> {
        held.spec.restart_policy.as_ref()?;
        Note::read(&std::fs::read_to_string(self.note_path(&held.spec)).ok()?)
    }

    pub(super) fn write_note(&self, spec: &ContainerSpec, note: Note) {
        let path = self.note_path(spec);
        let new = path.with_extension("restarts-new");
        let written = std::fs::write(&new, note.text()).and_then(|()| std::fs::rename(&new, &path));
        if let Err(error) = written {
            tracing::warn!(container = spec.runtime_id, %error, "a restart is not written down");
        }
    }

    fn note_path(&self, spec: &ContainerSpec) -> PathBuf {
        self.instance.task_dir(self.observation.task.id).join(format!("{}.restarts", spec.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_as_they_are_written() {
        let exit = Exit { code: -1, at: Timestamp(1_700_000_000_123), out_of_memory: true };
        for note in [Note { count: 3, exit: Some(exit) }, Note { count: 0, exit: None }] {
            assert_eq!(Note::read(&note.text()), Some(note));
        }
        // A file that was cut off tells no half of an exit.
        assert_eq!(Note::read("2 137"), Some(Note { count: 2, exit: None }));
        assert_eq!(Note::read(""), None);
    }
}
