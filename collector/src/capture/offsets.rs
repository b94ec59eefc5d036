//! What the kernel side must know of this kernel and this processor.

use super::btf::{Btf, BtfError};
use ebpf_common::{COMPAT_CALL, Call, Extent, FUTEX_CALL, Offsets, POLL_CALL, SYSCALL_TABLE};

/// Resolves every offset from the running kernel's BTF.
pub fn resolve(btf: &Btf) -> Result<Offsets, BtfError> {
    let sock = |field: &str| btf.offset("sock", field);
    let common = |field: &str| btf.offset("sock_common", field);
    let tcp = |field: &str| btf.offset("tcp_sock", field);
    with_extents(Offsets {
        task_files: btf.offset("task_struct", "files")?,
        task_pid: btf.offset("task_struct", "pid")?,
        task_tgid: btf.offset("task_struct", "tgid")?,
        files_fdt: btf.offset("files_struct", "fdt")?,
        fdtable_fd: btf.offset("fdtable", "fd")?,
        fdtable_max_fds: btf.offset("fdtable", "max_fds")?,
        file_inode: btf.offset("file", "f_inode")?,
        file_private_data: btf.offset("file", "private_data")?,
        inode_mode: btf.offset("inode", "i_mode")?,
        inode_ino: btf.offset("inode", "i_ino")?,
        socket_sk: btf.offset("socket", "sk")?,
        socket_file: btf.offset("socket", "file")?,
        sock_family: common("skc_family")?,
        sock_state: common("skc_state")?,
        sock_daddr: common("skc_daddr")?,
        sock_rcv_saddr: common("skc_rcv_saddr")?,
        sock_dport: common("skc_dport")?,
        sock_flags: common("skc_flags")?,
        sock_v6_daddr: common("skc_v6_daddr")?,
        sock_v6_rcv_saddr: common("skc_v6_rcv_saddr")?,
        sock_net: common("skc_net")?,
        sock_protocol: sock("sk_protocol")?,
        sock_type: sock("sk_type")?,
        sock_socket: sock("sk_socket")?,
        inet_sport: btf.offset("inet_sock", "inet_sport")?,
        net_inum: btf.offset("net", "ns.inum")?,
        tcp_snd_una: tcp("snd_una")?,
        tcp_snd_nxt: tcp("snd_nxt")?,
        tcp_write_seq: tcp("write_seq")?,
        tcp_bytes_acked: tcp("bytes_acked")?,
        tcp_bytes_sent: tcp("bytes_sent")?,
        tcp_bytes_retrans: tcp("bytes_retrans")?,
        tcp_rcv_nxt: tcp("rcv_nxt")?,
        tcp_copied_seq: tcp("copied_seq")?,
        tcp_bytes_received: tcp("bytes_received")?,
        unix_peer: btf.offset("unix_sock", "peer")?,
        ..registers(btf)?
    })
}

/// Adds the parts that are copied in one go, or says which is too large for this collector.
fn with_extents(mut offsets: Offsets) -> Result<Offsets, BtfError> {
    let o = &mut offsets;
    o.regs = Extent::of(&o.regs_args);
    o.sock_common = Extent::of(&[
        o.sock_family,
        o.sock_state,
        o.sock_daddr,
        o.sock_rcv_saddr,
        o.sock_dport,
        o.sock_flags,
        o.sock_v6_daddr,
        o.sock_v6_rcv_saddr,
        o.sock_net,
    ]);
    o.tcp = Extent::of(&[
        o.tcp_snd_una,
        o.tcp_write_seq,
        o.tcp_bytes_acked,
        o.tcp_rcv_nxt,
        o.tcp_copied_seq,
        o.tcp_bytes_received,
    ]);
    let parts = [
        ("pt_regs", o.regs, Extent::MAX_REGS),
        ("sock_common", o.sock_common, Extent::MAX_SOCK_COMMON),
        ("tcp_sock", o.tcp, Extent::MAX_TCP),
    ];
    for (name, part, room) in parts {
        if part.bytes as usize > room {
            return Err(BtfError::TooFarApart(name, part.bytes));
        }
    }
    Ok(offsets)
}

