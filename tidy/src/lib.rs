//! What the sources of the workspace hold to, as tests: see `tests/tidy`.
