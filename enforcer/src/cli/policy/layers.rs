//! Layers of organizations and repositories, for checks and tests of policies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::app::config::Config;
use crate::policy::{LayerError, LayerName, LayerProblem, LayersFrom, Policy, PolicyError, PolicyFrom};
use crate::workload::identity::Assurance;

use super::identity::Stated;

/// Where policies are, and what of their layers does not load.
pub struct Loaded {
    pub from: PolicyFrom,
    pub policy: Policy,
    pub problems: Vec<LayerProblem>,
}

impl Loaded {
    /// The policies of folders that are named, or else of the configuration's.
    pub fn load(
        dir: Option<PathBuf>,
        layers: Option<PathBuf>,
        config: Option<&Config>,
    ) -> Result<Self, PolicyError> {
        let configured = config.map(|config| config.policy.clone()).unwrap_or_default();
        let layers = layers.or_else(|| configured.layers.filter(|_| dir.is_none()));
        let layers = layers.map(|dir| LayersFrom {
            issuers: issuers(config, &dir),
            nameless: config
                .iter()
                .flat_map(|config| &config.identity.issuer)
                .filter(|issuer| !issuer.names_repositories())
                .map(|issuer| issuer.name.clone())
                .collect(),
            assurance: configured.layers_assurance.max(Assurance::Api),
            dir,
        });
        let from = PolicyFrom { dir: dir.unwrap_or(configured.dir), layers };
        let (policy, problems) = from.load(None, None)?;
        Ok(Self { from, policy, problems })
    }

    /// Folders with tests, each with the layer that it is of.
    pub fn folders(&self) -> Vec<(PathBuf, Option<LayerName>)> {
        let layers = self.from.layers.iter().flat_map(|from| {
            let names = self.policy.layers().into_iter().map(|(name, _)| name);
            names.map(|name| (from.dir.join(name.as_str()), Some(name.clone())))
        });
        std::iter::once((self.from.dir.clone(), None)).chain(layers).collect()
    }

    /// Names an issuer by what its tokens have: that of the layer, or the only one, if none is said.
    pub fn complete(&self, stated: &mut Option<Stated>, layer: Option<&LayerName>) {
        let Some(layers) = &self.from.layers else { return };
        let of_layer = layer.and_then(|layer| layers.issuers.get(layer.issuer()));
        if let (None, Some(layer)) = (&stated, layer)
            && let Some(issuer) = of_layer
        {
            *stated = Stated::of_repository(issuer, layer);
        }
        let mut every = layers.issuers.values();
        let only = every.next().filter(|_| every.next().is_none());
        if let Some(stated) = stated {
            stated.complete(&layers.issuers, of_layer.or(only));
        }
    }
}

/// Says what of a layer does not load.
pub fn tell(problem: LayerProblem) {
    match problem.why {
        LayerError::Policy(error) => eprintln!("{}: {:?}", problem.name, miette::Report::new(error)),
        why => eprintln!("{}: {why}", problem.name),
    }
}

/// By their names. Without a configuration an issuer is what its folder is called.
fn issuers(config: Option<&Config>, dir: &Path) -> BTreeMap<String, String> {
    if let Some(config) = config.filter(|config| !config.identity.issuer.is_empty()) {
        let issuers = config.identity.issuer.iter();
        return issuers.map(|issuer| (issuer.name.clone(), issuer.issuer.clone())).collect();
    }
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.map(|name| (name.clone(), name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Fact;
    use crate::workload::identity::Field;

    const HOST: &str =
        "version: 1\nname: host\nrules: [{id: left, when: {host: a.test}, delegate: organization}]\n";
    const ALLOW: &str = "version: 1\nname: p\nrules: [{id: yes, when: {host: a.test}, allow: true}]\n";

    fn loaded(folders: &[&str]) -> (tempfile::TempDir, Loaded) {
        let dir = tempfile::tempdir().unwrap();
        let write = |folder: &str, text: &str| {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
            std::fs::write(dir.path().join(folder).join("p.yaml"), text).unwrap();
        };
        write("host", HOST);
        folders.iter().for_each(|folder| write(&format!("layers/{folder}"), ALLOW));
        let layers = Some(dir.path().join("layers"));
        let loaded = Loaded::load(Some(dir.path().join("host")), layers, None).unwrap();
        (dir, loaded)
    }

    fn stated(text: &str) -> Option<Stated> {
        Some(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn who_is_asked_about_is_of_the_layer_or_of_the_only_issuer() {
        let (_dir, two) = loaded(&["hub/org/acme", "lab/org/acme"]);
        let (_dir, loaded) = loaded(&["hub/org/acme", "hub/repo/acme/app"]);
        assert!(loaded.problems.is_empty());
        let folders = loaded.folders();
        let names: Vec<&str> = folders.iter().flat_map(|(_, layer)| layer).map(LayerName::as_str).collect();
        assert_eq!((folders.len(), names), (3, vec!["hub/org/acme", "hub/repo/acme/app"]));
        let issuer = |mut identity: Option<Stated>, layer: Option<&LayerName>| {
            loaded.complete(&mut identity, layer);
            let Fact::Known(facts) = identity.as_ref().map_or(Fact::Absent, Stated::facts) else {
                return None;
            };
            Some((facts.claims.issuer.clone(), facts.claims.get(Field::Repository).map(str::to_owned)))
        };
        let is = |issuer: &str, repository: &str| Some((issuer.to_owned(), Some(repository.to_owned())));
        let repository = folders[2].1.as_ref();
        assert_eq!(issuer(None, repository), is("hub", "acme/app"));
        assert_eq!(issuer(None, folders[1].1.as_ref()), None);
        assert_eq!(issuer(None, None), None);
        assert_eq!(issuer(stated(r#"{"repository": "acme/web"}"#), repository), is("hub", "acme/web"));
        assert_eq!(issuer(stated(r#"{"repository": "acme/web"}"#), None), is("hub", "acme/web"));
        let other = stated(r#"{"repository": "a/b", "issuer": "https://other.test"}"#);
        assert_eq!(issuer(other, None), is("https://other.test", "a/b"));
        assert_eq!(issuer(stated(r#"{"repository": "a/b", "assurance": "none"}"#), repository), None);
        let mut nameless = stated(r#"{"repository": "acme/web"}"#);
        two.complete(&mut nameless, None);
        let Fact::Known(facts) = nameless.as_ref().unwrap().facts() else { panic!("nobody") };
        assert_eq!(facts.claims.issuer, "");
    }

    #[test]
    fn what_never_has_an_effect_is_found() {
        let (_dir, loaded) = loaded(&["hub/org/acme", "hub/repo/acme/app", "hub/repo/acme/web"]);
        assert_eq!(loaded.policy.idle(), ["hub/repo/acme/app:p/yes", "hub/repo/acme/web:p/yes"]);
        let rest = "version: 1\nname: q\nrules: [{id: no, deny: no}]\n";
        let from = &loaded.from.layers.as_ref().unwrap().dir;
        // It keeps something from the denial behind it.
        std::fs::write(from.join("hub/repo/acme/app/q.yaml"), rest).unwrap();
        let delegate = "version: 1\nname: q\nrules: [{id: to, when: {host: a.test}, delegate: repository}]\n";
        let (policy, _) = loaded.from.load(None, None).unwrap();
        assert_eq!(policy.idle(), ["hub/repo/acme/web:p/yes"]);
        std::fs::write(from.join("hub/org/acme/a.yaml"), delegate).unwrap();
        let (policy, _) = loaded.from.load(None, None).unwrap();
        assert!(policy.idle().is_empty());
    }
}
