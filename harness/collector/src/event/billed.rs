//! Reads the data of `invoice`: that a period of a customer is closed, and what was billed for it.
//! Only the ledger itself writes such events; see the room `books`.

use crate::event::members::Members;

/// An invoice that is closed. Its document is in the event's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Billed {
    /// Unique in the ledger, such as `INV-000001`.
    pub number: String,
    /// Who pays.
    pub customer: String,
    /// When the period begins, in milliseconds since 1970, UTC.
    pub from_ms: i64,
    /// When it ends; what happened then is not in.
    pub to_ms: i64,
}

/// Reads one closed invoice; an error begins with the path of the member.
pub(crate) fn billed(data: &Members<'_>) -> Result<Billed, String> {
    let ((_, from_ms), (_, to_ms)) = (data.time("period_from")?, data.time("period_to")?);
    if to_ms <= from_ms {
        return Err(data.wrong("period_to", "later than period_from"));
    }
    data.members("document")?;
    Ok(Billed { number: data.name("number")?, customer: data.text("customer_id")?, from_ms, to_ms })
}
