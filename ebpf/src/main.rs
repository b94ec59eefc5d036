//! What runs in the kernel: hooks on system calls, TCP states and processes.
//!
//! Knows no protocol and decides nothing: it finds the socket behind a call,
//! where in the stream the message lies, and ships its head to user space.
#![no_std]
#![no_main]

mod emit;
mod filter;
mod goroutine;
mod iov;
mod maps;
mod programs;
mod sock;
mod task;

#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 4] = *b"GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
