//! Requests as they stand in raw bytes.
//!
//! A reader of its own, so that a mistake of the product's readers shows. It is
//! for one form only, in which nothing can be read in two ways: whatever else
//! there is, is an error.

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    pub method: String,
    pub target: String,
    /// Names in lower case; bytes that are no text show as U+FFFD.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// False: the bytes end in the middle of the body.
    pub complete: bool,
    /// HTTP/1.0
    pub old: bool,
}

impl Request {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whatever follows it means nothing (RFC 9112, 9.6).
    fn closes(&self) -> bool {
        let connection = self.field("connection").unwrap_or_default().to_ascii_lowercase();
        let says = |what| connection.split(',').any(|option| option.trim() == what);
        says("close") || self.old && !says("keep-alive")
    }

    fn count(&self, name: &str) -> usize {
        self.fields.iter().filter(|(known, _)| known == name).count()
    }
}

/// What a stream of bytes holds.
#[derive(Debug, Default)]
pub struct Read {
    /// The last one may be incomplete.
    pub requests: Vec<Request>,
    /// Bytes of a head that has no end.
    pub left: usize,
}

/// Who wrote the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The proxy: the canonical form and nothing else.
    Proxy,
    /// A client: an empty line before a request, chunk extensions, a length with
    /// zeros ahead, any number of fields that are not about framing.
    Client,
}

/// Reads requests until the bytes end.
pub fn requests(mut bytes: &[u8], from: From) -> Result<Read, String> {
    let mut read = Read::default();
    while !bytes.is_empty() {
        if from == From::Client {
            bytes = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
        }
        let Some(end) = find(bytes, b"\r\n\r\n") else {
            read.left = bytes.len();
            break;
        };
        let mut request = head(&bytes[..end])?;
        bytes = &bytes[end + 4..];
        framing(&request, from)?;
        if request.field("transfer-encoding").is_some() {
            bytes = chunks(&mut request, bytes, from)?;
        } else {
            let length = request.field("content-length").map_or(Ok(0), |text| number(text, 10))?;
            let there = length.min(bytes.len());
            request.body.extend_from_slice(&bytes[..there]);
            request.complete = there == length;
            bytes = &bytes[there..];
        }
        let last = from == From::Client && request.closes();
        read.requests.push(request);
        if last {
            break;
        }
    }
    Ok(read)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Lines between CRLF; a CR or LF by itself is an error.
fn lines(bytes: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut lines = Vec::new();
    let mut rest = bytes;
    loop {
        let end = find(rest, b"\r\n").unwrap_or(rest.len());
        let line = &rest[..end];
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Err(format!("a lone CR or LF, or a zero: {:?}", text(line)));
        }
        lines.push(line);
        match rest.get(end + 2..) {
            Some(more) => rest = more,
            None => return Ok(lines),
        }
    }
}

fn head(bytes: &[u8]) -> Result<Request, String> {
    let lines = lines(bytes)?;
    let first = text(lines[0]);
    let [method, target, version @ ("HTTP/1.1" | "HTTP/1.0")] = first.split(' ').collect::<Vec<_>>()[..]
    else {
        return Err(format!("no request line: {first:?}"));
    };
    let fields = fields(&lines[1..])?;
    let (method, target, old) = (method.to_owned(), target.to_owned(), version == "HTTP/1.0");
    Ok(Request { method, target, fields, old, ..Request::default() })
}

fn fields(lines: &[&[u8]]) -> Result<Vec<(String, String)>, String> {
    let field = |line: &&[u8]| {
        let colon = find(line, b":").ok_or_else(|| format!("no colon: {:?}", text(line)))?;
        let name = text(&line[..colon]).to_ascii_lowercase();
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("no field name: {name:?}"));
        }
        Ok((name, text(line[colon + 1..].trim_ascii())))
    };
    lines.iter().map(field).collect()
}

/// One `Host`, at most one framing, and none that could be taken for another.
fn framing(request: &Request, from: From) -> Result<(), String> {
    let framings = request.count("content-length") + request.count("transfer-encoding");
    if request.count("host") != 1 || framings > 1 {
        return Err(format!("{} Host fields, {framings} framings", request.count("host")));
    }
    if request.field("transfer-encoding").is_some_and(|coding| !coding.eq_ignore_ascii_case("chunked")) {
        return Err(format!("{:?}", request.field("transfer-encoding")));
    }
    let length = request.field("content-length").unwrap_or("0");
    if from == From::Proxy && length.len() > 1 && length.starts_with('0') {
        return Err(format!("a length of {length:?}"));
    }
    let upgrade = request.field("upgrade").is_some_and(|to| !to.eq_ignore_ascii_case("websocket"));
    if from == From::Proxy && (upgrade || request.field("expect").is_some()) {
        return Err("an upgrade or an expectation that is not to go on".to_owned());
    }
    Ok(())
}

fn number(text: &str, radix: u32) -> Result<usize, String> {
    if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(format!("no number: {text:?}"));
    }
    usize::from_str_radix(text, radix).map_err(|error| format!("{text:?}: {error}"))
}

/// A chunked body and its trailers: what follows them.
fn chunks<'a>(request: &mut Request, mut bytes: &'a [u8], from: From) -> Result<&'a [u8], String> {
    while let Some(end) = find(bytes, b"\r\n") {
        let line = text(&bytes[..end]);
        let size = match line.split_once(';') {
            Some((size, _)) if from == From::Client => size,
            _ => &line,
        };
        let size = number(size, 16)?;
        if size == 0 {
            return trailers(request, &bytes[end..]);
        }
        bytes = &bytes[end + 2..];
        let there = size.min(bytes.len());
        request.body.extend_from_slice(&bytes[..there]);
        bytes = &bytes[there..];
        if !b"\r\n".starts_with(&bytes[..bytes.len().min(2)]) {
            return Err("a chunk has another size than it says".to_owned());
        }
        let Some(next) = bytes.get(2..) else { return Ok(&[]) };
        bytes = next;
    }
    Ok(&[])
}

/// `bytes` begin with the end of the last chunk's line.
fn trailers<'a>(request: &mut Request, bytes: &'a [u8]) -> Result<&'a [u8], String> {
    let Some(end) = find(bytes, b"\r\n\r\n") else { return Ok(&[]) };
    if end > 0 {
        request.trailers = fields(&lines(&bytes[2..end])?)?;
    }
    request.complete = true;
    Ok(&bytes[end + 4..])
}

/// The target without scheme and authority.
pub fn origin_form(target: &str) -> String {
    let Some((_, rest)) = target.split_once("://") else { return target.to_owned() };
    let path = rest.find(['/', '?']).map_or("", |at| &rest[at..]);
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}
