//! The sinks: one file for each format. To add one, write its file, and a line in `../config.rs`.

pub(crate) mod aforo;
pub(crate) mod amberflo;
pub(crate) mod clickhouse;
pub(crate) mod json_lines;
pub(crate) mod lago;
pub(crate) mod metronome;
pub(crate) mod openmeter;
pub(crate) mod orb;
pub(crate) mod otlp_logs;
pub(crate) mod otlp_metrics;
pub(crate) mod stripe;
pub(crate) mod stripe_stream;
