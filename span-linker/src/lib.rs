//! The linking engine: finds parents and joins spans into traces.
