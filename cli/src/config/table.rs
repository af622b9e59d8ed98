//! TOML values that know where they stand, so that each refusal names file, line and key.
//!
//! The file is walked by hand rather than derived: a derived reader knows the position of a wrong
//! value but not its key, and its messages speak of Rust types.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigError, Place, Problem};
use super::units;

/// Longest value repeated in a message, in characters.
const QUOTED_MAX: usize = 60;

/// The file: its name as given and its text.
pub(super) struct Source<'a> {
    file: &'a Path,
    text: &'a str,
}

/// One table whose keys are all known ones.
pub(super) struct Table<'a> {
    source: &'a Source<'a>,
    path: String,
    at: usize,
    entries: &'a DeTable<'a>,
}

/// One value with its place: the byte where it begins, of which the line is found when it is asked
/// for. To count lines for every value would take as long as the file is long, squared.
pub(super) struct Value<'a> {
    source: &'a Source<'a>,
    path: String,
    at: usize,
    value: &'a DeValue<'a>,
}

impl<'a> Source<'a> {
    pub(super) fn new(file: &'a Path, text: &'a str) -> Source<'a> {
        Source { file, text }
    }

    pub(super) fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        ConfigError::Syntax {
            file: self.file.display().to_string(),
            line: self.line(error.span().map_or(0, |span| span.start)),
            message: error.message().replace('\n', ", "),
        }
    }

    /// Line of the byte at `at`, counted from 1.
    fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().iter().take(at);
        before.filter(|byte| **byte == b'\n').count() + 1
    }

    fn place(&self, at: usize, key: &str) -> Place {
        let file = self.file.display().to_string();
        Place::Line { file, line: self.line(at), key: key.to_owned() }
    }

    fn refused(&self, at: usize, key: &str, problem: Problem) -> ConfigError {
        ConfigError::Refused { place: self.place(at, key), problem }
    }
}

impl<'a> Table<'a> {
    /// Refuses the first key of the file that is not among `known`.
    pub(super) fn open(
        source: &'a Source<'a>,
        path: &str,
        entries: &'a DeTable<'a>,
        at: usize,
        known: &'static [&'static str],
    ) -> Result<Table<'a>, ConfigError> {
        let unknown = entries.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        match unknown.min_by_key(|key| key.span().start) {
            Some(key) => Err(source.refused(
                key.span().start,
                &dotted(path, key.get_ref()),
                Problem::UnknownKey { known },
            )),
            None => Ok(Table { source, path: path.to_owned(), at, entries }),
        }
    }

    pub(super) fn line(&self) -> usize {
        self.source.line(self.at)
    }

    pub(super) fn get(&self, key: &str) -> Option<Value<'a>> {
        let value = self.entries.get(key)?;
        Some(Value::new(self.source, dotted(&self.path, key), value))
    }

    pub(super) fn require(
        &self,
        key: &str,
        expected: &'static str,
    ) -> Result<Value<'a>, ConfigError> {
        self.get(key).ok_or_else(|| {
            self.source.refused(self.at, &dotted(&self.path, key), Problem::Missing { expected })
        })
    }

    /// Sets `field` to what `read` makes of the key's value, and leaves it when there is none.
    pub(super) fn read<T>(
        &self,
        key: &str,
        field: &mut T,
        read: impl FnOnce(&Value<'a>) -> Result<T, ConfigError>,
    ) -> Result<(), ConfigError> {
        if let Some(value) = self.get(key) {
            *field = read(&value)?;
        }
        Ok(())
    }
}

