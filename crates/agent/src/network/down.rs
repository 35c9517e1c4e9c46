//! Removes a server's networks from the machine.
//! Invariant: what is removed is found by the server's id on the machine itself, not by what a process remembers.

use super::error::{Attempt, Error};
use super::names::Paths;
use super::netlink::Netlink;
use super::overlap::Machine;
use super::{Config, bridge, forwards, lock, namespace, rules};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// Removes every namespace, interface, route and rule of the server, of all its instances. No [`super::Network`] of
/// it may be open. Forwarding of IPv4 stays as it is: who else needs it now is not known.
pub async fn down(config: &Config) -> Result<(), Error> {
    let paths = Paths::new(&config.state, &config.server);
    let _turn = lock(&paths).await?;
    let machine = Netlink::open_here()?;
    // First, and not by the configuration: the block may be another server's, if this one was ever refused it.
    for block in Machine::read(&machine, &config.server).await?.claimed() {
        machine.remove_unreachable(block).await?;
    }
    machine.remove_group(config.server.link_group()).await?;
    for link in machine.links().await? {
        if link.name.starts_with(&config.server.interface_prefix()) {
            machine.remove_link(link.index).await?;
        }
    }
    unpin_all(&paths.namespaces())?;
    rules::unload(&config.server).await?;
    bridge::unload(&config.server).await?;
    forwards::unload(&config.server).await?;
    rules::remove_table(&config.server.filter_table()).await?;
    let removed = namespace::ignore(ErrorKind::NotFound, fs::remove_dir_all(paths.server()));
    removed.attempt(|| format!("remove {}", paths.server().display()))?;
    let nobody_else = fs::read_dir(&config.state).is_ok_and(|entries| entries.count() == 1);
    if nobody_else {
        // What stays when another server comes just now is its own.
        let _ = fs::remove_file(paths.lock());
        let _ = fs::remove_dir(&config.state);
    }
    Ok(())
}

fn unpin_all(directory: &Path) -> Result<(), Error> {
    let attempt = || format!("list {}", directory.display());
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.attempt(attempt)?,
    };
    for entry in entries {
        let path = entry.attempt(attempt)?.path();
        if path.is_dir() { unpin_all(&path)? } else { namespace::unpin(&path)? }
    }
    Ok(())
}
