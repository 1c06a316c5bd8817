//! Orders of an operator to pause calls, and to resume them, on a control listener; and the refusal of
//! calls that are paused.

use serde_json::{Value, json};

use crate::base::limits::IDENTITY_BYTES_MAX;
use crate::base::text::Duration;
use crate::base::time::Timestamp;
use crate::domain::session::SessionRef;
use crate::guard::refusal::Refusal;
use crate::host::Host;
use crate::meter::Meter;
use crate::meter::control_action::{ControlAction, answer, not_post};
use crate::shared_data::pauses::{NAMES, NotDone, Pause, change, read};
use crate::wire::target::percent_decoded;

impl Meter {
    /// The refusal of calls of this session, if an operator has paused them.
    pub(super) fn paused(&self, session: &SessionRef, now: Timestamp) -> Option<Refusal> {
        let holds = |pause: &&Pause| pause.is_present(now) && pause.is_for(session);
        self.pauses.iter().find(holds).map(|pause| Refusal::paused(pause.until, now))
    }
}

/// Carries out an order that came to the path for pauses, or to that for resuming.
pub(super) fn order(
    host: &mut impl Host,
    prefix: &str,
    (method, query, is_pause): (&[u8], &str, bool),
    now: Timestamp,
) -> ControlAction {
    if method == b"GET" && is_pause {
        return answer(200, &told(&read(host, prefix, now)));
    }
    if method != b"POST" {
        return not_post();
    }
    let pause = match read_order(query, is_pause, now) {
        Ok(pause) => pause,
        Err(error) => return answer(400, &json!({ "error": error })),
    };
    let (status, error) = match change(host, prefix, &pause, !is_pause, now) {
        Ok(pauses) => return answer(200, &told(&pauses)),
        Err(NotDone::NotPaused) => (404, "nothing is paused by exactly these names"),
        Err(NotDone::TooMany) => (429, "too many pauses: resume some, or pause a whole product"),
        Err(NotDone::Contended) => (503, "try again"),
    };
    answer(status, &json!({ "error": error }))
}

fn read_order(query: &str, is_pause: bool, now: Timestamp) -> Result<Pause, String> {
    let mut pause = Pause::default();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (kind, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = percent_decoded(value);
        let mut names = NAMES.iter().zip(&mut pause.names);
        if let Some((_, name)) = names.find(|(known, _)| **known == kind) {
            if value.is_empty() || value.len() > IDENTITY_BYTES_MAX || !name.is_empty() {
                return Err(format!(
                    "{kind}: expected one name of at most {IDENTITY_BYTES_MAX} bytes"
                ));
            }
            *name = value;
        } else if kind == "for" && is_pause {
            let duration = Duration::parse(&value).map(Duration::millis);
            let duration = duration.filter(|duration| duration.0 > 0);
            let expected = || format!("for: expected a duration such as 1h, found {value:?}");
            pause.until = Some(now.plus(duration.ok_or_else(expected)?));
        } else {
            let more = if is_pause { " or for" } else { "" };
            return Err(format!("{kind}: unknown, expected one of {}{more}", NAMES.join(", ")));
        }
    }
    if pause.is_empty() {
        return Err(format!("expected whose calls: one or more of {}", NAMES.join(", ")));
    }
    Ok(pause)
}

fn told(pauses: &[Pause]) -> Value {
    let one = |pause: &Pause| {
        let mut one = pause.to_json();
        one.insert("until".to_owned(), pause.until.map(Timestamp::to_rfc3339).into());
        Value::Object(one)
    };
    json!({ "paused": Value::Array(pauses.iter().map(one).collect()) })
}
