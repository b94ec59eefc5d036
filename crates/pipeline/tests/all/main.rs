//! The crate from outside, as a binary uses it.
#![cfg(test)]

mod config_errors;
mod config_expand;
mod config_merge;
mod config_print;
mod extensions;
mod flow;
mod otlp_answers;
mod otlp_queue;
mod otlp_receiver;
mod otlp_refusals;
mod otlp_transport;
mod processors;
mod storage;
mod support;
mod tls;
mod wire;
