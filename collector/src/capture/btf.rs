//! Field offsets from the kernel's type information.
//!
//! Reads just what is asked for from the BTF format (kernel documentation,
//! `bpf/btf.rst`): there is no maintained crate under a permissive licence that
//! gives member offsets; aya keeps its reader private.

use std::collections::HashMap;

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;
/// Structs inside structs inside structs; the kernel's deepest is below this.
const MAX_NESTING: usize = 8;

/// Why type information could not be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    /// Not BTF, or of the other byte order.
    #[error("not BTF of this machine's byte order")]
    BadMagic,
    /// A section or a type ends before it should.
    #[error("BTF is cut short")]
    CutShort,
    /// A struct or a field is not there.
    #[error("the kernel's BTF has no {0}")]
    Missing(String),
    /// The programs have no room for the part of a struct that they copy.
    #[error(
        "the fields of {0} lie {1} bytes apart in this kernel, which is more than the BPF programs copy; please report it"
    )]
    TooFarApart(&'static str, u32),
}

/// Kernel structs and the offsets of their fields.
#[derive(Debug)]
pub struct Btf {
    members: HashMap<u32, Vec<Member>>,
    by_name: HashMap<String, u32>,
}

#[derive(Debug, Clone)]
struct Member {
    name: String,
    type_id: u32,
    offset_bits: u32,
}

impl Btf {
    /// Parses `/sys/kernel/btf/vmlinux`, keeping only structs and unions.
    pub fn parse(data: &[u8]) -> Result<Self, BtfError> {
        let header = Words(data);
        if u16::from_le_bytes(header.bytes(0)?) != MAGIC {
            return Err(BtfError::BadMagic);
        }
        let header_len = header.word(4)?;
        let section = |offset_at: usize| -> Result<&[u8], BtfError> {
            let start = header_len
                .checked_add(header.word(offset_at)?)
                .ok_or(BtfError::CutShort)?;
            let end = start
                .checked_add(header.word(offset_at + 4)?)
                .ok_or(BtfError::CutShort)?;
            data.get(start as usize..end as usize)
                .ok_or(BtfError::CutShort)
        };
        Self::parse_types(&Words(section(8)?), section(16)?)
    }

    fn parse_types(types: &Words<'_>, strings: &[u8]) -> Result<Self, BtfError> {
        let mut btf = Self {
            members: HashMap::new(),
            by_name: HashMap::new(),
        };
        let (mut at, mut id) = (0, 1);
        while at < types.0.len() {
            let (name, info) = (types.word(at)?, types.word(at + 4)?);
            let (kind, count) = ((info >> 24) & 0x1f, (info & 0xffff) as usize);
            at += 12;
            if kind == KIND_STRUCT || kind == KIND_UNION {
                let bitfields = info >> 31 == 1;
                let members = (0..count)
                    .map(|index| member(types, strings, at + index * 12, bitfields))
                    .collect::<Result<_, _>>()?;
                btf.members.insert(id, members);
                let name = string_at(strings, name)?;
                if !name.is_empty() {
                    btf.by_name.entry(name).or_insert(id);
                }
            }
            at += trailer_len(kind, count);
            id += 1;
        }
        Ok(btf)
    }

    /// Offset in bytes of `field` in `struct_name`, also inside unnamed members.
    /// `field` may be a path such as `ns.inum`.
    pub fn offset(&self, struct_name: &str, field: &str) -> Result<u32, BtfError> {
        let missing = || BtfError::Missing(format!("{struct_name}.{field}"));
        let mut type_id = *self.by_name.get(struct_name).ok_or_else(missing)?;
        let mut bits = 0;
        for name in field.split('.') {
            let (offset, next) = self.find(type_id, name, MAX_NESTING).ok_or_else(missing)?;
            bits += offset;
            type_id = next;
        }
        Ok(bits / 8)
    }

    fn find(&self, type_id: u32, name: &str, nesting: usize) -> Option<(u32, u32)> {
        let members = self.members.get(&type_id)?;
        if let Some(member) = members.iter().find(|member| member.name == name) {
            return Some((member.offset_bits, member.type_id));
        }
        let deeper = nesting.checked_sub(1)?;
        members
            .iter()
            .filter(|member| member.name.is_empty())
            .find_map(|member| {
                let (offset, next) = self.find(member.type_id, name, deeper)?;
                Some((member.offset_bits + offset, next))
            })
    }
}

fn member(
    types: &Words<'_>,
    strings: &[u8],
    at: usize,
    bitfields: bool,
) -> Result<Member, BtfError> {
    let offset = types.word(at + 8)?;
    Ok(Member {
        name: string_at(strings, types.word(at)?)?,
        type_id: types.word(at + 4)?,
        offset_bits: if bitfields {
            offset & 0x00ff_ffff
        } else {
            offset
        },
    })
}

/// Bytes behind the 12 that every type has.
fn trailer_len(kind: u32, count: usize) -> usize {
    match kind {
        KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
        KIND_ARRAY => 12,
        KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => count * 12,
        KIND_ENUM | KIND_FUNC_PROTO => count * 8,
        _ => 0,
    }
}

fn string_at(strings: &[u8], offset: u32) -> Result<String, BtfError> {
    let rest = strings.get(offset as usize..).ok_or(BtfError::CutShort)?;
    let end = memchr::memchr(0, rest).ok_or(BtfError::CutShort)?;
    Ok(String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned())
}

/// Little-endian reads that check the length.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], BtfError> {
        let slice = self.0.get(at..at + N).ok_or(BtfError::CutShort)?;
        slice.try_into().map_err(|_| BtfError::CutShort)
    }

    fn word(&self, at: usize) -> Result<u32, BtfError> {
        self.bytes(at).map(u32::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_refused_and_never_panics() {
        assert_eq!(Btf::parse(&[]).err(), Some(BtfError::CutShort));
        assert_eq!(Btf::parse(&[0; 64]).err(), Some(BtfError::BadMagic));
        let mut cut = vec![0x9f, 0xeb, 1, 0, 24, 0, 0, 0];
        cut.extend([0xff; 40]);
        assert_eq!(Btf::parse(&cut).err(), Some(BtfError::CutShort));
    }

    #[test]
    fn fields_of_unnamed_members_and_paths_are_found() {
        let Ok(data) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            eprintln!("skipped: this kernel has no /sys/kernel/btf/vmlinux");
            return;
        };
        let btf = Btf::parse(&data).expect("the running kernel's BTF parses");
        assert_eq!(btf.offset("sock_common", "skc_daddr"), Ok(0));
        assert_eq!(btf.offset("sock_common", "skc_rcv_saddr"), Ok(4));
        assert!(btf.offset("net", "ns.inum").expect("net.ns.inum") > 0);
        let missing = btf.offset("sock_common", "no_such_field");
        assert_eq!(
            missing,
            Err(BtfError::Missing("sock_common.no_such_field".into()))
        );
    }
}
