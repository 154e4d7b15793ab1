//! The JSON Schema of policy files, for editors and other tools.

/// Draft 7, which editors know best. What only a whole policy shows (another rule with the same
/// id, a glob or an expression that is not valid) is for `enforcer policy check`.
pub const SCHEMA: &str = include_str!("schema.json");

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde::de::value::Error;
    use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
    use serde_json::Value;

    use super::super::Policy;
    use super::super::facts::Protocol;
    use super::super::file::{
        BodySource, Chosen, Delegated, DurabilitySource, HoldSource, IdentityWhen, LimitSource, MaskSource,
        Mode, PolicyFile, RuleSource, When, WorkloadWhen,
    };
    use super::super::layers::Level;
    use super::super::limit::Per;
    use super::super::requirement::{HoldStage, Need, Offers};
    use super::SCHEMA;
    use crate::mask::Strategy;
    use crate::workload::identity::{Assurance, Profile};

    fn schema() -> Value {
        serde_json::from_str(SCHEMA).unwrap()
    }

    /// Whether a text is valid by the schema.
    fn valid(text: &str) -> bool {
        let value: Value = serde_saphyr::from_str(text).unwrap();
        let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
        compiler.add_resource("http://schema.test/policy.json", schema()).unwrap();
        let index = compiler.compile("http://schema.test/policy.json", &mut schemas).unwrap();
        schemas.validate(&value, index).is_ok()
    }

    /// Takes down which fields or variants a type asks for.
    struct Asked<'a>(&'a mut Vec<&'static str>);

    impl<'de> Deserializer<'de> for Asked<'_> {
        type Error = Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Error::custom("only names are asked for"))
        }

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Error> {
            self.0.extend(fields);
            Err(Error::custom("only names are asked for"))
        }

        fn deserialize_enum<V: Visitor<'de>>(
            self,
            _: &'static str,
            variants: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Error> {
            self.0.extend(variants);
            Err(Error::custom("only names are asked for"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map identifier ignored_any
        }
    }

    fn asked<'de, T: Deserialize<'de>>() -> Vec<&'static str> {
        let mut names = Vec::new();
        assert!(T::deserialize(Asked(&mut names)).is_err());
        names.sort_unstable();
        names
    }

    #[test]
    fn it_has_the_names_that_are_read() {
        let schema = schema();
        let keys = |pointer: &str| -> Vec<String> {
            let mut keys: Vec<String> =
                schema.pointer(pointer).unwrap().as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys
        };
        assert_eq!(keys("/properties"), asked::<PolicyFile>());
        assert_eq!(keys("/definitions/rule/properties"), asked::<RuleSource>());
        assert_eq!(keys("/definitions/when/properties"), asked::<When>());
        assert_eq!(keys("/definitions/workload/properties"), asked::<WorkloadWhen>());
        assert_eq!(keys("/definitions/identity/properties"), asked::<IdentityWhen>());
        assert_eq!(keys("/definitions/hold/properties"), asked::<HoldSource>());
        let stage = "/definitions/hold/properties/stages/items/properties";
        assert_eq!(keys(stage), asked::<HoldStage>());
        assert_eq!(keys("/definitions/hold/properties/offers/properties"), asked::<Offers>());
        assert_eq!(keys("/definitions/needs/items/properties"), asked::<Need>());
        let delegate = "/definitions/rule/properties/delegate/oneOf/1/properties";
        assert_eq!(keys(delegate), asked::<Delegated>());
        assert_eq!(keys("/definitions/mask/properties"), asked::<MaskSource>());
        assert_eq!(keys("/definitions/chosen/properties"), asked::<Chosen>());
        assert_eq!(keys("/definitions/limit/properties"), asked::<LimitSource>());
        let values = |pointer: &str| {
            let values = schema.pointer(pointer).unwrap().as_array().unwrap();
            let mut values: Vec<&str> = values.iter().map(|value| value.as_str().unwrap()).collect();
            values.sort_unstable();
            values
        };
        let rule = "/definitions/rule/properties";
        assert_eq!(values("/definitions/level/enum"), asked::<Level>());
        assert_eq!(values("/definitions/mode/enum"), asked::<Mode>());
        assert_eq!(values(&format!("{rule}/body/enum")), asked::<BodySource>());
        assert_eq!(values(&format!("{rule}/durability/enum")), asked::<DurabilitySource>());
        assert_eq!(values("/definitions/when/properties/protocol/oneOf/0/enum"), asked::<Protocol>());
        let identity = "/definitions/identity/properties";
        assert_eq!(values(&format!("{identity}/assurance/oneOf/0/enum")), asked::<Assurance>());
        assert_eq!(values(&format!("{identity}/provider/oneOf/0/enum")), asked::<Profile>());
        assert_eq!(values("/definitions/chosen/properties/strategy/enum"), asked::<Strategy>());
        assert_eq!(values("/definitions/limit/properties/per/enum"), asked::<Per>());
    }

    #[test]
    fn what_is_shipped_and_documented_is_valid_and_loads() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let files = |folder: &str, end: &str| {
            let found = fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path());
            let found = found.filter(|path| path.to_string_lossy().ends_with(end)).collect::<Vec<_>>();
            assert!(!found.is_empty(), "{folder}");
            found
        };
        let mut policies = Vec::new();
        for path in files("policies", ".yaml") {
            if !path.to_string_lossy().ends_with(".test.yaml") {
                policies.push(fs::read_to_string(path).unwrap());
            }
        }
        for path in files("docs", ".md").into_iter().chain([root.join("README.md")]) {
            let text = fs::read_to_string(path).unwrap();
            let blocks = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
            policies.extend(
                blocks
                    .filter(|block| block.contains("version: 1\n") && block.contains("\nrules:"))
                    .map(str::to_owned),
            );
        }
        assert!(policies.len() >= 4, "{}", policies.len());
        for text in policies {
            assert!(valid(&text), "{text}");
            Policy::from_text("p.yaml", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        }
    }

    #[test]
    fn what_can_be_held_is_valid_and_nothing_else() {
        let rule = |body: &str| format!("version: 1\nname: p\nrules: [{{id: r, {body}}}]\n");
        for body in [
            "hold: {needs: [{people: 2, groups: [ops]}]}, when: {protocol: [http, https]}",
            "hold: {stages: [{ref: main, needs: [{people: 1, groups: [a, b]}]}], retry_seconds: null, message: m}",
            "hold: {needs: [{people: 1, groups: [a]}], offers: {session: true, job_minutes: 30}, excludes_self: false}",
        ] {
            assert!(valid(&rule(body)), "{body}");
            assert!(Policy::from_text("p.yaml", &rule(body)).is_ok(), "{body}");
        }
        for body in [
            "hold: true",
            "hold: {}",
            "hold: {needs: []}",
            "hold: {needs: [{people: 0, groups: [a]}]}",
            "hold: {needs: [{people: 17, groups: [a]}]}",
            "hold: {needs: [{people: 1, groups: []}]}",
            "hold: {needs: [{people: 1, groups: [a]}], stages: [{needs: [{people: 1, groups: [a]}]}]}",
            "hold: {needs: [{people: 1, groups: [a]}], open_seconds: 0}",
            "hold: {needs: [{people: 1, groups: [a]}], retry_seconds: 86401}",
            "hold: {needs: [{people: 1, groups: [a]}], offers: {job_minutes: 721}}",
            "hold: {needs: [{people: 1, groups: [a]}], who: me}",
            "hold: {needs: [{people: 1, groups: [a]}]}, allow: true",
            "hold: {needs: [{people: 1, groups: [a]}]}, deny: why",
            "hold: {needs: [{people: 1, groups: [a]}]}, when: {protocol: dns}",
            "hold: {needs: [{people: 1, groups: [a]}]}, when: {protocol: [https, tls]}",
        ] {
            assert!(!valid(&rule(body)), "{body}");
            assert!(Policy::from_text("p.yaml", &rule(body)).is_err(), "{body}");
        }
    }

    #[test]
    fn what_can_be_limited_is_valid_and_nothing_else() {
        let rule = |body: &str| format!("version: 1\nname: p\nrules: [{{id: r, {body}}}]\n");
        for body in [
            "allow: true, limits: {requests: 1, window: 1s}",
            "allow: true, limits: [{bytes_up: 1048576, window: 1h}, {bytes_down: 1, window: 1h}, {tokens: 9, window: 1d}]",
            "allow: true, limits: [{requests: 100, window: 5m, per: job}, {requests: 9, window: 1d, per: rule}]",
            "allow: true, when: {protocol: [http, https]}, limits: [{requests: 1, window: 24h, per: repository}]",
        ] {
            assert!(valid(&rule(body)), "{body}");
            assert!(Policy::from_text("p.yaml", &rule(body)).is_ok(), "{body}");
        }
        for body in [
            "allow: true, limits: {requests: 1, bytes_up: 1, window: 1m}",
            "allow: true, limits: {bytes: 1, window: 1m}",
            "allow: true, limits: []",
            "allow: true, limits: {window: 1m}",
            "allow: true, limits: {requests: 1}",
            "allow: true, limits: {requests: 0, window: 1m}",
            "allow: true, limits: {requests: -1, window: 1m}",
            "allow: true, limits: {requests: 1, window: 60}",
            "allow: true, limits: {requests: 1, window: 0s}",
            "allow: true, limits: {requests: 1, window: 1w}",
            "allow: true, limits: {requests: 1, window: 1m, per: host}",
            "allow: true, limits: {requets: 1, window: 1m}",
            "deny: no, limits: {requests: 1, window: 1m}",
            "observe: true, limits: {requests: 1, window: 1m}",
            "limits: {requests: 1, window: 1m}",
            "hold: {needs: [{people: 1, groups: [a]}]}, limits: {requests: 1, window: 1m}",
            "passthrough: true, when: {host: a.test}, limits: {requests: 1, window: 1m}",
            "allow: true, when: {protocol: dns}, limits: {requests: 1, window: 1m}",
            "allow: true, when: {protocol: [https, tls]}, limits: {requests: 1, window: 1m}",
        ] {
            assert!(!valid(&rule(body)), "{body}");
            assert!(Policy::from_text("p.yaml", &rule(body)).is_err(), "{body}");
        }
        // What the schema does not see.
        let many = |count: u32| {
            let limits: Vec<_> =
                (1..=count).map(|most| format!("{{requests: {most}, window: 1m}}")).collect();
            format!("allow: true, limits: [{}]", limits.join(", "))
        };
        assert!(Policy::from_text("p.yaml", &rule(&many(8))).is_ok() && valid(&rule(&many(8))));
        assert!(!valid(&rule(&many(9))));
        for body in [
            &*many(9),
            "allow: true, limits: {requests: 1, window: 25h}",
            "allow: true, limits: [{requests: 1, window: 1m}, {requests: 1, window: 60s}]",
            "allow: true, when: {cel: 'llm.tool.name == \"x\"'}, limits: {requests: 1, window: 1m}",
        ] {
            assert!(Policy::from_text("p.yaml", &rule(body)).is_err(), "{body}");
        }
    }

    #[test]
    fn what_is_broken_is_not_valid() {
        let rule = |body: &str| format!("version: 1\nname: p\nrules: [{{id: r, {body}}}]\n");
        for body in [
            "allow: true",
            "deny: not here, owner: web",
            "when: {host: [a.test, '*.b.test'], port: 443, cel: 'true'}, passthrough: true",
            "delegate: organization, addresses: [private]",
            "delegate: {to: repository, passthrough: true}",
            "mask: {request: [secrets, {entity: EMAIL, strategy: drop}, {select: {json: $.a}}]}",
            "observe: true, when: {workload: {labels: {a: [b, c]}}}",
            "allow: true, when: {identity: {repository: [a/b, 'c/*'], protected: true, provider: github}}",
            "allow: true, when: {identity: {assurance: [oidc, attested], groups: x}}",
        ] {
            assert!(valid(&rule(body)), "{body}");
            assert!(Policy::from_text("p.yaml", &rule(body)).is_ok(), "{body}");
        }
        for body in [
            "alow: true",
            "allow: false",
            "allow: true, deny: no",
            "when: {host: a.test}",
            "delegate: host",
            "delegate: {passthrough: true}",
            "delegate: repository, allow: true",
            "delegate: repository, passthrough: true, when: {host: a.test}",
            "passthrough: true",
            "when: {host: a.test, path: /x}, passthrough: true",
            "when: {host: []}, allow: true",
            "when: {port: 0}, allow: true",
            "when: {port: 65536}, allow: true",
            "when: {method: get}, allow: true",
            "when: {path: x}, allow: true",
            "when: {protocol: ssh}, allow: true",
            "when: {cel: ''}, allow: true",
            "when: {cel: [a, b]}, allow: true",
            "when: {sel: 'true'}, allow: true",
            "when: {identity: {}}, allow: true",
            "when: {identity: {repositry: a/b}}, allow: true",
            "when: {identity: {repository: []}}, allow: true",
            "when: {identity: {protected: maybe}}, allow: true",
            "when: {identity: {assurance: token}}, allow: true",
            "when: {identity: {provider: [github, hub]}}, allow: true",
            "mode: off, allow: true",
            "owner: '', allow: true",
            "owner: \"a\\nb\", allow: true",
            "mask: {request: [{entity: EMAIL, set: pii}]}",
            "mask: {request: [{strategy: drop}]}",
            "mask: {request: [{entity: EMAIL, strategy: hash}]}",
            "mask: {request: [{select: {body: a}}]}",
            "allow: true, mask: {}",
            "allow: true, when: {host: null}",
            "allow: true, when: null",
            "body: all",
            "durability: disk",
        ] {
            assert!(!valid(&rule(body)), "{body}");
            assert!(Policy::from_text("p.yaml", &rule(body)).is_err(), "{body}");
        }
        for text in
            ["version: 2\nname: p\nrules: []\n", "name: p\nrules: []\n", "version: 1\nname: a b\nrules: []\n"]
        {
            assert!(!valid(text), "{text}");
            assert!(Policy::from_text("p.yaml", text).is_err(), "{text}");
        }
    }
}
