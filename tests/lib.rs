//! The tests live in `e2e/` and `tidy/`.
