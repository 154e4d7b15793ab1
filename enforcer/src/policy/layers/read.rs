//! Layers from their folders, and what stays of those that do not load.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::{MAX_FILE_BYTES, Policy, PolicyError, PolicyHash, folder};
use super::{
    Layer, LayerName, Layers, LayersFrom, Level, MAX_LAYER_BYTES, MAX_LAYER_FILES, MAX_LAYERS,
    MAX_LAYERS_BYTES, MAX_ORGANIZATION_BYTES, MAX_ORGANIZATION_LAYERS, hash_of, whole,
};

/// Names and texts of a layer's files.
type Files = Vec<(String, String)>;

/// Folders that are looked into, each on its way to a layer.
const MAX_FOLDERS: usize = 4 * MAX_LAYERS;
/// Folders that are looked into of one `ISSUER/repo/ORGANIZATION`, itself among them.
pub(super) const MAX_ORGANIZATION_FOLDERS: usize = 2 * MAX_LAYERS;
/// Folders that are looked into of one `ISSUER/repo/ORGANIZATION/NAME`, itself among them.
pub(super) const MAX_OWN_FOLDERS: usize = 250;
/// How deep they are: a repository's groups, and three above.
const MAX_DEPTH: usize = 16;
/// How deep those are whose names are of organizations: `ISSUER/repo` and `ISSUER/org`.
const NAMES_DEPTH: usize = 2;
/// How deep `ISSUER/repo/ORGANIZATION` is.
const ORGANIZATION_DEPTH: usize = 3;
/// How deep `ISSUER/repo/ORGANIZATION/NAME` is.
const OWN_DEPTH: usize = 4;

/// Why a layer is not in force as it stands in its folder.
#[derive(Debug)]
pub struct LayerProblem {
    /// The layer, or what is none.
    pub name: String,
    /// Whether nothing is allowed for its jobs, since nothing good of it is known.
    pub denies: bool,
    pub why: LayerError,
}

/// What is wrong with a layer, or with what lies between layers.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("{0}")]
    Policy(#[from] PolicyError),
    #[error("more than {MAX_LAYER_FILES} files, or more than {MAX_LAYER_BYTES} bytes in them")]
    Files,
    #[error("a folder below ISSUER/repo/ORGANIZATION/NAME is not followed if it is a link")]
    Link,
    #[error("nobody can say what is in {0}")]
    Hidden(String),
    #[error("the configuration has no [[identity.issuer]] of the name `{0}`: nobody has this layer")]
    Issuer(String),
    #[error(
        "tokens of the issuer `{0}` do not say ORGANIZATION/NAME of a repository: nobody has this layer, \
             unless `claims.repository` says what to read"
    )]
    Nameless(String),
    #[error("this is the folder of no layer: they are ISSUER/org/NAME and ISSUER/repo/ORGANIZATION/NAME")]
    Stray,
}

impl fmt::Display for LayerProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, denies, why } = self;
        if !self.is_of_layer() {
            return write!(f, "{name}: {why}");
        }
        match denies {
            true => write!(f, "nothing is allowed for the jobs of {name}: {why}"),
            false => write!(f, "the last good layer of {name} stays: {why}"),
        }
    }
}

impl LayerProblem {
    /// Whether the layer is another one than the one in its folder.
    pub fn is_of_layer(&self) -> bool {
        !matches!(self.why, LayerError::Issuer(_) | LayerError::Nameless(_) | LayerError::Stray)
    }
}

/// The files of a policy that is in force, all of its layers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    host: Files,
    /// None: nothing good of it is known.
    layers: Option<BTreeMap<String, Option<Files>>>,
}

