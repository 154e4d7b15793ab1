//! Messages that follow each other as one text: what is split over them is masked, too.
//!
//! ```text
//!  raw:   .... sent | waiting | waiting | the newest
//!              [---- a match over a border ---)
//!  out:             | before + placeholder | what is behind its end
//! ```
//! Each message stays one message. One waits only while it ends in the beginning of a known
//! value, and never because of a pattern: what a person or a program waits for an answer to
//! ends in half a word often, and in eight bytes of a registered value never by chance.

use bytes::Bytes;

use super::{
    error::MaskError,
    filter::Target,
    findings::{Finding, Findings},
    masker::Masker,
    strategy::{Replacement, Strategy},
    types::{Entity, Masked, Place},
};

/// Bytes of a known value that a message may end in without waiting for the next.
pub const SPLIT_MIN_BYTES: usize = 8;
/// Messages that wait at most.
pub const SPLIT_MESSAGES_MAX: usize = 256;
/// Bytes that are remembered of messages that went out.
const SENT_BYTES: usize = 1024;
/// Bytes of a message behind a border in which a match can end.
const BEHIND_BYTES: usize = super::rule::PATTERN_MAX_BYTES;

/// Masks the messages of one direction, over the borders between them.
#[derive(Debug)]
pub struct Messages {
    masker: Masker,
    known: Masker,
    /// The end of what went out, as it came.
    sent: Vec<u8>,
    waiting: Vec<(Bytes, bool)>,
    /// Bytes at the beginning of what waits that belong to what was masked in a message before.
    covered: usize,
}

/// Messages as they go out, each with the mark that it came with.
pub type Passed = Vec<(Masked, bool)>;

/// A match that begins in one message and ends in another; positions count from the beginning
/// of what was sent.
struct Split {
    from: usize,
    to: usize,
    target: Target,
}

impl Messages {
    /// `known` finds of `masker` the known values.
    pub fn new(masker: Masker, known: Masker) -> Self {
        Self { masker, known, sent: Vec::new(), waiting: Vec::new(), covered: 0 }
    }

    /// Takes the next message with any mark, and gives those that may go out now. After an
    /// error none may follow before [`Messages::give_up`].
    pub fn push(&mut self, message: Bytes, mark: bool) -> Result<(Passed, Findings), MaskError> {
        self.waiting.push((message, mark));
        if self.waiting.len() > SPLIT_MESSAGES_MAX {
            return Err(MaskError::TooManyOpen { limit: SPLIT_MESSAGES_MAX });
        }
        let waits = self.waits()?;
        self.release(self.waiting.len() - waits)
    }

    /// No message follows: those that have waited.
    pub fn finish(&mut self) -> Result<(Passed, Findings), MaskError> {
        self.release(self.waiting.len())
    }

    /// Something in place of each message that waits, of which nothing is shown: behind an error
    /// it is not known what is in them. What follows begins anew.
    pub fn give_up(&mut self) -> Passed {
        self.sent.clear();
        self.covered = 0;
        let hidden = || Masked::new(Entity::new("UNMASKABLE").placeholder().into());
        self.waiting.drain(..).map(|(_, mark)| (hidden(), mark)).collect()
    }

    /// How many of the last messages have to wait.
    fn waits(&self) -> Result<usize, MaskError> {
        if self.known.is_noop() {
            return Ok(0);
        }
        let mut stream = self.known.stream_at(Place::Other);
        stream.push(Bytes::copy_from_slice(&self.sent))?;
        for (message, _) in &self.waiting {
            stream.push(message.clone())?;
        }
        let mut held = stream.held();
        if held < SPLIT_MIN_BYTES {
            return Ok(0);
        }
        let mut waits = 0;
        for (message, _) in self.waiting.iter().rev() {
            if held == 0 {
                break;
            }
            waits += 1;
            held = held.saturating_sub(message.len());
        }
        Ok(waits)
    }

