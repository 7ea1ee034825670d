//! Zips written byte by byte, so that each of their fields can lie.

/// One entry, stored without compression unless said otherwise.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) local_name: Option<Vec<u8>>,
    pub(crate) data: Vec<u8>,
    pub(crate) size: Option<u32>,
    pub(crate) local_size: Option<u32>,
    pub(crate) method: u16,
    pub(crate) flags: u16,
    pub(crate) attributes: u32,
    pub(crate) extra: Vec<u8>,
    /// Bytes behind the data that no header tells of.
    pub(crate) gap: Vec<u8>,
    /// The offset of the local header, in place of the real one.
    pub(crate) offset: Option<u32>,
    /// The checksum, in place of that of the data.
    pub(crate) crc: Option<u32>,
    /// The flags of the local header, in place of the central ones.
    pub(crate) local_flags: Option<u16>,
}

impl Entry {
    /// The checksum of the data.
    pub(crate) fn crc32(&self) -> u32 {
        crc32(&self.data)
    }

    pub(crate) fn new(name: impl Into<Vec<u8>>, data: impl Into<Vec<u8>>) -> Self {
        Entry {
            name: name.into(),
            local_name: None,
            data: data.into(),
            size: None,
            local_size: None,
            method: 0,
            flags: 0x0800,
            attributes: 0o100_644 << 16,
            extra: Vec::new(),
            gap: Vec::new(),
            offset: None,
            crc: None,
            local_flags: None,
        }
    }
}

/// A zip of entries.
#[derive(Clone, Default)]
pub(crate) struct RawZip {
    pub(crate) entries: Vec<Entry>,
    pub(crate) before: Vec<u8>,
    pub(crate) comment: Vec<u8>,
    pub(crate) after: Vec<u8>,
    /// How many entries the end record tells of, in place of the real number.
    pub(crate) count: Option<u16>,
}

impl RawZip {
    pub(crate) fn new(entries: Vec<Entry>) -> Self {
        RawZip { entries, ..RawZip::default() }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut zip = self.before.clone();
        let mut directory = Vec::new();
        for entry in &self.entries {
            let offset = entry.offset.unwrap_or(zip.len() as u32);
            let (crc, stored) = (entry.crc.unwrap_or(entry.crc32()), entry.data.len() as u32);
            let size = entry.size.unwrap_or(stored);
            let local_name = entry.local_name.as_ref().unwrap_or(&entry.name);
            zip.extend(0x0403_4b50_u32.to_le_bytes());
            fields(&mut zip, &[20, entry.local_flags.unwrap_or(entry.flags), entry.method, 0, 0x21]);
            for field in [crc, stored, entry.local_size.unwrap_or(size)] {
                zip.extend(field.to_le_bytes());
            }
            fields(&mut zip, &[local_name.len() as u16, entry.extra.len() as u16]);
            zip.extend(local_name);
            zip.extend(&entry.extra);
            zip.extend(&entry.data);
            zip.extend(&entry.gap);

            directory.extend(0x0201_4b50_u32.to_le_bytes());
            fields(&mut directory, &[0x0314, 20, entry.flags, entry.method, 0, 0x21]);
            for field in [crc, stored, size] {
                directory.extend(field.to_le_bytes());
            }
            fields(&mut directory, &[entry.name.len() as u16, entry.extra.len() as u16, 0, 0, 0]);
            directory.extend(entry.attributes.to_le_bytes());
            directory.extend(offset.to_le_bytes());
            directory.extend(&entry.name);
            directory.extend(&entry.extra);
        }
        let start = zip.len() as u32;
        let count = self.count.unwrap_or(self.entries.len() as u16);
        zip.extend(&directory);
        zip.extend(0x0605_4b50_u32.to_le_bytes());
        fields(&mut zip, &[0, 0, count, count]);
        zip.extend((directory.len() as u32).to_le_bytes());
        zip.extend(start.to_le_bytes());
        fields(&mut zip, &[self.comment.len() as u16]);
        zip.extend(&self.comment);
        zip.extend(&self.after);
        zip
    }
}

fn fields(zip: &mut Vec<u8>, fields: &[u16]) {
    for field in fields {
        zip.extend(field.to_le_bytes());
    }
}

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}
