//! Headers that report a level to the application and the client, in the billing domain's dialects.

use crate::domain::level::Level;

/// A header's name and value.
pub type Header = (&'static str, &'static str);

/// Headers on the request, for the application.
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
        // Requests pass at level 3 only where the guard does not block.
        Level::Block => &[
            ("x-aforo-throttle", "true"),
            ("x-margin-guard-warning", "margin-low"),
            ("x-margin-guard-level", "L3"),
            ("x-aforo-margin-level", "L3_BLOCK"),
        ],
    }
}

/// Headers on the response, for the client.
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