#[cfg(target_arch = "x86_64")]
fn registers(btf: &Btf) -> Result<Offsets, BtfError> {
    let regs = |field: &str| btf.offset("pt_regs", field);
    Ok(Offsets {
        regs_number: regs("orig_ax")?,
        regs_args: [
            regs("di")?,
            regs("si")?,
            regs("dx")?,
            regs("r10")?,
            regs("r8")?,
            regs("r9")?,
        ],
        regs_goroutine: regs("r14")?,
        task_status: btf.offset("task_struct", "thread_info.status")?,
        ..Offsets::default()
    })
}

#[cfg(target_arch = "aarch64")]
fn registers(btf: &Btf) -> Result<Offsets, BtfError> {
    let x0 = btf.offset("pt_regs", "regs")?;
    Ok(Offsets {
        regs_number: btf.offset("pt_regs", "syscallno")?,
        // x0 holds the result at exit; its first value is kept beside it.
        regs_args: [
            btf.offset("pt_regs", "orig_x0")?,
            x0 + 8,
            x0 + 16,
            x0 + 24,
            x0 + 32,
            x0 + 40,
        ],
        regs_goroutine: x0 + 28 * 8,
        ..Offsets::default()
    })
}

/// Which [`Call`] each system call number is, 0 for those that are not watched.
pub fn syscall_table() -> [u8; SYSCALL_TABLE] {
    let mut table = [0; SYSCALL_TABLE];
    let calls = numbers().map(|(number, call)| (number, call as u8));
    let polls = POLLS.map(|number| (number, POLL_CALL));
    let waits = [(libc::SYS_futex, FUTEX_CALL)].into_iter().chain(polls);
    for (number, call) in calls.into_iter().chain(waits) {
        if let Some(entry) = usize::try_from(number)
            .ok()
            .and_then(|index| table.get_mut(index))
        {
            *entry = call;
        }
    }
    for number in COMPAT_NUMBERS {
        if let Some(entry) = table.get_mut(number) {
            *entry |= COMPAT_CALL;
        }
    }
    table
}

/// The calls that wait for descriptors.
#[cfg(target_arch = "x86_64")]
const POLLS: [libc::c_long; 7] = [
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_select,
    libc::SYS_pselect6,
];
#[cfg(not(target_arch = "x86_64"))]
const POLLS: [libc::c_long; 4] = [
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
];

/// Numbers of the i386 table (`arch/x86/entry/syscalls/syscall_32.tbl`): read, write,
/// socketcall, readv, writev, sendfile, sendfile64, splice, recvmmsg, sendmmsg, sendto,
/// sendmsg, recvfrom, recvmsg, `recvmmsg_time64`.
#[cfg(target_arch = "x86_64")]
const COMPAT_NUMBERS: [usize; 15] = [
    3, 4, 102, 145, 146, 187, 239, 313, 337, 345, 369, 370, 371, 372, 417,
];
/// 32-bit programs are not told apart on this processor.
#[cfg(not(target_arch = "x86_64"))]
const COMPAT_NUMBERS: [usize; 0] = [];

fn numbers() -> [(libc::c_long, Call); 15] {
    [
        (libc::SYS_read, Call::Read),
        (libc::SYS_readv, Call::Readv),
        (libc::SYS_recvfrom, Call::Recvfrom),
        (libc::SYS_recvmsg, Call::Recvmsg),
        (libc::SYS_recvmmsg, Call::Recvmmsg),
        (libc::SYS_write, Call::Write),
        (libc::SYS_writev, Call::Writev),
        (libc::SYS_sendto, Call::Sendto),
        (libc::SYS_sendmsg, Call::Sendmsg),
        (libc::SYS_sendmmsg, Call::Sendmmsg),
        (libc::SYS_sendfile, Call::Sendfile),
        (libc::SYS_splice, Call::Splice),
        (libc::SYS_connect, Call::Connect),
        (libc::SYS_accept, Call::Accept),
        (libc::SYS_accept4, Call::Accept4),
    ]
}
