//! Writes CSV after RFC 4180: values with a comma, a quote or a line break are quoted.

use std::io::{self, Write};

/// Writes one line.
pub(super) fn line<'a>(
    out: &mut impl Write,
    values: impl IntoIterator<Item = &'a str>,
) -> io::Result<()> {
    for (index, value) in values.into_iter().enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        if value.contains([',', '"', '\n', '\r']) {
            write!(out, "\"{}\"", value.replace('"', "\"\""))?;
        } else {
            out.write_all(value.as_bytes())?;
        }
    }
    out.write_all(b"\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_value_is_quoted() {
        let mut out = Vec::new();
        line(&mut out, ["plain", "", "a,b", "say \"hi\"", "two\nlines"]).expect("written");
        let expected = "plain,,\"a,b\",\"say \"\"hi\"\"\",\"two\nlines\"\r\n";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }
}
