//! The function is in `hello.c`; `build.rs` compiles it to `libhello.so` beside the other functions.
