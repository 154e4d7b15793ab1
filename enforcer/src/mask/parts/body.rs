//! Parts of a body, in a stream: fields of a form and values in JSON.
//!
//! Nothing is held back but the value of a part itself.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::{SELECT, Strategy, encoded, is_encoded};
use crate::mask::{
    error::MaskError,
    findings::{At, Findings},
    json::{Event, Walker},
    masker::Plan,
    part::Part,
    types::Place,
};

/// Bytes of the value of a part that are kept for its strategy; a longer one becomes a placeholder.
pub const PART_VALUE_MAX_BYTES: usize = 16 * 1024;
/// Bytes of the name of a form's field that are kept; a longer one is equal to no name.
const NAME_MAX_BYTES: usize = 1024;

/// Masks the parts of one body that policy names.
#[derive(Debug)]
pub struct BodyParts {
    plan: Arc<Plan>,
    form: Option<Form>,
    json: Option<Json>,
    /// Of a part whose value is being read: which one, and the value so far unless it is too long.
    value: Option<(Part, Strategy, Option<Vec<u8>>)>,
    findings: Findings,
}

#[derive(Debug)]
enum Form {
    /// The name so far; `None` if it is too long.
    Name(Option<Vec<u8>>),
    Value,
}

#[derive(Debug, Default)]
struct Json {
    walker: Walker,
    /// Its sender says that it is JSON; otherwise it may turn out to be something else.
    said: bool,
    /// What has begun is a string, and stands in quotes.
    quoted: bool,
    begun: bool,
}

impl BodyParts {
    pub(super) fn new(plan: Arc<Plan>, content_type: &[u8]) -> Option<Self> {
        let content_type = content_type.to_ascii_lowercase();
        let has = |is: fn(&Part) -> bool| plan.parts.always(is).is_some();
        let form = content_type.starts_with(b"application/x-www-form-urlencoded")
            && has(|part| matches!(part, Part::Form(_)));
        let said = memchr::memmem::find(&content_type, b"json").is_some();
        let json = !form && has(|part| matches!(part, Part::Json(_)));
        (form || json).then(|| Self {
            form: form.then(|| Form::Name(Some(Vec::new()))),
            json: json.then(|| Json { said, ..Json::default() }),
            value: None,
            findings: Findings::default(),
            plan,
        })
    }

    /// What was found so far.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Takes a chunk and gives what goes on; after an error the stream has to end.
    pub fn push(&mut self, chunk: Bytes) -> Result<Bytes, MaskError> {
        if self.form.is_none() && self.json.is_none() {
            return Ok(chunk);
        }
        let mut out = BytesMut::new();
        // What belongs to a value that has begun does not go on.
        let mut from = if self.value.is_some() { chunk.len() } else { 0 };
        for (at, &byte) in chunk.iter().enumerate() {
            let changed = match self.form {
                Some(_) => self.form(byte)?,
                None => self.json(byte)?,
            };
            match changed {
                Change::None => {}
                Change::Begins { with } => {
                    out.extend_from_slice(&chunk[from..at + usize::from(!with)]);
                    from = chunk.len();
                }
                Change::Ends(text) => {
                    out.extend_from_slice(&text);
                    from = at;
                }
                // No JSON after all: the rest is as it is.
                Change::Over => {
                    self.json = None;
                    break;
                }
            }
        }
        if from == 0 && out.is_empty() {
            return Ok(chunk);
        }
        out.extend_from_slice(&chunk[from..]);
        Ok(out.freeze())
    }

    /// Nothing follows.
    pub fn finish(&mut self) -> Result<Bytes, MaskError> {
        if let Some(json) = &self.json
            && json.said
            && !json.walker.is_whole()
        {
            return Err(MaskError::NotJson);
        }
        if self.value.is_none() { Ok(Bytes::new()) } else { Ok(self.replaced()?.into()) }
    }

    fn begin(&mut self, part: Part, strategy: Strategy, value: Vec<u8>) {
        self.value = Some((part, strategy, Some(value)));
    }

    fn keep(&mut self, byte: u8) {
        if let Some((_, _, slot)) = &mut self.value {
            match slot {
                Some(value) if value.len() < PART_VALUE_MAX_BYTES => value.push(byte),
                _ => *slot = None,
            }
        }
    }