impl Kept {
    /// The files as they are now, but for the layers that are `broken`: those are as they were `before`.
    pub fn read(
        dir: &Path,
        layers: Option<&Path>,
        broken: &[String],
        before: Option<&Self>,
    ) -> Result<Self, PolicyError> {
        let host = Policy::read_dir(dir)?;
        let Some(folder) = layers else { return Ok(Self { host, layers: None }) };
        let before = before.and_then(|before| before.layers.as_ref());
        let stays = |name: &LayerName| before.and_then(|before| before.get(name.as_str())?.clone());
        let of = |(name, files): (LayerName, Result<Files, LayerError>)| {
            let is_broken = broken.iter().any(|broken| broken == name.as_str());
            let files = if is_broken { stays(&name) } else { files.ok() };
            (name.as_str().to_owned(), files)
        };
        let known = before.into_iter().flat_map(|before| before.keys().map(String::as_str));
        let found = Found::in_folder(folder, known)?;
        Ok(Self { host, layers: Some(found.layers.into_iter().map(of).collect()) })
    }

    /// That of the policy that these are the files of.
    pub fn hash(&self) -> PolicyHash {
        let host = Policy::hash_of(&self.host);
        let Some(layers) = &self.layers else { return host };
        let hash = |files: &Option<Files>| match files {
            Some(files) => Policy::hash_of(files),
            None => Policy::deny_all().hash,
        };
        let hashes: Vec<_> = layers.iter().map(|(name, files)| (name.as_str(), hash(files))).collect();
        whole(&host, &hash_of(hashes.iter().map(|(name, hash)| (*name, hash))))
    }

    pub(in super::super) fn host(&self) -> &[(String, String)] {
        &self.host
    }

    fn layer(&self, name: &LayerName) -> Option<&Files> {
        self.layers.as_ref()?.get(name.as_str())?.as_ref()
    }
}

/// What stands in a folder of layers.
struct Found {
    layers: Vec<(LayerName, Result<Files, LayerError>)>,
    strays: Vec<String>,
    /// Nobody can say which layers are below these.
    hidden: Vec<String>,
    folders: usize,
    bytes: usize,
    most: &'static Most,
}

/// More than this is not looked into.
struct Most {
    folders: usize,
    layers: usize,
    bytes: usize,
}

/// Of all layers.
const ALL: Most = Most { folders: MAX_FOLDERS, layers: MAX_LAYERS, bytes: MAX_LAYERS_BYTES };
/// Of one organization, so that none takes the room of all others.
const ORGANIZATION: Most = Most {
    folders: MAX_ORGANIZATION_FOLDERS,
    layers: MAX_ORGANIZATION_LAYERS,
    bytes: MAX_ORGANIZATION_BYTES,
};
/// Of one repository, or one group.
const OWN: Most = Most { folders: MAX_OWN_FOLDERS, ..ORGANIZATION };

impl Found {
    fn of(most: &'static Most) -> Self {
        Self { layers: Vec::new(), strays: Vec::new(), hidden: Vec::new(), folders: 0, bytes: 0, most }
    }

