//! The libraries beside a function's that it names as needed: the only files of that directory which
//! its container sees.
//!
//! Reads the dynamic section of 64-bit little-endian ELF files. What cannot be read needs nothing; the
//! dynamic linker will say so better.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Libraries of one function at most, and entries of a table at most: more is no library.
const LIBRARIES_MAX: usize = 256;
const ENTRIES_MAX: usize = 4096;
/// Bytes of a library's name at most.
const NAME_SIZE_MAX: usize = 256;

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;

/// Those that lie in the directory of `library`, directly needed or not, without itself.
pub(super) fn needed_beside(library: &Path) -> Vec<PathBuf> {
    let Some(directory) = library.parent() else { return Vec::new() };
    let mut found = BTreeSet::new();
    let mut unread = vec![library.to_owned()];
    while let Some(path) = unread.pop() {
        for name in needed(&path).unwrap_or_default() {
            let path = directory.join(name);
            let is_beside = path.parent() == Some(directory) && path != library;
            if is_beside
                && found.len() < LIBRARIES_MAX
                && path.is_file()
                && found.insert(path.clone())
            {
                unread.push(path);
            }
        }
    }
    found.into_iter().collect()
}

/// A part of a file and where it is in memory.
struct Segment {
    offset: u64,
    address: u64,
    size: u64,
}

/// The names that a library says it needs; `None` if it is not understood.
fn needed(library: &Path) -> Option<Vec<OsString>> {
    let file = File::open(library).ok()?;
    let (loaded, dynamic) = segments(&file)?;
    let (mut names, mut table) = (Vec::new(), None);
    let count = usize::try_from(dynamic.size / 16).ok()?.min(ENTRIES_MAX);
    for index in 0..count as u64 {
        let entry: [u8; 16] = read(&file, dynamic.offset.checked_add(index * 16)?)?;
        match (u64_at(&entry, 0)?, u64_at(&entry, 8)?) {
            (DT_NULL, _) => break,
            (DT_NEEDED, offset) => names.push(offset),
            (DT_STRTAB, address) => table = Some(address),
            _ => {}
        }
    }
    let table = table?;
    let holds =
        |segment: &&Segment| segment.address <= table && table - segment.address < segment.size;
    let segment = loaded.iter().find(holds)?;
    let table = segment.offset.checked_add(table - segment.address)?;
    names.into_iter().map(|name| text(&file, table.checked_add(name)?)).collect()
}

fn segments(file: &File) -> Option<(Vec<Segment>, Segment)> {
    let head: [u8; 64] = read(file, 0)?;
    // 64 bits, little-endian.
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let headers = u64_at(&head, 32)?;
    let (size, count) = (u64::from(u16_at(&head, 54)?), u64::from(u16_at(&head, 56)?));
    let (mut loaded, mut dynamic) = (Vec::new(), None);
    for index in 0..count {
        let header: [u8; 56] = read(file, headers.checked_add(index * size)?)?;
        let segment = Segment {
            offset: u64_at(&header, 8)?,
            address: u64_at(&header, 16)?,
            size: u64_at(&header, 32)?,
        };
        match u32_at(&header, 0)? {
            PT_LOAD => loaded.push(segment),
            PT_DYNAMIC => dynamic = Some(segment),
            _ => {}
        }
    }
    Some((loaded, dynamic?))
}

fn text(file: &File, offset: u64) -> Option<OsString> {
    let mut bytes = [0; NAME_SIZE_MAX];
    let size = file.read_at(&mut bytes, offset).ok()?;
    let end = bytes[..size].iter().position(|byte| *byte == 0)?;
    Some(OsString::from_vec(bytes[..end].to_vec()))
}

fn read<const SIZE: usize>(file: &File, offset: u64) -> Option<[u8; SIZE]> {
    let mut bytes = [0; SIZE];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_needs_the_c_library_and_a_text_needs_nothing() {
        let program = std::env::current_exe().unwrap();
        let names = needed(&program).unwrap();
        assert!(names.iter().any(|name| name.to_string_lossy().starts_with("libc.")), "{names:?}");
        assert_eq!(needed_beside(&program), Vec::<PathBuf>::new());
        assert_eq!(needed(&Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")), None);
    }
}
