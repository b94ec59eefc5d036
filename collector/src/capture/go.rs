//! Where Go's runtime keeps what the kernel side looks at.

use ebpf_common::GoLayout;

/// The layout of Go 1.`minor`, as its DWARF (`runtime.g`, `runtime.m`, `runtime.p`) has it on 64-bit
/// machines; all 0 where that is not known. Newer ones are taken for like the newest: what the kernel
/// side finds there must fit together, or it tells nothing.
pub fn layout(minor: u16) -> GoLayout {
    let (m_curg, m_p, g_goid, g_parent, p_runqhead) = match minor {
        0..21 => (0, 0, 0, 0, 0),
        21..23 => (192, 208, 152, 272, 400),
        23..25 => (192, 208, 160, 280, 392),
        25 => (184, 200, 152, 272, 392),
        26.. => (184, 208, 152, 280, 400),
    };
    GoLayout {
        m_curg,
        m_p,
        g_goid,
        g_parent,
        p_runqhead,
    }
}