    /// Of the layers that were `known`, those that nobody can say are gone stay.
    fn in_folder<'a>(dir: &Path, known: impl Iterator<Item = &'a str>) -> Result<Self, PolicyError> {
        let mut found = Self::of(&ALL);
        found.look_into(dir, "", 0)?;
        for name in known {
            let above =
                |above: &&String| name.strip_prefix(above.as_str()).is_some_and(|rest| rest.starts_with('/'));
            let Some(above) = found.hidden.iter().find(above) else { continue };
            let why = LayerError::Hidden(above.clone());
            if let Some(name) = LayerName::parse(name)
                && !found.layers.iter().any(|(other, _)| *other == name)
            {
                found.layers.push((name, Err(why)));
            }
        }
        found.layers.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(found)
    }

    fn look_into(&mut self, dir: &Path, name: &str, depth: usize) -> Result<(), PolicyError> {
        self.folders += 1;
        if self.folders > self.most.folders {
            let path = dir.to_path_buf();
            return Err(PolicyError::TooMany { path, what: "folders of layers", most: self.most.folders });
        }
        if depth > MAX_DEPTH {
            self.strays.push(name.to_owned());
            return Ok(());
        }
        let here = match Entries::of(dir, depth) {
            Ok(here) => here,
            // Nobody can say that there is none in it.
            Err(error) if LayerName::parse(name).is_some() => return self.hide(name, error.into(), dir),
            Err(error) => return Err(error),
        };
        if here.policies > 0 {
            let files = match here.policies {
                0..=MAX_LAYER_FILES => match folder::read(dir, MAX_FILE_BYTES, MAX_LAYER_BYTES) {
                    Ok(files) => files.ok_or(LayerError::Files),
                    Err(error) => Err(error.into()),
                },
                _ => Err(LayerError::Files),
            };
            self.add(name, files, dir)?;
        }
        // No layer is below that of an organization.
        let ends = LayerName::parse(name).is_some_and(|layer| layer.level() == Level::Organization);
        for (folder, kind) in here.others {
            let below = if name.is_empty() { folder.clone() } else { format!("{name}/{folder}") };
            let path = dir.join(folder);
            let is_layer = LayerName::parse(&below).is_some();
            match kind {
                _ if ends => self.strays.push(below),
                Other::Unreadable(source) if is_layer => {
                    self.hide(&below, PolicyError::Read { path, source }.into(), dir)?;
                }
                Other::Unreadable(source) => return Err(PolicyError::Read { path, source }),
                // Whoever fills a layer has no say about others.
                Other::Link if depth >= OWN_DEPTH => self.hide(&below, LayerError::Link, dir)?,
                Other::Folder | Other::Link if depth + 1 == ORGANIZATION_DEPTH => {
                    self.bounded(&path, &below, &ORGANIZATION)?;
                }
                Other::Folder | Other::Link if depth + 1 == OWN_DEPTH => {
                    self.bounded(&path, &below, &OWN)?;
                }
                Other::Folder | Other::Link => self.look_into(&path, &below, depth + 1)?,
            }
        }
        Ok(())
    }

    /// Looks into what one organization has, one repository, or one group: what is too much there is
    /// its own problem, and so is what nobody can read.
    fn bounded(&mut self, dir: &Path, name: &str, most: &'static Most) -> Result<(), PolicyError> {
        let mut own = Self::of(most);
        let looked = own.look_into(dir, name, name.split('/').count());
        self.folders += own.folders;
        if let Err(error) = looked {
            return self.hide(name, error.into(), dir);
        }
        self.strays.extend(own.strays);
        self.hidden.extend(own.hidden);
        own.layers.into_iter().try_for_each(|(name, files)| self.push(name, files, dir))
    }

    /// Nobody can say what is in this folder of a layer, or of an organization's layers.
    fn hide(&mut self, name: &str, why: LayerError, dir: &Path) -> Result<(), PolicyError> {
        self.hidden.push(name.to_owned());
        match LayerName::parse(name).or_else(|| LayerName::of_all(name)) {
            Some(layer) => self.push(layer, Err(why), dir),
            None => self.add(name, Err(why), dir),
        }
    }

    fn add(&mut self, name: &str, files: Result<Files, LayerError>, dir: &Path) -> Result<(), PolicyError> {
        let Some(layer) = LayerName::parse(name) else {
            self.strays.push(if name.is_empty() { dir.display().to_string() } else { name.to_owned() });
            return Ok(());
        };
        self.push(layer, files, dir)
    }

    fn push(
        &mut self,
        layer: LayerName,
        files: Result<Files, LayerError>,
        dir: &Path,
    ) -> Result<(), PolicyError> {
        let too_many = |what, most| PolicyError::TooMany { path: dir.to_path_buf(), what, most };
        self.bytes += files.iter().flatten().map(|(_, text)| text.len()).sum::<usize>();
        if self.bytes > self.most.bytes {
            return Err(too_many("bytes in the files of layers", self.most.bytes));
        }
        if self.layers.len() == self.most.layers {
            return Err(too_many("layers", self.most.layers));
        }
        self.layers.push((layer, files));
        Ok(())
    }
}

/// What is in one folder.
struct Entries {
    /// How many files of policy, also those that cannot be read.
    policies: usize,
    /// Folders, and what may be some, in the order of their names.
    others: Vec<(String, Other)>,
}

enum Other {
    Folder,
    /// A link to one.
    Link,
    Unreadable(io::Error),
}

