//! The elements of one JSON list, cut out of it as they come.

/// Where a list stands that comes in pieces.
#[derive(Debug, Default)]
pub struct List {
    /// Brackets that are open in the element at hand.
    depth: usize,
    string: bool,
    escaped: bool,
    /// Up to where the buffer was looked at.
    seen: usize,
}

impl List {
    /// How long the next part of the buffer is, and whether it is an element. What stands
    /// between elements comes as it is
    /// there, and the end of the list by itself.
    pub fn next(&mut self, buffer: &[u8]) -> Option<(usize, bool)> {
        if self.depth == 0 {
            let between = memchr::memchr2(b'{', b']', buffer).unwrap_or(buffer.len());
            match buffer.get(between) {
                _ if between > 0 => return Some((between, false)),
                Some(b']') => return Some((1, false)),
                _ => {}
            }
        }
        while let Some(&byte) = buffer.get(self.seen) {
            self.seen += 1;
            if self.string {
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Some((std::mem::take(&mut self.seen), true));
                    }
                }
                _ => {}
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_cut_out_whatever_stands_in_their_strings() {
        let text = br#"[{"a":"}]\"{"},
{"b":[{}]}
]"#;
        for cut in 0..=text.len() {
            let (mut list, mut buffer, mut found) = (List::default(), Vec::new(), Vec::new());
            for half in [&text[..cut], &text[cut..]] {
                buffer.extend_from_slice(half);
                while let Some((length, element)) = list.next(&buffer) {
                    let part: Vec<u8> = buffer.drain(..length).collect();
                    if element {
                        found.push(String::from_utf8(part).unwrap());
                    }
                }
            }
            assert!(buffer.is_empty());
            assert_eq!(found, [r#"{"a":"}]\"{"}"#, r#"{"b":[{}]}"#], "{cut}");
        }
    }
}
