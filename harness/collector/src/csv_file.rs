//! CSV after RFC 4180, for programs that show tables: one header, lines that end with CR LF.

use std::io::Write;

use anyhow::Context;

/// Writes records to `out`.
pub(crate) fn writer<W: Write>(out: W) -> csv::Writer<W> {
    csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(out)
}

/// What was written.
///
/// # Errors
///
/// If it cannot be written to its end.
pub(crate) fn text(writer: csv::Writer<Vec<u8>>) -> anyhow::Result<String> {
    let written = writer.into_inner().map_err(|error| error.into_error())?;
    String::from_utf8(written).context("CSV")
}

/// A name from outside. Programs for tables run a cell that begins with one of `=+-@` as a formula,
/// whoever named it so, and clients name tools: such a name gets a quote before it.
pub(crate) fn name(name: &str) -> String {
    let is_formula = name.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    format!("{}{name}", if is_formula { "'" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_value_is_quoted() {
        let mut out = writer(Vec::new());
        out.write_record(["plain", "", "a,b", "say \"hi\"", "two\nlines"]).expect("written");
        let expected = "plain,,\"a,b\",\"say \"\"hi\"\"\",\"two\nlines\"\r\n";
        assert_eq!(text(out).expect("text"), expected);
    }

    #[test]
    fn a_name_runs_no_formula() {
        for (told, written) in
            [("=1+1", "'=1+1"), ("@x", "'@x"), ("-1", "'-1"), ("a=b", "a=b"), ("", "")]
        {
            assert_eq!(name(told), written);
        }
    }
}
