//! Programs of others at the cgroups where ours are attached. One that runs after
//! ours may undo what ours decided: send a redirected connection elsewhere, say.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use aya::programs::loaded_programs;

use super::links::{self, AttachType};

/// A program of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The cgroup that it is attached to.
    pub cgroup: PathBuf,
    /// As the kernel calls it.
    pub attach_type: String,
    pub id: u32,
    pub name: String,
    /// It was there when this loader came.
    pub before: bool,
}

/// All programs at these cgroups but `ours`; a cgroup that is gone has none.
pub(super) fn find(places: &BTreeSet<&Path>, ours: &BTreeSet<u32>) -> io::Result<Vec<Foreign>> {
    let mut found = Vec::new();
    for place in places {
        let dir = match File::open(place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        for attach_type in AttachType::ALL {
            let attached = links::attached(dir.as_fd(), attach_type)?;
            let others = attached.ids.into_iter().filter(|id| !ours.contains(id));
            found.extend(others.map(|id| Foreign {
                cgroup: place.to_path_buf(),
                attach_type: format!("{attach_type:?}").to_lowercase(),
                id,
                name: name_of(id),
                before: false,
            }));
        }
    }
    Ok(found)
}

/// Who is attached in the way of a new link: at this cgroup, or above it.
pub(super) fn exclusive(place: &Path, attach_type: AttachType) -> Option<String> {
    for above in place.ancestors() {
        // The first that is no cgroup is above the root of the hierarchy.
        let attached = links::attached(File::open(above).ok()?.as_fd(), attach_type).ok()?;
        if let Some(id) = attached.ids.first()
            && !attached.multi
        {
            return Some(format!("program {id} ({}) at {}", name_of(*id), above.display()));
        }
    }
    None
}

/// As far as it has one that can be read.
fn name_of(id: u32) -> String {
    let program = loaded_programs().flatten().find(|program| program.id() == id);
    let name = program.as_ref().and_then(|program| program.name_as_str()).unwrap_or_default();
    if name.is_empty() { "without a name".to_owned() } else { name.to_owned() }
}
