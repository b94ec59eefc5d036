//! What must not bring the collector down: bad configurations, hosts that allow nothing, backends
//! that take nothing, records that are lost, programs that die. Runs the real binary.
#![cfg(test)]

mod backends;
mod configurations;
mod host;
mod losses;
mod run;
