//! The mark of a line of a container's output that tells to which request it belongs.
//!
//! ```text
//! 1E "nightcore " request id 1F text
//! ```
//!
//! The runtime inside the container writes it, the engine takes it off. Whoever can write to the
//! container's output can write a mark, so it is the container's word and no more.

/// Begins a mark.
const BEGIN: &[u8] = b"\x1enightcore ";
/// Ends it.
const END: u8 = 0x1f;
/// Longest request id, in bytes.
const ID_SIZE_MAX: usize = 64;

/// A line in two: what another thread had written of its own line, and the marked rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marked<'a> {
    /// Before the mark; mostly empty.
    pub before: &'a [u8],
    /// The request's id: `[A-Za-z0-9._:-]{1,64}`.
    pub request_id: &'a str,
    /// Behind the mark.
    pub text: &'a [u8],
}

/// Appends each line of `text` with its mark and a newline. Without an id there is no mark. What
/// would begin a mark in the text is escaped.
pub fn write_marked(request_id: &[u8], text: &[u8], out: &mut Vec<u8>) {
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    for line in text.split(|byte| *byte == b'\n') {
        if is_id(request_id) {
            out.extend_from_slice(BEGIN);
            out.extend_from_slice(request_id);
            out.push(END);
        }
        for &byte in line {
            if byte == BEGIN[0] {
                out.extend_from_slice(b"\\x1e");
            } else {
                out.push(byte);
            }
        }
        out.push(b'\n');
    }
}

/// Finds the first mark of a line.
#[must_use]
pub fn find_mark(line: &[u8]) -> Option<Marked<'_>> {
    let mut from = 0;
    while let Some(at) = line[from..].iter().position(|byte| *byte == BEGIN[0]) {
        let (before, rest) = line.split_at(from + at);
        if let Some((request_id, text)) = read_mark(rest) {
            return Some(Marked { before, request_id, text });
        }
        from += at + 1;
    }
    None
}

fn read_mark(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(BEGIN)?;
    let end = rest.iter().take(ID_SIZE_MAX + 1).position(|byte| *byte == END)?;
    let (id, text) = rest.split_at(end);
    if !is_id(id) {
        return None;
    }
    Some((std::str::from_utf8(id).ok()?, &text[1..]))
}

fn is_id(bytes: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:-".contains(byte);
    (1..=ID_SIZE_MAX).contains(&bytes.len()) && bytes.iter().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(id: &str, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write_marked(id.as_bytes(), text, &mut out);
        out
    }

    #[test]
    fn what_is_written_is_found_line_by_line() {
        let out = marked("6f1c-a:b", b"one\n\nthree \xff\x1b[1m\n");
        let lines: Vec<_> = out.strip_suffix(b"\n").unwrap().split(|b| *b == b'\n').collect();
        let texts: [&[u8]; 3] = [b"one", b"", b"three \xff\x1b[1m"];
        assert_eq!(lines.len(), texts.len());
        for (line, text) in lines.iter().zip(texts) {
            let expected = Marked { before: b"", request_id: "6f1c-a:b", text };
            assert_eq!(find_mark(line), Some(expected));
        }
    }

    #[test]
    fn a_text_cannot_carry_a_mark_of_its_own() {
        let forged = marked("theirs", b"hello");
        let line = marked("mine", &[b"input: ", forged.trim_ascii_end()].concat());
        let found = find_mark(line.trim_ascii_end()).unwrap();
        assert_eq!(found.request_id, "mine");
        assert_eq!(found.text, b"input: \\x1enightcore theirs\x1fhello");
    }

    #[test]
    fn a_mark_ends_what_another_thread_had_begun() {
        let line = [b"half a \x1e line", marked("id", b"log").trim_ascii_end()].concat();
        let found = find_mark(&line).unwrap();
        assert_eq!((found.before, found.text), (&b"half a \x1e line"[..], &b"log"[..]));
    }

    #[test]
    fn what_is_no_mark_is_text() {
        let long = [BEGIN, &[b'x'; ID_SIZE_MAX + 1], &[END], b"text"].concat();
        for line in [
            &b""[..],
            b"\x1e",
            b"\x1enightcore",
            b"\x1enightcore id",
            b"\x1enightcore \x1ftext",
            b"\x1enightcore a b\x1ftext",
            &long,
        ] {
            assert_eq!(find_mark(line), None, "{line:?}");
        }
        assert_eq!(marked("not an id", b"text"), b"text\n");
        assert_eq!(marked("", b""), b"\n");
    }
}
