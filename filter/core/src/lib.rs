//! Everything agent-meter decides.