    fn release(&mut self, count: usize) -> Result<(Passed, Findings), MaskError> {
        let mut findings = Findings::default();
        if count == 0 {
            return Ok((Vec::new(), findings));
        }
        let splits = self.splits()?;
        let mut passed = Vec::with_capacity(count);
        let (first, mut begin) = (self.sent.len(), self.sent.len());
        let covered = if self.covered > 0 { first + self.covered } else { 0 };
        // An error does not leave messages out of what `give_up` replaces.
        for (message, mark) in self.waiting.iter().take(count) {
            let end = begin + message.len();
            let mut out = Vec::new();
            let mut at = covered.clamp(begin, end);
            for split in splits.iter().filter(|split| split.from < end && split.to > begin) {
                let (from, to) = (split.from.clamp(at, end), split.to.clamp(at, end));
                if from > at {
                    out.push(piece(&self.masker, &message[at - begin..from - begin], &mut findings)?);
                }
                // In the message in which it begins, or in the first after that which is here.
                if (begin..end).contains(&split.from) || begin == first && split.from < first {
                    out.push(told(&self.masker, split, &mut findings)?);
                }
                at = to;
            }
            if at == begin {
                let (masked, found) = self.masker.whole(message, Place::WebSocket)?;
                findings.merge(&found);
                passed.push((masked, *mark));
            } else {
                out.push(piece(&self.masker, &message[at - begin..], &mut findings)?);
                passed.push((Masked::join(out), *mark));
            }
            self.sent.extend_from_slice(message);
            begin = end;
        }
        self.waiting.drain(..count);
        // What was masked once is not found again; what of it stands in messages that still wait
        // goes with it.
        let to = splits.iter().filter(|split| split.from < begin).map(|split| split.to).max();
        let done = to.unwrap_or_default().max(covered);
        self.covered = done.saturating_sub(begin);
        self.sent.drain(..done.min(begin).max(self.sent.len().saturating_sub(SENT_BYTES)));
        Ok((passed, findings))
    }

    /// Everything that reaches over a border and has to be masked, in its order.
    fn splits(&self) -> Result<Vec<Split>, MaskError> {
        let alone = self.sent.is_empty() && self.waiting.len() == 1;
        if alone || self.masker.plan().is_noop() {
            return Ok(Vec::new());
        }
        let mut text = self.sent.clone();
        let mut borders = Vec::with_capacity(self.waiting.len());
        for (message, _) in &self.waiting {
            borders.push(text.len());
            text.extend_from_slice(message);
        }
        let last = borders.last().map_or(0, |border| border + BEHIND_BYTES);
        text.truncate(last);
        let over = |(from, to): (usize, usize)| borders.iter().any(|border| (from + 1..to).contains(border));
        let ranges = self.masker.ranges(&text)?;
        let over = ranges.into_iter().filter(|(from, to, _)| over((*from, *to)));
        let plan = self.masker.plan();
        let masked = over.filter(|(.., target)| plan.strategy(*target) != Strategy::Observe);
        Ok(masked.map(|(from, to, target)| Split { from, to, target }).collect())
    }
}

/// A part of a message beside what is split.
fn piece(masker: &Masker, text: &[u8], findings: &mut Findings) -> Result<Masked, MaskError> {
    let (masked, found) = masker.whole(text, Place::Other)?;
    findings.merge(&found.at(&Place::WebSocket));
    Ok(masked)
}

