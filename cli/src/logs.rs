//! `nightcore logs`: what functions printed, from the engine that runs them.

use std::io::{self, Write};

use engine::logs::Escaped;

use crate::admin::{AdminError, LogLine, Place, Request};

/// Options of `nightcore logs`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Name of the function; all of them where none is given
    pub function: Option<String>,
    /// Show lines as they come, until Ctrl-C or the engine's end
    #[arg(short, long)]
    pub follow: bool,
    /// Show this many of the last lines, instead of all that are kept
    #[arg(short = 'n', long, value_name = "LINES")]
    pub lines: Option<usize>,
    /// Print an object of JSON for each line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    /// Which engine.
    pub place: Place,
}

/// Asks the engine and writes the lines to `out`.
///
/// # Errors
/// When the engine is not there or knows no such function, or `out` fails.
pub fn run(options: &Options, out: &mut impl Write) -> Result<(), AdminError> {
    let request = Request::Logs {
        function: options.function.clone(),
        lines: options.lines,
        follow: options.follow,
    };
    let mut answers = options.place.ask(&request)?;
    while let Some(line) = answers.read::<LogLine>()? {
        let written = if options.json { write_json(&line, out) } else { write_text(&line, out) };
        written.and_then(|()| out.flush()).map_err(AdminError::Output)?;
    }
    Ok(())
}

fn write_json(line: &LogLine, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", serde_json::to_string(line)?)
}

/// Time, function with version and container, stream, request, text.
fn write_text(line: &LogLine, out: &mut impl Write) -> io::Result<()> {
    let LogLine { time, function, version, generation, stream, .. } = line;
    write!(out, "{time} {function}/{version}.{generation} {stream} ")?;
    if let Some(id) = &line.request_id {
        write!(out, "[{}] ", Escaped(id))?;
    }
    write!(out, "{}", Escaped(&line.text))?;
    if line.cut > 0 {
        write!(out, " [{} bytes cut]", line.cut)?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &LogLine) -> String {
        let mut out = Vec::new();
        write_text(line, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_shows_what_is_known_of_it_and_drives_no_terminal() {
        let mut line = LogLine {
            time: "2026-11-27T19:12:26.123456Z".to_owned(),
            function: "echo".to_owned(),
            version: 2,
            generation: 3,
            stream: "stderr".to_owned(),
            request_id: None,
            text: "red \x1b[31m\r\u{9b}2J\\xff".to_owned(),
            cut: 0,
        };
        let start = "2026-11-27T19:12:26.123456Z echo/2.3 stderr ";
        let text = "red \\x1b[31m\\x0d\\x9b2J\\xff";
        assert_eq!(shown(&line), format!("{start}{text}\n"));
        line.request_id = Some("6f1c".to_owned());
        line.cut = 70;
        assert_eq!(shown(&line), format!("{start}[6f1c] {text} [70 bytes cut]\n"));
    }
}
