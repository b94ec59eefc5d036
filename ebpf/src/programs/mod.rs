//! One file per hook family.

mod floor;
mod messages;
mod processes;
mod sys_exit;
mod tcp_state;
mod waking;
