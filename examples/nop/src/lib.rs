//! Answers nothing.