impl<'a> Value<'a> {
    fn new(source: &'a Source<'a>, path: String, value: &'a Spanned<DeValue<'a>>) -> Value<'a> {
        Value { source, path, at: value.span().start, value: value.get_ref() }
    }

    pub(super) fn place(&self) -> Place {
        self.source.place(self.at, &self.path)
    }

    pub(super) fn refused(&self, problem: Problem) -> ConfigError {
        self.source.refused(self.at, &self.path, problem)
    }

    pub(super) fn unexpected(&self, expected: impl Display) -> ConfigError {
        let got = match self.value {
            DeValue::String(text) => quoted(text),
            DeValue::Integer(integer) => integer.to_string(),
            DeValue::Float(float) => float.to_string(),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Datetime(datetime) => datetime.to_string(),
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        };
        self.refused(Problem::Unexpected { expected: expected.to_string(), got })
    }

    pub(super) fn table(&self, known: &'static [&'static str]) -> Result<Table<'a>, ConfigError> {
        let entries = self
            .value
            .as_table()
            .ok_or_else(|| self.unexpected(format_args!("a table [{}]", self.path)))?;
        Table::open(self.source, &self.path, entries, self.at, known)
    }

    /// The elements of an array of at most `count_max`.
    pub(super) fn tables(&self, count_max: usize) -> Result<Vec<Value<'a>>, ConfigError> {
        let array = self
            .value
            .as_array()
            .ok_or_else(|| self.unexpected(format_args!("tables [[{}]]", self.path)))?;
        if array.len() > count_max {
            let expected = format!("at most {count_max} tables [[{}]]", self.path);
            let got = array.len().to_string();
            return Err(self.refused(Problem::Unexpected { expected, got }));
        }
        let element = |value| Value::new(self.source, self.path.clone(), value);
        Ok(array.iter().map(element).collect())
    }

    /// The elements of an array.
    pub(super) fn elements(&self, expected: &str) -> Result<Vec<Value<'a>>, ConfigError> {
        let array = self.value.as_array().ok_or_else(|| self.unexpected(expected))?;
        let element = |value| Value::new(self.source, self.path.clone(), value);
        Ok(array.iter().map(element).collect())
    }

    /// The entries of a table whose keys are free.
    pub(super) fn entries(&self, expected: &str) -> Result<Vec<(&'a str, Value<'a>)>, ConfigError> {
        let entries = self.value.as_table().ok_or_else(|| self.unexpected(expected))?;
        let entry = |(key, value): (&'a Spanned<_>, &'a Spanned<_>)| {
            let key: &'a str = Spanned::<toml::de::DeString<'a>>::get_ref(key).as_ref();
            (key, Value::new(self.source, dotted(&self.path, key), value))
        };
        Ok(entries.iter().map(entry).collect())
    }

    pub(super) fn text(&self, expected: &str) -> Result<&'a str, ConfigError> {
        self.value.as_str().ok_or_else(|| self.unexpected(expected))
    }

    pub(super) fn parsed<T: FromStr>(&self, expected: &str) -> Result<T, ConfigError> {
        self.text(expected)?.parse().map_err(|_| self.unexpected(expected))
    }

    pub(super) fn flag(&self) -> Result<bool, ConfigError> {
        self.value.as_bool().ok_or_else(|| self.unexpected("true or false"))
    }

    pub(super) fn absolute_path(&self) -> Result<PathBuf, ConfigError> {
        const EXPECTED: &str = "an absolute path";
        let path = Path::new(self.text(EXPECTED)?);
        if path.is_absolute() { Ok(path.to_owned()) } else { Err(self.unexpected(EXPECTED)) }
    }

    /// Absolute paths that exist.
    pub(super) fn absolute_paths(&self) -> Result<Vec<PathBuf>, ConfigError> {
        const EXPECTED: &str = "an array of absolute paths that exist";
        let path = |value: Value<'a>| {
            let path = PathBuf::from(value.text(EXPECTED)?);
            let fits = path.is_absolute() && path.exists();
            if fits { Ok(path) } else { Err(value.unexpected(EXPECTED)) }
        };
        self.elements(EXPECTED)?.into_iter().map(path).collect()
    }

    /// The texts of an array, each with its place.
    pub(super) fn texts(&self, expected: &str) -> Result<Vec<(Value<'a>, &'a str)>, ConfigError> {
        let array = self.value.as_array().ok_or_else(|| self.unexpected(expected))?;
        let text = |value| {
            let value = Value::new(self.source, self.path.clone(), value);
            let text = value.text(expected)?;
            Ok((value, text))
        };
        array.iter().map(text).collect()
    }

    /// A number of cores, such as 0.5 or 2, in thousandths of one.
    pub(super) fn cores(&self, max: f64) -> Result<u32, ConfigError> {
        const LEAST: f64 = 0.01;
        let number = match self.value {
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            _ => self.whole().and_then(|whole| u32::try_from(whole).ok()).map(f64::from),
        };
        let number = number.filter(|cores| (LEAST..=max).contains(cores));
        let cores = number.ok_or_else(|| {
            self.unexpected(format_args!("a number of cores from {LEAST} to {max}"))
        })?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range")]
        let thousandths = (cores * 1000.0).round() as u32;
        Ok(thousandths)
    }

    pub(super) fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        let chosen = self.value.as_str().and_then(|text| {
            choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice)
        });
        chosen.ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
            self.unexpected(names.join(" or "))
        })
    }

    pub(super) fn integer<T>(&self, range: RangeInclusive<T>) -> Result<T, ConfigError>
    where
        T: Copy + PartialOrd + Display + TryFrom<i64>,
    {
        self.whole()
            .and_then(|value| T::try_from(value).ok())
            .filter(|v| range.contains(v))
            .ok_or_else(|| {
                self.unexpected(format_args!(
                    "an integer from {} to {}",
                    range.start(),
                    range.end()
                ))
            })
    }

    /// A duration with its unit, such as `"500ms"`.
    pub(super) fn duration(
        &self,
        range: RangeInclusive<Duration>,
    ) -> Result<Duration, ConfigError> {
        let duration = self
            .value
            .as_str()
            .and_then(units::parse_duration)
            .ok_or_else(|| self.unexpected("a duration such as \"500ms\" or \"30s\""))?;
        if range.contains(&duration) {
            return Ok(duration);
        }
        let (from, to) = (units::Time(*range.start()), units::Time(*range.end()));
        Err(self.unexpected(format_args!("a duration from {from} to {to}")))
    }

    /// A number of bytes, or a string with a unit such as `"64KiB"`.
    pub(super) fn size(&self, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
        let size = match self.value.as_str() {
            Some(text) => units::parse_size(text),
            None => self.whole().and_then(|bytes| u64::try_from(bytes).ok()),
        };
        let size =
            size.ok_or_else(|| self.unexpected("a size such as \"64KiB\", \"16MiB\" or 65536"))?;
        if range.contains(&size) {
            return Ok(size);
        }
        let (from, to) = (units::Size(*range.start()), units::Size(*range.end()));
        Err(self.unexpected(format_args!("a size from {from} to {to}")))
    }

    fn whole(&self) -> Option<i64> {
        let integer = self.value.as_integer()?;
        i64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }
}

fn dotted(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The text in quotes, on one line, of bounded length.
fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED_MAX) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}
