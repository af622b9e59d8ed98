//! Markdown in, HTML out. Its code blocks are highlighted by another function, `highlight`: each
//! call starts as soon as its block is parsed, all run in parallel, and they are waited for in the
//! order of the text.

use nightcore::{Call, CallError, Context, Response};
use pulldown_cmark::{CodeBlockKind, CowStr, Event, Options, Parser, Tag, TagEnd, html};

#[nightcore::function]
fn markdown(context: &Context, input: &str) -> Response {
    let pieces = parse(input, |block| block.highlight(context));
    let events = pieces.into_iter().flat_map(|piece| match piece {
        Piece::Event(event) => vec![event],
        Piece::Code(block, call) => block.into_events(call.and_then(Call::wait).ok().as_deref()),
    });
    let mut page = String::with_capacity(input.len() * 2);
    html::push_html(&mut page, events);
    Response::html(page)
}

/// Part of a parsed text: a code block comes with whatever was started for it.
enum Piece<'a, T> {
    Event(Event<'a>),
    Code(CodeBlock<'a>, T),
}

struct CodeBlock<'a> {
    language: CowStr<'a>,
    code: String,
}

impl<'a> CodeBlock<'a> {
    fn highlight<'c>(&self, context: &'c Context) -> Result<Call<'c>, CallError> {
        context.start("highlight", format!("{}\n{}", self.language, self.code).as_bytes())
    }

    /// The block as highlighted or, if that failed, plain: a text without colours is better than
    /// no text.
    fn into_events(self, highlighted: Option<&[u8]>) -> Vec<Event<'a>> {
        let before = match &*self.language {
            "" => "<pre><code>".to_owned(),
            language => format!("<pre><code class=\"language-{language}\">"),
        };
        let inner = match highlighted {
            Some(html) => Event::Html(String::from_utf8_lossy(html).into_owned().into()),
            None => Event::Text(self.code.into()),
        };
        vec![Event::Html(before.into()), inner, Event::Html("</code></pre>\n".into())]
    }
}

/// Parses the text; `start` is called for each code block when its end is reached.
fn parse<'a, T>(input: &'a str, mut start: impl FnMut(&CodeBlock<'a>) -> T) -> Vec<Piece<'a, T>> {
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut pieces = Vec::new();
    let mut open: Option<CodeBlock<'a>> = None;
    for event in Parser::new_ext(input, options) {
        match (event, &mut open) {
            (Event::Start(Tag::CodeBlock(kind)), _) => {
                open = Some(CodeBlock { language: language(kind), code: String::new() });
            }
            (Event::End(TagEnd::CodeBlock), _) => {
                pieces.extend(open.take().map(|block| {
                    let started = start(&block);
                    Piece::Code(block, started)
                }));
            }
            (Event::Text(text), Some(block)) => block.code.push_str(&text),
            (event, _) => pieces.push(Piece::Event(event)),
        }
    }
    pieces
}

/// `rust` of `rust,no_run`; empty unless it is a plain word, so it needs no escaping.
fn language(kind: CodeBlockKind<'_>) -> CowStr<'_> {
    let CodeBlockKind::Fenced(info) = kind else { return "".into() };
    let word = info.split([',', ' ', '{']).next().unwrap_or_default();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "+-#_.".contains(c);
    if word.chars().all(is_plain) { word.to_owned().into() } else { "".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "# T\n\n```rust,no_run\nlet a = 1 < 2;\n```\n\n    indented\n\n```<b>\nx\n```\n";

    fn render(highlighted: Option<&[u8]>) -> String {
        let mut page = String::new();
        let events = parse(TEXT, |_| ()).into_iter().flat_map(|piece| match piece {
            Piece::Event(event) => vec![event],
            Piece::Code(block, ()) => block.into_events(highlighted),
        });
        html::push_html(&mut page, events);
        page
    }

    #[test]
    fn code_blocks_are_replaced_by_what_came_back() {
        let page = render(Some(b"<i>code</i>"));
        assert!(page.contains("<h1>T</h1>"));
        assert!(page.contains("<pre><code class=\"language-rust\"><i>code</i></code></pre>"));
        assert_eq!(page.matches("<pre><code><i>code</i></code></pre>").count(), 2);
    }

    #[test]
    fn without_highlighting_code_is_plain_and_escaped() {
        let page = render(None);
        assert!(
            page.contains("<pre><code class=\"language-rust\">let a = 1 &lt; 2;\n</code></pre>")
        );
        assert!(page.contains("<pre><code>indented\n</code></pre>"));
    }

    #[test]
    fn the_language_is_the_first_plain_word() {
        let mut languages = Vec::new();
        parse(TEXT, |block| languages.push(block.language.to_string()));
        assert_eq!(languages, ["rust", "", ""]);
    }
}
