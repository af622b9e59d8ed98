//! `nightcore invoke`: calls one function over HTTP.
