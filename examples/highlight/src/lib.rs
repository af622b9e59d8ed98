//! Source code in, HTML out: the first line of the input names the language, the rest is the code.
//! The answer is text with `<span class="...">` around tokens, to be put inside `<pre><code>`. Code
//! in an unknown language comes back escaped and otherwise as it was.

use std::sync::OnceLock;

use nightcore::{Error, Response};
use syntect::html::{ClassStyle, ClassedHTMLGenerator};
use syntect::parsing::SyntaxSet;
use syntect::util::LinesWithEndings;

/// Large and slow to load, so only once somebody asks; all workers of the container share it.
static SYNTAXES: OnceLock<SyntaxSet> = OnceLock::new();

#[nightcore::function]
fn highlight(input: &str) -> Result<Response, Error> {
    let (language, code) = input.split_once('\n').unwrap_or((input, ""));
    Ok(Response::html(to_html(language.trim(), code)?))
}

fn to_html(language: &str, code: &str) -> Result<String, syntect::Error> {
    let syntaxes = SYNTAXES.get_or_init(SyntaxSet::load_defaults_newlines);
    let Some(syntax) = syntaxes.find_syntax_by_token(language) else {
        return Ok(escape(code));
    };
    let style = ClassStyle::SpacedPrefixed { prefix: "hl-" };
    let mut html = ClassedHTMLGenerator::new_with_class_style(syntax, syntaxes, style);
    for line in LinesWithEndings::from(code) {
        html.parse_html_for_line_which_includes_newline(line)?;
    }
    Ok(html.finalize())
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + text.len() / 8);
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_language_gets_classes_and_nothing_stays_unescaped() {
        let html = to_html("rust", "fn main() { a < b; }\n").unwrap();
        assert!(html.contains("<span class=\"hl-"), "{html}");
        assert!(html.contains("&lt;"), "{html}");
    }

    #[test]
    fn an_unknown_language_is_escaped_text() {
        assert_eq!(to_html("klingon", "<b>&\"x\"").unwrap(), "&lt;b&gt;&amp;&quot;x&quot;");
        assert_eq!(to_html("", "").unwrap(), "");
    }
}
