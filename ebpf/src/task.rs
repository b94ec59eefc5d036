//! Reads from kernel memory in general, and from task structs and saved registers.

use crate::maps::offsets;
use aya_ebpf::helpers::bpf_get_current_task;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use ebpf_common::{Counter, Extent};

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
    unsafe { aya_ebpf::helpers::bpf_probe_read_kernel(source) }.map_err(|_| Counter::KernelRead)
}

/// A copied part of a kernel struct. `BYTES` is the room for it; how much of it is copied, and
/// from where on, is an [`Extent`], which the verifier knows as a constant.
#[repr(C, align(8))]
pub struct Part<const BYTES: usize>([u8; BYTES]);

impl<const BYTES: usize> Part<BYTES> {
    /// Copies the part of the struct at this address.
    #[inline(always)]
    pub fn fill(&mut self, address: u64, extent: &Extent) -> Result<(), Counter> {
        let source = address + u64::from(extent.first);
        // SAFETY: the loader holds extents below `BYTES`, or the verifier refuses the program; the
        // helper checks the address and fails on a bad one.
        let failed = unsafe {
            bpf_probe_read_kernel(self.0.as_mut_ptr().cast(), extent.bytes, source as *const _)
        };
        if failed == 0 {
            Ok(())
        } else {
            Err(Counter::KernelRead)
        }
    }

    /// The field at this offset of the struct, which is aligned as its type wants.
    #[inline(always)]
    pub fn field<T: Copy>(&self, offset: u32, extent: &Extent) -> T {
        let at = self
            .0
            .as_ptr()
            .wrapping_add((offset - extent.first) as usize);
        // SAFETY: inside of the part, as above; any bytes are a value of the integers read so.
        unsafe { at.cast::<T>().read_volatile() }
    }
}

/// Arguments of a system call, copied from the saved registers.
pub type Arguments = Part<{ Extent::MAX_REGS }>;

impl Arguments {
    /// Argument 0 to 5.
    #[inline(always)]
    pub fn get(&self, index: usize) -> u64 {
        let o = offsets();
        self.field(o.regs_args[index], &o.regs)
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
