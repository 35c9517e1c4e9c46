//! Bytes to lines. Invariant: the pieces of an output, in order, are all its bytes but the newlines, wherever it is
//! cut and begun again; no piece is empty or longer than a message may be.

/// What a batch may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one message; longer lines are split.
    pub message: usize,
    pub events: usize,
    /// Bytes of all messages, each with [`OVERHEAD`].
    pub bytes: usize,
}

/// What PutLogEvents counts for an event beside its message.
pub const OVERHEAD: usize = 26;

impl Default for Limits {
    fn default() -> Self {
        Self { message: (256 << 10) - OVERHEAD, events: 10_000, bytes: 1 << 20 }
    }
}

/// The first messages of some bytes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cut {
    pub messages: Vec<String>,
    /// The bytes they were made of, newlines and empty lines included.
    pub length: usize,
}

/// Takes as many whole lines as a batch may hold; the last line needs no newline where `ended`.
pub fn cut(bytes: &[u8], ended: bool, limits: &Limits) -> Cut {
    let mut cut = Cut::default();
    let mut size = 0;
    while let Some((piece, length)) = next_piece(&bytes[cut.length..], ended, limits.message) {
        if !piece.is_empty() {
            let message = String::from_utf8_lossy(piece);
            size += message.len() + OVERHEAD;
            let full = cut.messages.len() >= limits.events || size > limits.bytes;
            if full && !cut.messages.is_empty() {
                break;
            }
            cut.messages.push(message.into_owned());
        }
        cut.length += length;
    }
    cut
}

/// A line or a piece of one that is too long, and the bytes it takes with its newline.
fn next_piece(bytes: &[u8], ended: bool, longest: usize) -> Option<(&[u8], usize)> {
    let window = &bytes[..bytes.len().min(longest + 1)];
    let line = match window.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], end + 1),
        None if bytes.len() > longest => {
            let end = character_start(bytes, longest);
            (&bytes[..end], end)
        }
        None if ended && !bytes.is_empty() => (bytes, bytes.len()),
        None => return None,
    };
    Some(shortened(line, longest))
}

/// Each byte that is not UTF-8 becomes three: such lines must be shorter to fit.
fn shortened((line, length): (&[u8], usize), longest: usize) -> (&[u8], usize) {
    let most = (longest / 3).max(1);
    if line.len() <= most || std::str::from_utf8(line).is_ok() {
        return (line, length);
    }
    let end = character_start(line, most);
    (&line[..end], end)
}

/// The last position up to `at` at which no UTF-8 character is cut in two; `at` where there is none near.
fn character_start(bytes: &[u8], at: usize) -> usize {
    let cuts = |at: &usize| bytes.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
    (at.saturating_sub(3).max(1)..=at).rev().find(cuts).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: Limits = Limits { message: 9, events: 3, bytes: 100 };

    fn check(bytes: &[u8], ended: bool, messages: &[&str], length: usize) {
        let wanted = Cut { messages: messages.iter().map(|m| (*m).to_owned()).collect(), length };
        assert_eq!(cut(bytes, ended, &SMALL), wanted);
    }

    #[test]
    fn lines() {
        check(b"", true, &[], 0);
        check(b"a\nbc\n", false, &["a", "bc"], 5);
        check(b"a\nbc", false, &["a"], 2);
        check(b"a\nbc", true, &["a", "bc"], 4);
        check(b"\n\na\n\n", false, &["a"], 5);
        check(b"1\n2\n3\n4\n", false, &["1", "2", "3"], 6);
        check(b"123456789\n", false, &["123456789"], 10);
        check(b"123456789abc\n", false, &["123456789", "abc"], 13);
        check("12345678é\n".as_bytes(), false, &["12345678", "é"], 11);
        check(b"a\xffb\n", false, &["a\u{fffd}b"], 4);
        check(b"\xff\xff\xff\xff\n", false, &["\u{fffd}\u{fffd}\u{fffd}", "\u{fffd}"], 5);
    }

    proptest! {
        #[test]
        fn pieces_are_the_output_without_newlines(text in "[a-cé☃\n]{0,80}", stops in proptest::collection::vec(0usize..20, 0..20)) {
            let bytes = text.as_bytes();
            let mut got = String::new();
            let (mut at, mut stops) = (0, stops.into_iter());
            // The file grows by `stop` bytes between reads, then is read to its end.
            let mut seen = 0;
            loop {
                let ended = seen == bytes.len();
                let cut = cut(&bytes[at..seen], ended, &SMALL);
                prop_assert!(cut.messages.len() <= SMALL.events);
                for message in &cut.messages {
                    prop_assert!(!message.is_empty() && message.len() <= SMALL.message);
                    got.push_str(message);
                }
                at += cut.length;
                if ended && cut.length == 0 {
                    break;
                }
                seen = stops.next().map_or(bytes.len(), |stop| bytes.len().min(seen + stop));
            }
            prop_assert_eq!(at, bytes.len());
            prop_assert_eq!(got, text.replace('\n', ""));
        }

        #[test]
        fn any_bytes_fit(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut at = 0;
            while at < bytes.len() {
                let cut = cut(&bytes[at..], true, &SMALL);
                prop_assert!(cut.length > 0);
                prop_assert!(cut.messages.iter().all(|message| message.len() <= SMALL.message));
                at += cut.length;
            }
        }
    }
}
