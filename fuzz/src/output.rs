//! A line that a function prints, and what the runtime in its container marks. A mark is found where one
//! was written, whatever the text tries; what a terminal shows has nothing that it obeys.

use engine::logs::Escaped;
use ipc::mark::{find_mark, write_marked};

use crate::input::Input;

/// Takes the bytes for a line, then for an id and the text that is marked with it.
pub fn run(data: &[u8]) {
    if let Some(mark) = find_mark(data) {
        let id = mark.request_id.as_bytes();
        assert!(is_id(id), "{id:?}");
        let line = [mark.before, b"\x1enightcore ", id, b"\x1f", mark.text].concat();
        assert_eq!(line, data);
        assert!(find_mark(mark.before).is_none(), "not the first mark");
    }
    let shown = Escaped(&String::from_utf8_lossy(data)).to_string();
    assert!(!shown.chars().any(|char| char.is_control() && char != '\t'), "{shown:?}");

    let mut input = Input::new(data);
    let size = usize::from(input.u8()) % 80;
    let (id, text) = (input.bytes(size), input.rest());
    let mut out = Vec::new();
    write_marked(id, text, &mut out);
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let written = out.strip_suffix(b"\n").expect("the last line ends");
    let lines = written.split(|byte| *byte == b'\n');
    let texts = text.split(|byte| *byte == b'\n');
    assert_eq!(lines.clone().count(), texts.clone().count());
    for (line, text) in lines.zip(texts) {
        let escaped: Vec<u8> =
            text.split(|byte| *byte == 0x1e).collect::<Vec<_>>().join(&b"\\x1e"[..]);
        match find_mark(line) {
            Some(mark) => {
                assert_eq!((mark.before, mark.request_id.as_bytes()), (&[][..], id));
                assert_eq!(mark.text, escaped);
            }
            None => {
                assert!(!is_id(id), "a mark is lost");
                assert_eq!(line, escaped);
            }
        }
    }
}

fn is_id(bytes: &[u8]) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:-".contains(byte);
    (1..=64).contains(&bytes.len()) && bytes.iter().all(allowed)
}
