//! What the application and the client are told of a level, in the dialects of the billing domain.

use crate::domain::level::Level;

/// A header's name and value.
pub type Header = (&'static str, &'static str);

/// Headers that the request carries on to the application.
pub const fn request_headers(level: Level) -> &'static [Header] {
    match level {
        Level::None => &[],
        Level::Alert => &[
            ("x-margin-guard-warning", "margin-low"),
            ("x-margin-guard-level", "L1"),
            ("x-aforo-margin-level", "L1_ALERT"),
        ],
        Level::Throttle => &[
            ("x-aforo-throttle", "true"),
            ("x-margin-guard-warning", "margin-low"),
            ("x-margin-guard-level", "L2"),
            ("x-aforo-margin-level", "L2_THROTTLE"),
        ],
        // Where level 3 only alerts.
        Level::Block => &[
            ("x-aforo-throttle", "true"),
            ("x-margin-guard-warning", "margin-low"),
            ("x-margin-guard-level", "L3"),
            ("x-aforo-margin-level", "L3_BLOCK"),
        ],
    }
}

/// Headers that the response carries back to the client.
pub const fn response_headers(level: Level) -> &'static [Header] {
    match level {
        Level::None | Level::Alert => &[],
        Level::Throttle => &[
            ("x-aforo-throttle", "true"),
            ("x-margin-guard-level", "L2"),
            ("x-aforo-margin-level", "L2_THROTTLE"),
        ],
        Level::Block => &[
            ("x-aforo-throttle", "true"),
            ("x-margin-guard-level", "L3"),
            ("x-aforo-margin-level", "L3_BLOCK"),
        ],
    }
}
