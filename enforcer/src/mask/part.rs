//! Parts of a message that a policy names.

use std::fmt;

use super::json::JsonPath;

/// Bytes of the name of a part.
pub const PART_NAME_MAX_BYTES: usize = 256;

/// One part of a message, by name. What has a value of its own is masked as a whole,
/// whatever stands in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// A header field or a trailer; the name in lower case.
    Header(String),
    /// A parameter of the query.
    Query(String),
    /// A cookie, sent or set.
    Cookie(String),
    /// A field of a form.
    Form(String),
    /// A value in JSON.
    Json(JsonPath),
}

impl Part {
    /// Reads the name of a part; the error says what is wrong with it.
    pub fn parse(kind: &str, name: &str) -> Result<Self, String> {
        if name.is_empty() || name.len() > PART_NAME_MAX_BYTES {
            return Err(format!("the name of a part has between 1 and {PART_NAME_MAX_BYTES} bytes"));
        }
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        let named = |part: fn(String) -> Self| match name.bytes().all(token) {
            true => Ok(part(name.to_owned())),
            false => Err(format!("`{name}` is no name of a {kind}")),
        };
        match kind {
            "header" => named(Self::Header).map(|part| match part {
                Self::Header(name) => Self::Header(name.to_ascii_lowercase()),
                other => other,
            }),
            "cookie" => named(Self::Cookie),
            "query" => Ok(Self::Query(name.to_owned())),
            "form" => Ok(Self::Form(name.to_owned())),
            "json" => JsonPath::parse(name).map(Self::Json),
            _ => Err(format!("`{kind}` is no part of a message; use header, query, cookie, form or json")),
        }
    }

    /// Whether it is a part of a body.
    pub fn is_in_body(&self) -> bool {
        matches!(self, Self::Form(_) | Self::Json(_))
    }

    /// Whether it is a cookie.
    pub fn is_cookie(&self) -> bool {
        matches!(self, Self::Cookie(_))
    }

    /// Whether it is a field in which cookies stand.
    pub fn has_cookies(&self) -> bool {
        matches!(self, Self::Header(name) if name == "cookie" || name == "set-cookie")
    }

    /// The entity under which the value of this part is masked: `X_API_KEY`, `PASSWORD`.
    pub fn entity(&self) -> super::Entity {
        let name = match self {
            Self::Header(name) | Self::Query(name) | Self::Cookie(name) | Self::Form(name) => name.clone(),
            Self::Json(path) => path.last_name().unwrap_or("VALUE").to_owned(),
        };
        super::Entity::new(&name)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header {name}"),
            Self::Query(name) => write!(f, "query {name}"),
            Self::Cookie(name) => write!(f, "cookie {name}"),
            Self::Form(name) => write!(f, "form {name}"),
            Self::Json(path) => write!(f, "json {path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        assert_eq!(Part::parse("header", "X-Api-Key").unwrap().to_string(), "header x-api-key");
        assert_eq!(Part::parse("header", "X-Api-Key").unwrap().entity().as_str(), "X_API_KEY");
        let json = Part::parse("json", "$.a[*][0]..password").unwrap();
        assert_eq!(
            (json.to_string().as_str(), json.entity().as_str()),
            ("json $.a[*][0]..password", "PASSWORD")
        );
        for (kind, name) in
            [("header", "a b"), ("cookie", "a=b"), ("column", "a"), ("json", "a"), ("form", "")]
        {
            assert!(Part::parse(kind, name).is_err(), "{kind} {name}");
        }
        assert!(Part::parse("query", &"x".repeat(PART_NAME_MAX_BYTES)).is_ok());
        assert!(Part::parse("query", &"x".repeat(PART_NAME_MAX_BYTES + 1)).is_err());
    }
}
