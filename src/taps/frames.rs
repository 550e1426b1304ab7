//! Frame Streams, the writer's side, both ways: how dnstap travels. Pure.
//!
//! ```text
//!   we                         collector
//!   READY(content type)   ──►
//!                         ◄──  ACCEPT(content type)
//!   START(content type)   ──►
//!   frame, frame, …       ──►
//!   STOP                  ──►
//!                         ◄──  FINISH
//! ```
//! Source: the protocol's description in `fstrm/control.h`. A data frame is its length (32 bits, big endian) and its octets; a control
//! frame is a length of 0, then its own length, its kind, and fields of kind, length, octets.

/// What dnstap calls its content.
pub(super) const CONTENT: &[u8] = b"protobuf:dnstap.Dnstap";
/// A longer control frame is refused (FSTRM_CONTROL_FRAME_LENGTH_MAX).
pub(super) const CONTROL_BYTES_MAX: u32 = 512;

const FIELD_CONTENT_TYPE: u32 = 1;

/// Kinds of control frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Control {
    Accept = 1,
    Start = 2,
    Stop = 3,
    Ready = 4,
    Finish = 5,
}

/// A control frame; those that name the content do so where they must.
pub(super) fn control(kind: Control) -> Vec<u8> {
    let mut body = (kind as u32).to_be_bytes().to_vec();
    if matches!(kind, Control::Ready | Control::Accept | Control::Start) {
        body.extend(FIELD_CONTENT_TYPE.to_be_bytes());
        body.extend(size(CONTENT));
        body.extend(CONTENT);
    }
    let mut frame = 0_u32.to_be_bytes().to_vec();
    frame.extend(size(&body));
    frame.extend(body);
    frame
}

/// A data frame.
pub(super) fn data(octets: &[u8]) -> Vec<u8> {
    let mut frame = size(octets).to_vec();
    frame.extend(octets);
    frame
}

fn size(octets: &[u8]) -> [u8; 4] {
    u32::try_from(octets.len()).unwrap_or(u32::MAX).to_be_bytes()
}

/// Whether the body of a control frame is of this kind, and names our content where it names any.
pub(super) fn is(body: &[u8], kind: Control) -> bool {
    let Some((head, mut rest)) = body.split_first_chunk::<4>() else { return false };
    let mut contents = Vec::new();
    while let Some((field, more)) = rest.split_first_chunk::<4>() {
        let Some((length, more)) = more.split_first_chunk::<4>() else { return false };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let Some((octets, more)) = more.split_at_checked(length) else { return false };
        if u32::from_be_bytes(*field) == FIELD_CONTENT_TYPE {
            contents.push(octets);
        }
        rest = more;
    }
    rest.is_empty() && u32::from_be_bytes(*head) == kind as u32 && (contents.is_empty() || contents.contains(&CONTENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_frames_are_written_and_read() {
        for kind in [Control::Accept, Control::Start, Control::Stop, Control::Ready, Control::Finish] {
            let frame = control(kind);
            assert_eq!(frame[..4], [0; 4]);
            assert_eq!(usize::from(frame[7]), frame.len() - 8, "{kind:?}");
            assert!(is(&frame[8..], kind), "{kind:?}");
            for cut in 8..frame.len() {
                assert!(cut == 12 || !is(&frame[8..cut], kind), "{kind:?} cut at {cut}");
            }
        }
        let mut other = control(Control::Accept);
        let last = other.len() - 1;
        other[last] = b'x';
        assert!(!is(&other[8..], Control::Accept), "another content");
        assert_eq!(control(Control::Stop), [0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 3]);
        assert_eq!(data(&[7, 8]), [0, 0, 0, 2, 7, 8]);
    }
}
