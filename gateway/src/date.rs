//! The `Date` header, written once a second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use reactor::clock::Nanos;

/// `Sun, 06 Nov 1994 08:49:37 GMT`
pub(crate) type DateText = [u8; 29];

const WEEKDAYS: &[u8; 21] = b"ThuFriSatSunMonTueWed"; // the epoch was a Thursday
const MONTHS: &[u8; 36] = b"MarAprMayJunJulAugSepOctNovDecJanFeb"; // years begin in March below

/// The text of the current second. The wall clock is read when the monotonic one says that a
/// second has passed, so a step of the wall clock shows within a second.
pub(crate) struct Date {
    text: DateText,
    valid_until: Option<Nanos>,
}

impl Date {
    pub(crate) fn new() -> Date {
        Date { text: [b' '; 29], valid_until: None }
    }

    pub(crate) fn text(&mut self, now: Nanos) -> &DateText {
        if self.valid_until.is_none_or(|until| now >= until) {
            let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.text = format(wall.as_secs());
            let into_second = Duration::from_nanos(u64::from(wall.subsec_nanos()));
            self.valid_until = Some(now + (Duration::from_secs(1) - into_second));
        }
        &self.text
    }
}

fn format(unix_seconds: u64) -> DateText {
    let (days, second_of_day) = (unix_seconds / 86_400, unix_seconds % 86_400);
    let (year, month, day) = civil(days);

    let mut text = *b"Thu, 00 Jan 0000 00:00:00 GMT";
    text[0..3].copy_from_slice(name(WEEKDAYS, days % 7));
    two_digits(&mut text[5..7], day);
    text[8..11].copy_from_slice(name(MONTHS, (month + 9) % 12));
    two_digits(&mut text[12..14], year / 100 % 100);
    two_digits(&mut text[14..16], year % 100);
    two_digits(&mut text[17..19], second_of_day / 3_600);
    two_digits(&mut text[20..22], second_of_day / 60 % 60);
    two_digits(&mut text[23..25], second_of_day % 60);
    text
}

/// Year, month from 1 and day from 1 of a count of days since the epoch, after Howard Hinnant's
/// `civil_from_days`.
pub(crate) fn civil(days: u64) -> (u64, u64, u64) {
    // Days since 0000-03-01; eras of 400 years have 146,097 days.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153; // 0 is March
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year_of_era + u64::from(month >= 10);
    (year, (month + 2) % 12 + 1, day)
}

#[expect(clippy::cast_possible_truncation, reason = "index < 12")]
fn name(names: &[u8], index: u64) -> &[u8] {
    let at = index as usize * 3;
    &names[at..at + 3]
}

fn two_digits(text: &mut [u8], number: u64) {
    text[0] = b'0' + (number / 10 % 10) as u8;
    text[1] = b'0' + (number % 10) as u8;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (1_709_251_199, "Thu, 29 Feb 2024 23:59:59 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(std::str::from_utf8(&format(seconds)).unwrap(), text);
        }
    }
}
