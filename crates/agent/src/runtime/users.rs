//! Who a container's process runs as. Invariant: names are looked up in the image's own files, and a path of the image
//! never leads out of it.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use containerd_client::types::Mount;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    pub home: Option<String>,
}

/// The name that neither the image's files nor the numbers know.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unknown(pub String);

/// Resolves `user[:group]`, each a name or a number, in the root filesystem that `mounts` would make.
pub(super) fn resolve(wanted: &str, mounts: &[Mount]) -> Result<User, Unknown> {
    let layers = layers(mounts);
    let read = |path| read_topmost(&layers, path);
    resolve_in(wanted, &read("etc/passwd"), &read("etc/group"))
}

fn resolve_in(wanted: &str, passwd: &str, group: &str) -> Result<User, Unknown> {
    let (user, group_wanted) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (wanted, None),
    };
    let mut found = find_user(if user.is_empty() { "0" } else { user }, passwd)?;
    match group_wanted {
        Some(wanted) => found.user.gid = find_group(wanted, group)?,
        None => found.user.additional_gids = memberships(&found.name, group),
    }
    Ok(found.user)
}

struct Found {
    name: String,
    user: User,
}

fn find_user(wanted: &str, passwd: &str) -> Result<Found, Unknown> {
    let number = wanted.parse::<u32>().ok().filter(|n| i32::try_from(*n).is_ok());
    let known =
        passwd.lines().filter_map(passwd_line).find(|f| f.name == wanted || Some(f.user.uid) == number);
    match (known, number) {
        (Some(found), _) => Ok(found),
        (None, Some(uid)) => Ok(Found { name: String::new(), user: User { uid, ..User::default() } }),
        (None, None) => Err(Unknown(wanted.to_owned())),
    }
}

/// `name:password:uid:gid:comment:home:shell`
fn passwd_line(line: &str) -> Option<Found> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, rest @ ..] = fields.as_slice() else { return None };
    let home = rest.get(1).filter(|home| !home.is_empty()).map(ToString::to_string);
    let user = User { uid: uid.parse().ok()?, gid: gid.parse().ok()?, additional_gids: Vec::new(), home };
    Some(Found { name: (*name).to_owned(), user })
}

fn find_group(wanted: &str, group: &str) -> Result<u32, Unknown> {
    let number = wanted.parse::<u32>().ok().filter(|n| i32::try_from(*n).is_ok());
    let known =
        group.lines().filter_map(group_line).find(|(name, _, _)| *name == wanted).map(|(_, gid, _)| gid);
    known.or(number).ok_or_else(|| Unknown(wanted.to_owned()))
}

fn memberships(name: &str, group: &str) -> Vec<u32> {
    if name.is_empty() {
        return Vec::new();
    }
    let gids: BTreeSet<u32> = group
        .lines()
        .filter_map(group_line)
        .filter(|(_, _, members)| members.split(',').any(|member| member == name))
        .map(|(_, gid, _)| gid)
        .collect();
    gids.into_iter().collect()
}

/// `name:password:gid:members`
fn group_line(line: &str) -> Option<(&str, u32, &str)> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, gid, rest @ ..] = fields.as_slice() else { return None };
    Some((name, gid.parse().ok()?, rest.first().copied().unwrap_or_default()))
}

/// The directories of a snapshot, the topmost first.
fn layers(mounts: &[Mount]) -> Vec<PathBuf> {
    let Some(mount) = mounts.first() else { return Vec::new() };
    if mount.r#type != "overlay" {
        return vec![PathBuf::from(&mount.source)];
    }
    let value = |name: &str| mount.options.iter().find_map(|option| option.strip_prefix(name));
    let upper = value("upperdir=").into_iter();
    upper.chain(value("lowerdir=").into_iter().flat_map(|dirs| dirs.split(':'))).map(PathBuf::from).collect()
}

/// The image's file, or nothing when it has none. Read from the layers, because mounting them takes longer.
fn read_topmost(layers: &[PathBuf], path: &str) -> String {
    /// More than any real file of users; an image must not fill our memory.
    const LIMIT: u64 = 4 << 20;
    let mut bytes = Vec::new();
    if let Some(file) = layers.iter().find_map(|layer| open_inside(layer, path)) {
        let _ = file.take(LIMIT).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A whiteout (a character device) ends the search as an empty file would: reading it is never tried.
fn open_inside(layer: &Path, path: &str) -> Option<File> {
    let root =
        rustix::fs::openat(CWD, layer, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .ok()?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let descriptor = match rustix::fs::openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT) {
        Ok(descriptor) => descriptor,
        Err(rustix::io::Errno::NXIO) => return File::open("/dev/null").ok(),
        Err(_) => return None,
    };
    let file = File::from(descriptor);
    if file.metadata().ok()?.is_file() { Some(file) } else { File::open("/dev/null").ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/var/www:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nadm:x:4:root,web\nwww:x:34:\nlog:x:9:web\n";

    fn check(wanted: &str, expected: Result<(u32, u32, &[u32]), &str>) {
        let got =
            resolve_in(wanted, PASSWD, GROUP).map(|u| (u.uid, u.gid, u.additional_gids)).map_err(|u| u.0);
        assert_eq!(got, expected.map(|(u, g, a)| (u, g, a.to_vec())).map_err(ToOwned::to_owned), "{wanted}");
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        check("", Ok((0, 0, &[4])));
        check("root", Ok((0, 0, &[4])));
        check("web", Ok((33, 34, &[4, 9])));
        check("33", Ok((33, 34, &[4, 9])));
        check("1000", Ok((1000, 0, &[])));
    }

    #[test]
    fn a_given_group_replaces_the_memberships() {
        check("web:log", Ok((33, 9, &[])));
        check("web:77", Ok((33, 77, &[])));
        check("1000:1000", Ok((1000, 1000, &[])));
    }

    #[test]
    fn unknown_names_are_errors() {
        check("nobody", Err("nobody"));
        check("web:nogroup", Err("nogroup"));
        check("-1", Err("-1"));
        check("4294967295", Err("4294967295"));
    }

    #[test]
    fn files_are_read_from_the_topmost_layer_and_never_from_outside() {
        let dir = tempfile::tempdir().unwrap();
        let layer = |name: &str| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.join("etc")).unwrap();
            path
        };
        let (top, bottom) = (layer("top"), layer("bottom"));
        std::fs::write(bottom.join("etc/passwd"), "below:x:5:5::/:/").unwrap();
        assert_eq!(read_topmost(&[top.clone(), bottom.clone()], "etc/passwd"), "below:x:5:5::/:/");

        std::fs::write(dir.path().join("secret"), "outside").unwrap();
        std::os::unix::fs::symlink(dir.path().join("secret"), top.join("etc/passwd")).unwrap();
        assert_eq!(read_topmost(&[top], "etc/passwd"), "");
    }
}
