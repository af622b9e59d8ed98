//! One line of a function's output, as it is kept and shown.

use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::SystemTime;

use super::splitter::RawLine;

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its place among the lines of all functions, from 1.
    pub sequence: u64,
    /// When the engine read it.
    pub time: SystemTime,
    /// Whose it is.
    pub function: Arc<str>,
    /// Who wrote it, and where.
    pub origin: Origin,
    /// The request that it belongs to, as far as the container says.
    pub request_id: Option<String>,
    /// What it says. Bytes that are no UTF-8 stand as `\xff`; control characters stand as they are.
    pub text: String,
    /// Bytes that were cut off its end.
    pub cut: u64,
}

/// Who wrote a line, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Which deployment of the function.
    pub version: u32,
    /// Which of its containers.
    pub generation: u32,
    /// Where it was written.
    pub stream: Stream,
}

/// What a line comes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The engine, which tells what became of lines.
    Notice,
}

impl Stream {
    /// As it is shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Notice => "notice",
        }
    }
}

/// Shows text with its control characters escaped, but for the tab.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            if char.is_control() && char != '\t' {
                // All of them are below U+00A0.
                write!(f, "\\x{:02x}", u32::from(char))?;
            } else {
                f.write_char(char)?;
            }
        }
        Ok(())
    }
}

/// A raw line as text, and how many bytes it lacks.
pub(super) fn decode(line: RawLine<'_>) -> (String, u64) {
    let mut text = String::with_capacity(line.bytes.len());
    let mut left = line.bytes.len();
    for chunk in line.bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        let invalid = chunk.invalid();
        left -= chunk.valid().len() + invalid.len();
        if left == 0 && line.omitted > 0 {
            // It was cut in the middle of a character.
            return (text, line.omitted + invalid.len() as u64);
        }
        for byte in invalid {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    (text, line.omitted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8], omitted: u64) -> (String, u64) {
        decode(RawLine { bytes, omitted })
    }

    #[test]
    fn what_is_no_text_is_escaped_byte_by_byte() {
        assert_eq!(decoded("café".as_bytes(), 0), ("café".to_owned(), 0));
        assert_eq!(decoded(b"a\xff\xfeb\xc3", 0), ("a\\xff\\xfeb\\xc3".to_owned(), 0));
        assert_eq!(decoded(b"", 0), (String::new(), 0));
    }

    #[test]
    fn a_line_is_cut_between_characters() {
        assert_eq!(decoded(b"caf\xc3", 10), ("caf".to_owned(), 11));
        assert_eq!(decoded(b"\xffcaf", 10), ("\\xffcaf".to_owned(), 10));
    }

    #[test]
    fn no_control_character_reaches_a_terminal() {
        let text: String = (0..0x120).filter_map(char::from_u32).collect();
        let shown = Escaped(&text).to_string();
        assert!(shown.chars().all(|char| char == '\t' || !char.is_control()), "{shown:?}");
        assert_eq!(Escaped("\x1b[2J\rcafé\u{9b}\t.").to_string(), "\\x1b[2J\\x0dcafé\\x9b\t.");
    }
}
