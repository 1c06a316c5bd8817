//! Dates in HTTP headers, in the form in which they must be sent (IMF-fixdate: RFC 9110, section
//! 5.6.7), such as `Sun, 06 Nov 1994 08:49:37 GMT`.

use crate::base::time::Timestamp;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Reads a date; `None` if it is none, or before 1970.
pub(crate) fn http_date(text: &str) -> Option<Timestamp> {
    let (_, rest) = text.split_once(", ")?;
    let mut words = rest.strip_suffix(" GMT")?.split(' ');
    let [day, month, year, time] = [words.next()?, words.next()?, words.next()?, words.next()?];
    let month = (1..).zip(MONTHS).find(|(_, name)| *name == month).map(|(month, _)| month)?;
    let mut parts = time.split(':').map(|part| part.parse().ok());
    let clock = [parts.next()??, parts.next()??, parts.next()??];
    Timestamp::of_utc([year.parse().ok()?, month, day.parse().ok()?], clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_is_read_in_the_form_in_which_it_must_be_sent() {
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777_000)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Wed, 31 Dec 1969 23:59:59 GMT", None),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun Nov  6 08:49:37 1994", None),
            ("Sun, 31 Feb 2026 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
            ("soon", None),
            ("", None),
        ] {
            assert_eq!(http_date(text), expected.map(Timestamp), "{text}");
        }
    }
}
