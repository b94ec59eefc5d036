//! Needs root: real kernel, real servers, real backends.
