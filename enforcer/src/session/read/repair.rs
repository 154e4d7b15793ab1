//! Where a recording goes on after the process before was killed.

use std::io::{self, Read, Write};

use super::{Next, Segment};
use crate::session::dir::{Dir, SegmentName};
use crate::session::record::{Broken, Chain};

/// The end of what was recorded before.
#[derive(Default)]
pub struct Tail {
    pub number: u64,
    pub host: Chain,
    /// Bytes of a torn last record, which have been cut off.
    pub torn: u64,
}

/// Finds the last whole record, and cuts off what a killed process left of the
/// next one. Anything else that is wrong is left for `verify` to find.
pub fn tail(dir: &Dir) -> io::Result<Tail> {
    let segments = dir.segments()?;
    let mut tail = Tail { number: segments.last().map_or(0, |name| name.number), ..Tail::default() };
    for (back, name) in segments.iter().rev().enumerate() {
        let mut segment = Segment::open(dir, name)?;
        let mut last = None;
        let broken = loop {
            match segment.next()? {
                Next::Record(record, _) => {
                    last = Some(Chain { previous: record.hash, next: record.ordinal.saturating_add(1) });
                }
                Next::End => break None,
                Next::Broken(broken) => break Some(broken),
            }
        };
        if back == 0 && broken == Some(Broken::Torn) {
            tail.torn = segment.file_length()?.saturating_sub(segment.at);
            cut(dir, name, &mut segment)?;
        }
        if let Some(last) = last {
            tail.host = last;
            break;
        }
    }
    Ok(tail)
}

/// The bytes are kept beside the segment for whoever wants to look at them.
/// Nothing was built on them: a record that is not whole was never acknowledged.
fn cut(dir: &Dir, name: &SegmentName, segment: &mut Segment) -> io::Result<()> {
    segment.again()?;
    let kept = dir.create(&format!("{}.torn", name.file())).and_then(|mut aside| {
        let mut torn = Vec::new();
        (&mut segment.reader).take(super::CHUNK as u64).read_to_end(&mut torn)?;
        aside.write_all(&torn)
    });
    if let Err(error) = kept {
        tracing::warn!(segment = %name.file(), %error, "the torn end of a segment was not kept");
    }
    let file = dir.file(&name.file(), true)?;
    file.set_len(segment.at)?;
    file.sync_all()
}