    fn form(&mut self, byte: u8) -> Result<Change, MaskError> {
        match &mut self.form {
            Some(Form::Name(name)) => match (byte, &mut *name) {
                (b'&', _) => *name = Some(Vec::new()),
                (b'=', _) => {
                    let name = name.take();
                    self.form = Some(Form::Value);
                    let plan = Arc::clone(&self.plan);
                    let this = |part: &Part| {
                        let name = name.as_deref();
                        matches!((part, name), (Part::Form(wanted), Some(name)) if is_encoded(wanted, name))
                    };
                    if let Some((part, strategy)) = plan.parts.always(this) {
                        self.begin(part.clone(), strategy, Vec::new());
                        return Ok(Change::Begins { with: false });
                    }
                }
                (_, Some(bytes)) if bytes.len() < NAME_MAX_BYTES => bytes.push(byte),
                _ => *name = None,
            },
            _ if byte == b'&' => {
                self.form = Some(Form::Name(Some(Vec::new())));
                if self.value.is_some() {
                    return Ok(Change::Ends(self.replaced()?));
                }
            }
            _ => self.keep(byte),
        }
        Ok(Change::None)
    }

    fn json(&mut self, byte: u8) -> Result<Change, MaskError> {
        let Some(json) = &mut self.json else { return Ok(Change::Over) };
        if !json.begun && !json.said && !matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0xef | 0xbb | 0xbf) {
            json.begun = true;
            if !matches!(byte, b'{' | b'[') {
                return Ok(Change::Over);
            }
        }
        let event = match json.walker.step(byte) {
            Ok(event) => event,
            // What is cut off in the middle of a value was not JSON, and its rest is unknown.
            Err(_) if json.said || self.value.is_some() => return Err(MaskError::NotJson),
            Err(_) => return Ok(Change::Over),
        };
        match event {
            Event::StringBegins | Event::ScalarBegins => {
                json.quoted = event == Event::StringBegins;
                let plan = Arc::clone(&self.plan);
                let walker = &json.walker;
                let this = |part: &Part| matches!(part, Part::Json(path) if path.covers(walker));
                if let Some((part, strategy)) = plan.parts.always(this) {
                    let quoted = json.quoted;
                    self.begin(part.clone(), strategy, if quoted { Vec::new() } else { vec![byte] });
                    return Ok(Change::Begins { with: !quoted });
                }
            }
            Event::Inside => self.keep(byte),
            Event::StringEnds | Event::ScalarEnds if self.value.is_some() => {
                return Ok(Change::Ends(self.replaced()?));
            }
            Event::StringEnds | Event::ScalarEnds | Event::Between => {}
        }
        Ok(Change::None)
    }

    /// What stands in place of the value that was read, as it can stand there.
    fn replaced(&mut self) -> Result<Vec<u8>, MaskError> {
        let Some((part, strategy, value)) = self.value.take() else { return Ok(Vec::new()) };
        let quoted = self.json.as_ref().is_some_and(|json| json.quoted);
        let scalar = self.json.is_some() && !quoted;
        if scalar && value.as_deref() == Some(b"null") {
            return Ok(b"null".to_vec());
        }
        let text = |value: &[u8]| {
            let written = [b"\"", value, b"\""].concat();
            quoted.then(|| serde_json::from_slice::<String>(&written).ok()).flatten()
        };
        let (replaced, entity) = match &value {
            Some(value) => match text(value) {
                Some(text) => self.plan.parts.replaced(&part, strategy, text.as_bytes())?,
                None => self.plan.parts.replaced(&part, strategy, value)?,
            },
            // The strategies that depend on a value have none.
            None if strategy < Strategy::Placeholder => {
                self.plan.parts.replaced(&part, Strategy::Placeholder, &[])?
            }
            None => self.plan.parts.replaced(&part, strategy, &[])?,
        };
        self.findings.merge(&Findings::one(&entity, SELECT, &Place::Body, Some(At::Named(part))));
        if self.json.is_none() {
            return Ok(encoded(&replaced));
        }
        let string = serde_json::to_vec(&String::from_utf8_lossy(&replaced)).unwrap_or_default();
        Ok(if quoted { string[1..string.len().max(2) - 1].to_vec() } else { string })
    }
}

enum Change {
    None,
    /// A value begins: with this byte, or behind it.
    Begins {
        with: bool,
    },
    /// A value ended before this byte; this stands in its place.
    Ends(Vec<u8>),
    Over,
}
