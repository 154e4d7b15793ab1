//! AWS's event stream: frames with their lengths, headers and two checksums.
//!
//! ```text
//!  length | length of headers | CRC of both | headers | payload | CRC of all before
//!    4            4                 4
//! ```

use bytes::{Buf, Bytes, BytesMut};

use super::{EVENT_MAX_BYTES, LlmError};

const PRELUDE: usize = 12;
const CRC: usize = 4;
/// The type of a header's value that is a string.
const STRING: u8 = 7;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub headers: Bytes,
    pub payload: Bytes,
    /// All of it, as it came.
    pub raw: Bytes,
}

/// The first frame of what is there, once it is there.
pub fn next(buffer: &mut BytesMut) -> Result<Option<Frame>, LlmError> {
    if buffer.len() < PRELUDE {
        return Ok(None);
    }
    let mut prelude = &buffer[..PRELUDE];
    let (length, headers) = (prelude.get_u32() as usize, prelude.get_u32() as usize);
    if prelude.get_u32() != crc(&buffer[..PRELUDE - CRC]) {
        return Err(LlmError::Frame);
    }
    if length > EVENT_MAX_BYTES {
        return Err(LlmError::TooLong);
    }
    if length < PRELUDE + CRC || headers > length - PRELUDE - CRC {
        return Err(LlmError::Frame);
    }
    if buffer.len() < length {
        return Ok(None);
    }
    let raw = buffer.split_to(length).freeze();
    if (&raw[length - CRC..]).get_u32() != crc(&raw[..length - CRC]) {
        return Err(LlmError::Frame);
    }
    let payload = PRELUDE + headers;
    Ok(Some(Frame { headers: raw.slice(PRELUDE..payload), payload: raw.slice(payload..length - CRC), raw }))
}

/// A frame with these headers and this payload.
pub fn write(headers: &[u8], payload: &[u8]) -> Result<Bytes, LlmError> {
    let number = |length: usize| u32::try_from(length).map_err(|_| LlmError::TooLong);
    let mut out = Vec::with_capacity(PRELUDE + headers.len() + payload.len() + CRC);
    out.extend(number(PRELUDE + headers.len() + payload.len() + CRC)?.to_be_bytes());
    out.extend(number(headers.len())?.to_be_bytes());
    out.extend(crc(&out).to_be_bytes());
    out.extend_from_slice(headers);
    out.extend_from_slice(payload);
    out.extend(crc(&out).to_be_bytes());
    Ok(out.into())
}

/// Headers whose values are strings.
pub fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(u8::try_from(name.len()).unwrap_or(0));
        out.extend_from_slice(name.as_bytes());
        out.push(STRING);
        out.extend(u16::try_from(value.len()).unwrap_or(0).to_be_bytes());
        out.extend_from_slice(value.as_bytes());
    }
    out
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written_and_not_if_a_byte_differs() {
        let fields = headers(&[(":event-type", "chunk"), (":content-type", "application/json")]);
        let frame = write(&fields, b"{\"bytes\":\"e30=\"}").unwrap();
        for cut in 0..=frame.len() {
            let mut buffer = BytesMut::from(&frame[..cut]);
            assert_eq!(next(&mut buffer).unwrap().is_some(), cut == frame.len());
        }
        let mut two = BytesMut::from(&[&frame[..], &frame[..]].concat()[..]);
        let read = next(&mut two).unwrap().unwrap();
        assert_eq!(
            (read.headers.as_ref(), read.payload.as_ref()),
            (&fields[..], &b"{\"bytes\":\"e30=\"}"[..])
        );
        assert_eq!((read.raw, two.as_ref()), (frame.clone(), &frame[..]));
        for at in 0..frame.len() {
            let mut wrong = BytesMut::from(&frame[..]);
            wrong[at] ^= 1;
            assert!(next(&mut wrong).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_checksum_is_that_of_the_documentation() {
        // The usual check value of CRC-32 (ISO-HDLC).
        assert_eq!(crc(b"123456789"), 0xcbf4_3926);
        // An empty message, as AWS prints it.
        let empty = [0, 0, 0, 0x10, 0, 0, 0, 0, 5, 0xc2, 0x48, 0xeb, 0x7d, 0x98, 0xc8, 0xff];
        assert_eq!(write(&[], &[]).unwrap().as_ref(), empty);
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_before_it_has_come() {
        for (length, refused) in [(EVENT_MAX_BYTES, false), (EVENT_MAX_BYTES + 1, true)] {
            let mut prelude = u32::try_from(length).unwrap().to_be_bytes().to_vec();
            prelude.extend([0; 4]);
            prelude.extend(crc(&prelude).to_be_bytes());
            let read = next(&mut BytesMut::from(&prelude[..]));
            assert_eq!(matches!(read, Err(LlmError::TooLong)), refused);
        }
    }
}
