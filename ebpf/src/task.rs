//! Reads from kernel memory in general, and from task structs and saved registers.

use crate::maps::offsets;
use aya_ebpf::helpers::{bpf_get_current_task, bpf_probe_read_kernel};
use ebpf_common::Counter;

const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
/// x86-64: the system call under way came through the 32-bit entries, which 64-bit
/// programs can use too (`int 0x80`).
const TS_COMPAT: u32 = 0x2;

/// Reads a kernel value at an address and an offset.
#[inline(always)]
pub fn read<T>(address: u64, offset: u32) -> Result<T, Counter> {
    let source = (address + u64::from(offset)) as *const T;
    // SAFETY: the helper checks the address and fails on a bad one.
    unsafe { bpf_probe_read_kernel(source) }.map_err(|_| Counter::KernelRead)
}

/// The registers that a system call was entered with.
#[derive(Clone, Copy)]
pub struct Registers(pub u64);

impl Registers {
    /// The system call's number.
    #[inline(always)]
    pub fn number(self) -> Result<u64, Counter> {
        read(self.0, offsets().regs_number)
    }

    /// Argument 0 to 5.
    #[inline(always)]
    pub fn arg(self, index: usize) -> Result<u64, Counter> {
        read(self.0, offsets().regs_args[index])
    }
}

/// Whether the system call's number is one of the 32-bit table.
#[inline(always)]
pub fn is_compat() -> Result<bool, Counter> {
    let status = offsets().task_status;
    if status == 0 {
        return Ok(false);
    }
    // SAFETY: always callable in a tracing program.
    let task = unsafe { bpf_get_current_task() };
    Ok(read::<u32>(task, status)? & TS_COMPAT != 0)
}

/// Address of the `struct sock` behind a descriptor of the current task.
#[inline(always)]
pub fn sock_of_fd(fd: i32) -> Result<u64, Counter> {
    if fd < 0 {
        return Err(Counter::NotASocket);
    }
    let o = offsets();
    // SAFETY: always callable in a tracing program.
    let task = unsafe { bpf_get_current_task() };
    let files: u64 = read(task, o.task_files)?;
    let table: u64 = read(files, o.files_fdt)?;
    let size: u32 = read(table, o.fdtable_max_fds)?;
    if fd as u32 >= size {
        return Err(Counter::NotASocket);
    }
    let array: u64 = read(table, o.fdtable_fd)?;
    let file: u64 = read(array + (fd as u64) * 8, 0)?;
    if file == 0 {
        return Err(Counter::NotASocket);
    }
    let inode: u64 = read(file, o.file_inode)?;
    let mode: u16 = read(inode, o.inode_mode)?;
    if mode & S_IFMT != S_IFSOCK {
        return Err(Counter::NotASocket);
    }
    let socket: u64 = read(file, o.file_private_data)?;
    match read(socket, o.socket_sk)? {
        0 => Err(Counter::NotConnected),
        sock => Ok(sock),
    }
}
