//! The function is in `hello_v2.c`; `build.rs` compiles it to `libhello_v2.so` beside the other functions.
