//! Reads the kernel's type information (`/sys/kernel/btf/vmlinux`) for the few names that the LSM programs need. A library
//! would keep all of it in memory, which is ten times what it takes in the file.

use std::{fs, io, ops::Range};

use super::LsmHook;

const MAGIC: u16 = 0xeb9f;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FUNC: u32 = 12;
/// The kinds that only wrap another type: typedef, volatile, const, restrict, type tag.
const WRAPPERS: [u32; 5] = [8, 9, 10, 11, 18];

/// The kernel's type information, and where in it each type begins.
pub(super) struct TypeInfo {
    bytes: Vec<u8>,
    strings: Range<usize>,
    /// Type `id` begins at `types[id - 1]`.
    types: Vec<u32>,
}

/// One type.
#[derive(Clone, Copy)]
struct Type {
    at: usize,
    name: u32,
    info: u32,
    size_or_type: u32,
}

impl Type {
    const fn kind(self) -> u32 {
        self.info >> 24 & 0x1f
    }

    const fn count(self) -> usize {
        (self.info & 0xffff) as usize
    }
}

impl TypeInfo {
    /// Reads that of the running kernel.
    ///
    /// # Errors
    /// If there is none, or it is of a kind that is not known.
    pub(super) fn read() -> io::Result<Self> {
        Self::parse(fs::read("/sys/kernel/btf/vmlinux")?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unknown form"))
    }

    fn parse(bytes: Vec<u8>) -> Option<Self> {
        let word = |at: usize| u32_at(&bytes, at).and_then(|word| usize::try_from(word).ok());
        if bytes.get(..2)? != MAGIC.to_ne_bytes() {
            return None;
        }
        let start = word(4)?;
        let (first, end) = (start + word(8)?, start + word(8)? + word(12)?);
        let strings = start + word(16)?..start + word(16)? + word(20)?;
        bytes.get(strings.clone())?;
        let mut info = Self { bytes, strings, types: Vec::with_capacity((end - first) / 24) };
        let mut at = first;
        while at < end {
            info.types.push(u32::try_from(at).ok()?);
            at += 12 + info.at(at)?.tail()?;
        }
        Some(info)
    }

    fn at(&self, at: usize) -> Option<Type> {
        let word = |index: usize| u32_at(&self.bytes, at + 4 * index);
        Some(Type { at, name: word(0)?, info: word(1)?, size_or_type: word(2)? })
    }

    fn get(&self, id: u32) -> Option<Type> {
        let at = *self.types.get(usize::try_from(id).ok()?.checked_sub(1)?)?;
        self.at(usize::try_from(at).ok()?)
    }

    fn is_named(&self, name: u32, wanted: &str) -> bool {
        let from = self.strings.start + name as usize;
        let found = self.bytes.get(from..from + wanted.len() + 1);
        found.and_then(|found| found.strip_suffix(b"\0")) == Some(wanted.as_bytes())
    }

    fn of_kind(&self, kind: u32) -> impl Iterator<Item = (u32, Type)> {
        let types = (1_u32..).zip(&self.types);
        types
            .filter_map(|(id, at)| Some((id, self.at(usize::try_from(*at).ok()?)?)))
            .filter(move |(_, found)| found.kind() == kind)
    }

    /// Ids of the functions that programs are attached to, by hook; 0 for a hook that this kernel has not.
    pub(super) fn hooks(&self) -> [u32; LsmHook::ALL.len()] {
        let mut ids = [0; LsmHook::ALL.len()];
        for (id, function) in self.of_kind(FUNC) {
            // All begin alike, which spares most the comparison with each.
            let from = self.strings.start + function.name as usize;
            if !self.bytes.get(from..).is_some_and(|name| name.starts_with(b"bpf_lsm_")) {
                continue;
            }
            let name = function.name + 8;
            if let Some(index) = LsmHook::ALL.iter().position(|hook| self.is_named(name, hook.name())) {
                ids[index] = id;
            }
        }
        ids
    }

    /// Offset in bytes of a field, given as in `sock.__sk_common.skc_family`.
    ///
    /// # Errors
    /// The path, if the kernel has no such field.
    pub(super) fn offset(&self, path: &'static str) -> Result<u32, &'static str> {
        let mut parts = path.split('.');
        let name = parts.next().unwrap_or_default();
        let fields: Vec<&str> = parts.collect();
        let mut named = self.of_kind(STRUCT).filter(|(_, found)| self.is_named(found.name, name));
        let bits = named.find_map(|(_, found)| self.walk(found, &fields)).ok_or(path)?;
        Ok(bits / 8)
    }

    /// Offset in bits of a field of a field of a structure.
    fn walk(&self, found: Type, fields: &[&str]) -> Option<u32> {
        let Some((first, rest)) = fields.split_first() else { return Some(0) };
        let (bits, id) = self.member(found, first, 4)?;
        let inner = if rest.is_empty() { 0 } else { self.walk(self.resolved(id)?, rest)? };
        Some(bits + inner)
    }

    /// Offset in bits and type of a member, looked for in unnamed structures and unions too.
    fn member(&self, found: Type, name: &str, depth: u32) -> Option<(u32, u32)> {
        if !matches!(found.kind(), STRUCT | UNION) {
            return None;
        }
        let packed = found.info >> 31 == 1;
        (0..found.count()).find_map(|index| {
            let at = found.at + 12 + 12 * index;
            let word = |index: usize| u32_at(&self.bytes, at + 4 * index);
            let (label, id, offset) = (word(0)?, word(1)?, word(2)?);
            let bits = if packed { offset & 0x00ff_ffff } else { offset };
            if self.is_named(label, name) {
                return Some((bits, id));
            }
            let unnamed = self.is_named(label, "") && depth > 0;
            let (inner, id) = unnamed.then(|| self.member(self.resolved(id)?, name, depth - 1))??;
            Some((bits + inner, id))
        })
    }

    /// The structure behind typedefs and qualifiers.
    fn resolved(&self, mut id: u32) -> Option<Type> {
        for _ in 0..8 {
            let found = self.get(id)?;
            if !WRAPPERS.contains(&found.kind()) {
                return Some(found);
            }
            id = found.size_or_type;
        }
        None
    }
}

impl Type {
    /// Bytes that follow its head; `None` for a kind from after this was written, whose length nobody knows.
    fn tail(self) -> Option<usize> {
        Some(match self.kind() {
            // Integers, variables, declaration tags.
            1 | 14 | 17 => 4,
            // Arrays.
            3 => 12,
            // Structures, unions, data sections, 64-bit enumerations.
            STRUCT | UNION | 15 | 19 => 12 * self.count(),
            // Enumerations, prototypes.
            6 | 13 => 8 * self.count(),
            // Pointers, forward declarations, typedefs, qualifiers, functions, floats, type tags.
            2 | 7..=FUNC | 16 | 18 => 0,
            _ => return None,
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the kernel that runs the tests. Seen to fail without the unnamed members.
    #[test]
    fn the_running_kernels_fields_are_found() {
        let info = TypeInfo::read().expect("a kernel with type information");
        assert!(info.hooks().iter().all(|id| *id != 0), "{:?}", info.hooks());
        assert_eq!(info.offset("sock.__sk_common.skc_family"), Ok(16));
        assert_eq!(info.offset("sockaddr_un.sun_path"), Ok(2));
        // In a union without a name.
        assert_eq!(info.offset("sk_buff.dev"), Ok(16));
        assert_eq!(info.offset("sock.no_such_field"), Err("sock.no_such_field"));
        assert_eq!(info.offset("no_such_struct.field"), Err("no_such_struct.field"));
    }

    #[test]
    fn nonsense_is_no_type_information() {
        for bytes in [vec![], vec![0; 24], [&MAGIC.to_ne_bytes()[..], &[0xff; 40]].concat()] {
            assert!(TypeInfo::parse(bytes).is_none());
        }
    }
}
