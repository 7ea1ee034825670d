//! The two readings of an ELF file. Checks read its section headers; the loader reads its program headers, and no others. A library
//! for which they differ is refused: it would be checked as one and loaded as another.

use object::{
    Endianness, elf,
    read::elf::{Dyn as _, ElfFile, FileHeader, ProgramHeader as _, SectionHeader as _},
};

/// The smallest page of the machines that this host runs on: the loader maps whole pages.
const PAGE: u64 = 4096;

/// A part of the file that the loader maps.
struct Load {
    address: u64,
    offset: u64,
    size: u64,
    /// Its end in memory.
    end: u64,
}

/// Where the loader finds what lies at an address: its offset in the file.
fn offset_of(loads: &[Load], address: u64, size: u64) -> Option<u64> {
    let end = address.checked_add(size)?;
    let load = loads.iter().find(|load| load.address <= address && end <= load.address + load.size)?;
    Some(load.offset + (address - load.address))
}

/// Refuses a file whose sections aren't what the loader maps and reads.
pub(super) fn check<'data, Elf: FileHeader<Endian = Endianness>>(
    file: &ElfFile<'data, Elf>,
    library: &'data [u8],
) -> Result<(), String> {
    let differ = |what: &str| format!("its section headers and its program headers disagree about {what}");
    let broken = |_| "its headers are broken".to_owned();
    let header = file.elf_header();
    let endian = header.endian().map_err(broken)?;
    if header.e_phnum(endian) == elf::PN_XNUM {
        return Err("it has more program headers than a loader reads".to_owned());
    }
    let mut loads: Vec<Load> = Vec::new();
    let mut dynamic = None;
    for segment in file.elf_program_headers() {
        let (offset, size) = segment.file_range(endian);
        let (address, memory) = (segment.p_vaddr(endian).into(), segment.p_memsz(endian).into());
        let ends = offset.checked_add(size).zip(u64::checked_add(address, memory));
        let Some((end, end_in_memory)) = ends.filter(|(end, _)| *end <= library.len() as u64 && size <= memory) else {
            return Err(differ("how long the file is"));
        };
        let kind = segment.p_type(endian);
        if kind == elf::PT_LOAD {
            // Of two that lie on one page, the later one hides a part of the earlier one.
            let is_behind = loads.last().is_none_or(|last: &Load| last.end.div_ceil(PAGE) <= address / PAGE);
            if !is_behind || address % PAGE != offset % PAGE {
                return Err("parts of it are loaded over each other".to_owned());
            }
            loads.push(Load { address, offset, size: end - offset, end: end_in_memory });
        } else if kind == elf::PT_DYNAMIC && dynamic.replace((address, offset, size)).is_some() {
            return Err(differ("its dynamic table: there are two"));
        }
    }
    let sections = file.elf_section_table();
    let mut tables = [(elf::SHT_DYNAMIC, None), (elf::SHT_DYNSYM, None)];
    for section in sections.iter() {
        let kind = section.sh_type(endian);
        let is_loaded = section.sh_flags(endian).0 & elf::SHF_ALLOC.0 != 0;
        let (address, offset) = (section.sh_addr(endian).into(), section.sh_offset(endian).into());
        let size: u64 = section.sh_size(endian).into();
        if is_loaded && kind != elf::SHT_NOBITS && size > 0 && offset_of(&loads, address, size) != Some(offset) {
            let name = sections.section_name(endian, section).unwrap_or_default();
            return Err(differ(&format!("{:?}", String::from_utf8_lossy(name))));
        }
        if let Some((_, found)) = tables.iter_mut().find(|(table, _)| *table == kind)
            && (!is_loaded || found.replace((address, offset, size, section)).is_some())
        {
            return Err(differ("its dynamic table or its symbols: there are two"));
        }
    }
    let [(_, Some((address, offset, size, table))), (_, Some((symbols, _, _, symbol_table)))] = tables else {
        return Err("it has no dynamic table, or no symbols".to_owned());
    };
    if dynamic != Some((address, offset, size)) {
        return Err(differ("its dynamic table"));
    }
    let strings = sections.section(table.link(endian)).map_err(broken)?;
    if symbol_table.link(endian) != table.link(endian) || strings.sh_type(endian) != elf::SHT_STRTAB {
        return Err(differ("the names of its symbols"));
    }
    let entries = table.dynamic(endian, library).map_err(broken)?;
    let (entries, _) = entries.ok_or_else(|| differ("its dynamic table"))?;
    let mut entries = entries.iter().map(|entry| (entry.d_tag(endian), entry.d_val(endian).into()));
    let read: Vec<_> = entries.by_ref().take_while(|(tag, _)| *tag != elf::DT_NULL).collect();
    if read.len() as u64 * u64::from(header.is_type_64() as u8 + 1) * 8 >= size {
        return Err(differ("where its dynamic table ends"));
    }
    for (tag, expected) in [
        (elf::DT_STRTAB, strings.sh_addr(endian).into()),
        (elf::DT_STRSZ, strings.sh_size(endian).into()),
        (elf::DT_SYMTAB, symbols),
    ] {
        let told: Vec<u64> = read.iter().filter(|(told, _)| *told == tag).map(|(_, value)| *value).collect();
        if told != [expected] {
            return Err(differ("its symbols and their names"));
        }
    }
    let loads_others = [elf::DT_AUXILIARY, elf::DT_FILTER, elf::DT_AUDIT, elf::DT_DEPAUDIT];
    if read.iter().any(|(tag, _)| loads_others.contains(tag)) {
        return Err("it names other libraries to be loaded in its place or to watch it".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use object::elf::{FileHeader64, ProgramHeader64, SectionHeader64};
    use object::read::elf::ElfFile64;

    use super::*;

    fn checked(library: &[u8]) -> Result<(), String> {
        let file = ElfFile64::<Endianness>::parse(library).map_err(|error| error.to_string())?;
        check(&file, library)
    }

    /// This test itself is mapped as a library is.
    fn sound() -> Vec<u8> {
        std::fs::read(std::env::current_exe().expect("a test has a file")).expect("readable")
    }

    /// Where a section's header is in the file.
    fn header_of(library: &[u8], name: &str) -> usize {
        let file = ElfFile64::<Endianness>::parse(library).expect("sound");
        let sections = file.elf_section_table();
        let (index, _) = sections.section_by_name(Endianness::default(), name.as_bytes()).expect(name);
        let start = file.elf_header().e_shoff(Endianness::default()) as usize;
        start + index.0 * size_of::<SectionHeader64<Endianness>>()
    }

    /// Where the first program header of a kind is in the file.
    fn segment(library: &[u8], kind: elf::ProgramType) -> usize {
        let file = ElfFile64::<Endianness>::parse(library).expect("sound");
        let mut segments = file.elf_program_headers().iter();
        let index = segments.position(|segment| segment.p_type(Endianness::default()) == kind).expect("there");
        size_of::<FileHeader64<Endianness>>() + index * size_of::<ProgramHeader64<Endianness>>()
    }

    fn add(library: &mut [u8], at: usize, more: u64) {
        let field = &mut library[at..at + 8];
        let value = u64::from_ne_bytes((&*field).try_into().expect("eight bytes"));
        field.copy_from_slice(&value.wrapping_add(more).to_ne_bytes());
    }

    /// Fields of a section's header, and of a program header.
    const SECTION: [(&str, usize); 3] = [("address", 16), ("offset", 24), ("size", 32)];
    const SEGMENT: [(&str, usize); 3] = [("offset", 8), ("address", 16), ("size", 32)];

    #[test]
    fn what_both_read_the_same_is_taken() {
        assert_eq!(checked(&sound()), Ok(()));
    }

    #[test]
    fn a_section_elsewhere_than_where_the_loader_reads_is_refused() {
        let sound = sound();
        for name in [".dynamic", ".dynstr", ".dynsym", ".rodata", ".text"] {
            for (field, at) in SECTION {
                let mut library = sound.clone();
                let at = header_of(&library, name) + at;
                // A section that only shrinks within what is mapped says less, and nothing else.
                let more = if field == "size" { 1 << 40 } else { 16 };
                add(&mut library, at, more);
                assert!(checked(&library).is_err(), "{field} of {name}");
            }
        }
    }

    #[test]
    fn a_dynamic_table_or_a_mapping_that_only_the_loader_sees_is_refused() {
        let sound = sound();
        for (kind, what) in [(elf::PT_DYNAMIC, "the dynamic table"), (elf::PT_LOAD, "the first part")] {
            for (field, at) in SEGMENT {
                let mut library = sound.clone();
                let at = segment(&library, kind) + at;
                add(&mut library, at, 4096);
                assert!(checked(&library).is_err(), "{field} of {what}");
            }
        }
        // A second table, in place of a header that the loader doesn't need.
        let mut library = sound.clone();
        let (from, to) = (segment(&library, elf::PT_DYNAMIC), segment(&library, elf::PT_GNU_STACK));
        library.copy_within(from..from + size_of::<ProgramHeader64<Endianness>>(), to);
        assert!(checked(&library).is_err(), "two dynamic tables");
    }

    #[test]
    fn names_of_libraries_from_other_strings_and_libraries_in_its_place_are_refused() {
        let sound = sound();
        let file = ElfFile64::<Endianness>::parse(&*sound).expect("sound");
        let sections = file.elf_section_table();
        let (_, dynamic) = sections.section_by_name(Endianness::default(), b".dynamic").expect("there");
        let start = dynamic.sh_offset(Endianness::default()) as usize;
        let (entries, _) = dynamic.dynamic(Endianness::default(), &*sound).expect("sound").expect("a table");
        let entries: Vec<_> = entries.iter().map(|entry| entry.d_tag(Endianness::default())).collect();
        let at = |tag| start + 16 * entries.iter().position(|known| *known == tag).expect("there");
        for tag in [elf::DT_STRTAB, elf::DT_STRSZ, elf::DT_SYMTAB] {
            let mut library = sound.clone();
            add(&mut library, at(tag) + 8, 8);
            assert!(checked(&library).is_err(), "{tag:?}");
        }
        for tag in [elf::DT_AUXILIARY, elf::DT_FILTER, elf::DT_AUDIT, elf::DT_DEPAUDIT, elf::DT_STRTAB] {
            let mut library = sound.clone();
            let at = at(elf::DT_NEEDED);
            library[at..at + 8].copy_from_slice(&tag.0.to_ne_bytes());
            assert!(checked(&library).is_err(), "{tag:?}");
        }
    }
}
