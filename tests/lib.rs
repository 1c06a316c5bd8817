//! The tests are in `e2e/`, `peers/` and `tidy/`.