/// What stands in place of something that is split; an error if nothing may.
fn told(masker: &Masker, split: &Split, findings: &mut Findings) -> Result<Masked, MaskError> {
    let plan = masker.plan();
    let (entity, rule) = (plan.entity(split.target).clone(), plan.name(split.target));
    let placeholder = entity.placeholder();
    findings.add(Finding { entity, rule, count: 1, place: Place::WebSocket, at: None });
    // Of a part of a value nothing can be shown that depends on it.
    Ok(match plan.replacement(split.target, &[])? {
        Replacement::Text(text) if text.is_empty() => Masked::empty(),
        _ => Masked::new(placeholder.into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::{ExactValue, Layer, Selection};
    use crate::secret::SecretBytes;

    const SECRET: &str = "obviously-fake-deploy-key-0123456789";

    fn messages(name: &str, strategy: Strategy) -> Messages {
        let values = [ExactValue::new("deploy", &SecretBytes::from(SECRET)).unwrap()];
        let mut layer = Layer::default();
        layer.name(name, strategy).unwrap();
        let selection = Selection::from(layer);
        let masker = Masker::new(&selection, &values).unwrap();
        Messages::new(masker, Masker::new(&selection.exact_part(), &values).unwrap())
    }

    fn texts(passed: Passed) -> Vec<String> {
        passed.into_iter().map(|(masked, _)| masked.to_text().into_owned()).collect()
    }

    #[test]
    fn a_known_value_in_two_messages_is_masked_wherever_it_is_cut() {
        for at in 1..SECRET.len() {
            let mut messages = messages("exact", Strategy::Placeholder);
            let (first, second) = SECRET.split_at(at);
            let (out, _) = messages.push(format!("a {first}").into(), false).unwrap();
            assert_eq!(out.is_empty(), at >= SPLIT_MIN_BYTES, "{at}: a message waits only for a value");
            let mut all = texts(out);
            let (out, found) = messages.push(format!("{second} b").into(), true).unwrap();
            assert_eq!(found.total(), 1);
            assert_eq!(out.last().map(|(_, mark)| *mark), Some(true));
            all.extend(texts(out));
            let wanted = if at >= SPLIT_MIN_BYTES {
                ["a [MASKED:DEPLOY]".to_owned(), " b".to_owned()]
            } else {
                [format!("a {first}"), "[MASKED:DEPLOY] b".to_owned()]
            };
            assert_eq!(all, wanted, "{at}");
            // What was masked once is not masked again.
            assert_eq!(texts(messages.push("c".into(), false).unwrap().0), ["c"]);
        }
    }

    #[test]
    fn a_value_of_a_letter_a_message_shows_its_beginning_at_most() {
        let mut messages = messages("exact", Strategy::Placeholder);
        let mut all = Vec::new();
        for letter in SECRET.chars() {
            all.extend(texts(messages.push(letter.to_string().into(), false).unwrap().0));
        }
        assert_eq!(all.len(), SECRET.len(), "each message stays one");
        assert_eq!(all.concat(), format!("{}[MASKED:DEPLOY]", &SECRET[..SPLIT_MIN_BYTES - 1]));
    }

    #[test]
    fn what_has_waited_goes_out_when_it_was_nothing() {
        let mut messages = messages("exact", Strategy::Placeholder);
        assert!(messages.push(SECRET[..20].to_owned().into(), false).unwrap().0.is_empty());
        assert_eq!(texts(messages.push(" other".into(), false).unwrap().0), [&SECRET[..20], " other"]);
        assert!(messages.push(SECRET[..20].to_owned().into(), true).unwrap().0.is_empty());
        assert_eq!(texts(messages.finish().unwrap().0), [&SECRET[..20]]);
    }

    #[test]
    fn what_ends_in_a_message_that_waits_for_another_value_is_masked_there() {
        let (first, second) = SECRET.split_at(20);
        for (between, begun) in [("", 10), (" and ", 10), (" and ", 30)] {
            let mut messages = messages("exact", Strategy::Placeholder);
            assert!(messages.push(format!("a {first}").into(), false).unwrap().0.is_empty());
            let middle = format!("{second}{between}{}", &SECRET[..begun]);
            let mut all = texts(messages.push(middle.into(), false).unwrap().0);
            assert_eq!(all, ["a [MASKED:DEPLOY]"], "the next one waits for itself");
            all.extend(texts(messages.push(format!("{} b", &SECRET[begun..]).into(), false).unwrap().0));
            let wanted = ["a [MASKED:DEPLOY]".into(), format!("{between}[MASKED:DEPLOY]"), " b".into()];
            assert_eq!(all, wanted);
        }
    }

    #[test]
    fn of_what_cannot_be_decided_nothing_is_shown_and_nothing_left_out() {
        let mut messages = messages("exact", Strategy::Deny);
        assert!(messages.push(SECRET[..20].to_owned().into(), false).unwrap().0.is_empty());
        assert!(messages.push(SECRET[20..].to_owned().into(), true).is_err());
        let given = messages.give_up();
        assert_eq!(given.iter().map(|(_, mark)| *mark).collect::<Vec<_>>(), [false, true]);
        assert_eq!(texts(given), ["[MASKED:UNMASKABLE]", "[MASKED:UNMASKABLE]"]);
        assert_eq!(texts(messages.push("other".into(), false).unwrap().0), ["other"]);
    }

    #[test]
    fn of_a_token_over_a_border_the_rest_is_masked_or_denied() {
        let token = ["ghp_", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef1234"].concat();
        let both = |strategy| {
            let mut messages = messages("GITHUB_TOKEN", strategy);
            let first = texts(messages.push(token[..20].to_owned().into(), false).unwrap().0);
            assert_eq!(first, [&token[..20]], "a pattern lets nobody wait");
            messages.push(format!("{} b", &token[20..]).into(), false).map(|(out, _)| texts(out))
        };
        assert_eq!(both(Strategy::Placeholder).unwrap(), ["[MASKED:GITHUB_TOKEN] b"]);
        assert_eq!(both(Strategy::Drop).unwrap(), [" b"]);
        assert_eq!(both(Strategy::Observe).unwrap(), [format!("{} b", &token[20..])]);
        assert!(matches!(both(Strategy::Deny), Err(MaskError::Denied { .. })));
    }

    #[test]
    fn so_many_messages_wait_and_no_more() {
        let mut messages = messages("exact", Strategy::Placeholder);
        messages.push(SECRET[..10].to_owned().into(), false).unwrap();
        for _ in 1..SPLIT_MESSAGES_MAX {
            messages.push(Bytes::new(), false).unwrap();
        }
        assert!(matches!(messages.push(Bytes::new(), false), Err(MaskError::TooManyOpen { .. })));
    }
}