impl Entries {
    fn of(dir: &Path, depth: usize) -> Result<Self, PolicyError> {
        let unreadable = |source| PolicyError::Read { path: dir.to_path_buf(), source };
        let (mut policies, mut others) = (0, Vec::new());
        for entry in fs::read_dir(dir).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let file = entry.file_name().to_string_lossy().into_owned();
            // Names begin below an issuer's folders; what manages the files has its own.
            if file.starts_with('.') && depth < NAMES_DEPTH || file == ".git" {
                continue;
            }
            let is_link = entry.file_type().is_ok_and(|of| of.is_symlink());
            match fs::metadata(entry.path()) {
                Ok(of) if of.is_dir() => {
                    others.push((file, if is_link { Other::Link } else { Other::Folder }))
                }
                _ if folder::is_policy(&file) => policies += 1,
                Ok(_) => {}
                // It has been removed meanwhile.
                Err(_) if fs::symlink_metadata(entry.path()).is_err_and(|error| is_gone(&error)) => {}
                Err(source) => others.push((file, Other::Unreadable(source))),
            }
        }
        // How a volume is mounted, and what editors leave behind.
        let of_tools = |file: &str, kind: &Other| {
            file.starts_with("..") || file.starts_with('.') && !matches!(kind, Other::Folder)
        };
        others.retain(|(file, kind)| policies == 0 || !of_tools(file, kind));
        others.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(Self { policies, others })
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

/// All layers as they were kept. None: nothing is known of what there was.
pub fn kept(from: &LayersFrom, kept: &Kept) -> Option<Layers> {
    let of = |(name, files): (&String, &Option<Files>)| {
        let name = LayerName::parse(name).or_else(|| LayerName::of_all(name))?;
        let policy = files.as_ref().and_then(|files| Policy::compile_layer(files, Some(&name)).ok());
        Some(Layer { name, policy: Arc::new(policy.unwrap_or_else(Policy::deny_all)) })
    };
    let layers = kept.layers.as_ref()?.iter().map(of).collect::<Option<_>>()?;
    Some(Layers::new(from.assurance, &from.issuers, layers))
}

/// Compiles all layers. One that has not changed since `before` is the same; one that does not load
/// is what it was before, or what was kept of it, or denies everything to its jobs.
pub fn load(
    from: &LayersFrom,
    before: Option<&Layers>,
    kept: Option<&Kept>,
) -> Result<(Layers, Vec<LayerProblem>), PolicyError> {
    let running = before.into_iter().flat_map(|before| before.all.keys().map(LayerName::as_str));
    let files = kept.and_then(|kept| kept.layers.as_ref());
    let known = running.chain(files.into_iter().flat_map(|files| files.keys().map(String::as_str)));
    let found = Found::in_folder(&from.dir, known)?;
    let mut problems = Vec::new();
    let mut layers = Vec::with_capacity(found.layers.len());
    for (name, files) in found.layers {
        if !from.issuers.contains_key(name.issuer()) {
            let why = LayerError::Issuer(name.issuer().to_owned());
            problems.push(LayerProblem { name: name.to_string(), denies: false, why });
        } else if from.nameless.contains(name.issuer()) {
            let why = LayerError::Nameless(name.issuer().to_owned());
            problems.push(LayerProblem { name: name.to_string(), denies: false, why });
        }
        let before = before.and_then(|before| before.all.get(&name)).map(|layer| &layer.policy);
        let before = before.filter(|policy| !policy.is_missing());
        let compiled = files.and_then(|files| match before {
            Some(same) if *same.hash() == Policy::hash_of(&files) => Ok(Arc::clone(same)),
            _ => Ok(Arc::new(Policy::compile_layer(&files, Some(&name))?)),
        });
        let policy = compiled.unwrap_or_else(|why| {
            let stays = before.cloned().or_else(|| {
                let files = kept.and_then(|kept| kept.layer(&name))?;
                Policy::compile_layer(files, Some(&name)).ok().map(Arc::new)
            });
            problems.push(LayerProblem { name: name.to_string(), denies: stays.is_none(), why });
            stays.unwrap_or_else(|| Arc::new(Policy::deny_all()))
        });
        layers.push(Layer { name, policy });
    }
    for name in found.strays {
        problems.push(LayerProblem { name, denies: false, why: LayerError::Stray });
    }
    Ok((Layers::new(from.assurance, &from.issuers, layers), problems))
}
