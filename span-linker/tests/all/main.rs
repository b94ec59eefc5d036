//! The linker from outside, in one program: its parts share a scene.

mod accuracy;
mod between_processes;
mod bounds;
mod hand_offs;
mod inside_a_process;
mod over_otlp;
mod payload;
mod queue_order;
mod scene;
