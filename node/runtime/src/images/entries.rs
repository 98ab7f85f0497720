//! Reads the entries of a tar archive as they come, with a bound on everything that is kept. Does I/O (reads).
//!
//! Formats: ustar, POSIX pax, and GNU's long names, long links and sparse files. What Go's `archive/tar` takes and
//! refuses is the measure, because that is what images are made and unpacked with elsewhere. Called by `unpack` for
//! layers and by `archive` for whole images.

use std::io::{self, Read};

use tar::EntryType;

/// Extension headers (pax records, GNU long names) are read whole. Go's archive/tar has the same limit.
const MAX_EXTENSION: u64 = 1 << 20;
/// Pieces of one sparse file: more are no file system's.
const MAX_PIECES: usize = 32 << 10;
const BLOCK: usize = 512;
/// Where a GNU header tells of its sparse pieces: offset, how many, then whether more follow, then the size they span.
const SPARSE: (usize, usize, usize, usize) = (386, 4, 482, 483);
/// The same in the blocks that follow.
const MORE_SPARSE: (usize, usize, usize) = (0, 21, 504);
const NUMBER: usize = 12;

/// One file, directory, link or device.
#[derive(Debug)]
pub struct Entry {
    pub path: Vec<u8>,
    /// Where a link leads.
    pub link: Vec<u8>,
    pub kind: EntryType,
    pub uid: u64,
    pub gid: u64,
    pub mode: u32,
    pub mtime: u64,
    /// Major and minor of a device.
    pub device: (u32, u32),
    /// Names and values of extended attributes.
    pub xattrs: Vec<(String, Vec<u8>)>,
    pub sparse: Option<Sparse>,
}

/// A file with holes.
#[derive(Debug, PartialEq, Eq)]
pub struct Sparse {
    /// Offset and length of what is stored, in order.
    pub pieces: Vec<(u64, u64)>,
    /// How long the file is.
    pub size: u64,
}

/// An archive being read; reading from it gives the data of the entry that was answered last.
#[derive(Debug)]
pub struct Entries<R> {
    input: R,
    /// Data of the entry that is still to come, and the padding behind it.
    left: u64,
    padding: u64,
}

/// What headers before an entry say about it.
#[derive(Default)]
struct Extension {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Vec<(String, Vec<u8>)>,
}

fn bad(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl<R: Read> Entries<R> {
    /// Reads from the start of an archive.
    pub fn new(input: R) -> Self {
        Entries { input, left: 0, padding: 0 }
    }

    /// The reader, at wherever it is.
    pub fn into_inner(self) -> R {
        self.input
    }

    /// The next entry; `None` at the end of the archive. What is left of the last one's data is passed over.
    ///
    /// # Errors
    /// `UnexpectedEof` when the archive ends within an entry, `InvalidData` when it isn't one.
    pub fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut known = Extension::default();
        loop {
            self.skip()?;
            let Some(block) = self.block()? else { return Ok(None) };
            if block.iter().all(|b| *b == 0) {
                return Ok(None);
            }
            check_sum(&block)?;
            let header = tar::Header::from_byte_slice(&block);
            let size = header.entry_size()?;
            match header.entry_type() {
                EntryType::GNULongName => known.path = Some(self.long_name(size)?),
                EntryType::GNULongLink => known.link = Some(self.long_name(size)?),
                EntryType::XHeader => known.pax = records(&self.extension(size)?)?,
                // Of no entry, or of all: nothing of it matters here.
                EntryType::XGlobalHeader => drop(self.extension(size)?),
                _ => return self.entry(header, size, known).map(Some),
            }
        }
    }

    fn entry(&mut self, header: &tar::Header, size: u64, known: Extension) -> io::Result<Entry> {
        let mut entry = Entry {
            path: known.path.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: known.link.or_else(|| header.link_name_bytes().map(|n| n.into_owned())).unwrap_or_default(),
            kind: header.entry_type(),
            // Some writers leave owners blank, which means root.
            uid: header.uid().unwrap_or(0),
            gid: header.gid().unwrap_or(0),
            mode: header.mode()?,
            mtime: header.mtime().unwrap_or(0),
            device: (device(header.device_major()), device(header.device_minor())),
            xattrs: Vec::new(),
            sparse: None,
        };
        let mut size = size;
        for (name, value) in known.pax {
            match name.as_str() {
                "path" => entry.path = value,
                "linkpath" => entry.link = value,
                "size" => size = number(&value)?,
                "uid" => entry.uid = number(&value)?,
                "gid" => entry.gid = number(&value)?,
                _ if name.starts_with("GNU.sparse.") => return Err(bad("sparse files in pax form are not supported")),
                _ => {
                    if let Some(name) = name.strip_prefix("SCHILY.xattr.") {
                        entry.xattrs.push((name.to_owned(), value));
                    }
                }
            }
        }
        // In the oldest archives a slash at the end makes a directory.
        if header.as_bytes()[156] == 0 && entry.path.ends_with(b"/") {
            entry.kind = EntryType::Directory;
        }
        use EntryType as T;
        // These have no data, whatever their header says; another reading would let an archive mean two things.
        if matches!(entry.kind, T::Link | T::Symlink | T::Char | T::Block | T::Directory | T::Fifo) {
            size = 0;
        }
        if entry.kind == T::GNUSparse {
            entry.sparse = Some(self.sparse(header.as_bytes(), size)?);
        }
        self.expect(size);
        Ok(entry)
    }

    /// The map of a sparse file: in its header, and in blocks that follow.
    fn sparse(&mut self, header: &[u8; BLOCK], stored: u64) -> io::Result<Sparse> {
        let (at, count, more, real) = SPARSE;
        let mut sparse = Sparse { pieces: Vec::new(), size: octal(&header[real..real + NUMBER])? };
        add_pieces(&mut sparse.pieces, &header[at..], count)?;
        let mut extended = header[more] != 0;
        while extended {
            let block = self.block()?.ok_or(io::ErrorKind::UnexpectedEof)?;
            let (at, count, more) = MORE_SPARSE;
            add_pieces(&mut sparse.pieces, &block[at..], count)?;
            extended = block[more] != 0;
        }
        let (mut end, mut sum) = (0u64, 0u64);
        for (offset, length) in &sparse.pieces {
            let to = offset.checked_add(*length).filter(|_| *offset >= end);
            end = to.ok_or_else(|| bad("the pieces of a sparse file overlap"))?;
            sum += length;
        }
        if end > sparse.size || sum != stored {
            return Err(bad("the pieces of a sparse file don't add up"));
        }
        Ok(sparse)
    }

    fn long_name(&mut self, size: u64) -> io::Result<Vec<u8>> {
        let mut name = self.extension(size)?;
        let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
        name.truncate(end);
        Ok(name)
    }

    /// Reads an extension header whole.
    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(bad(format!("a header of {size} bytes; the limit is {MAX_EXTENSION}")));
        }
        self.expect(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
    }

    fn expect(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn skip(&mut self) -> io::Result<()> {
        let rest = u128::from(self.left) + u128::from(self.padding);
        let rest = u64::try_from(rest).map_err(|_| bad("a size out of range"))?;
        (self.left, self.padding) = (0, 0);
        match io::copy(&mut self.input.by_ref().take(rest), &mut io::sink())? {
            n if n == rest => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The next block; `None` when the archive ends before it.
    fn block(&mut self) -> io::Result<Option<[u8; BLOCK]>> {
        let mut block = [0u8; BLOCK];
        let mut got = 0;
        while got < BLOCK {
            match self.input.read(&mut block[got..]) {
                Ok(0) if got == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => got += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Some(block))
    }
}

impl<R: Read> Read for Entries<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let got = self.input.read(&mut buffer[..most])?;
        if got == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= got as u64;
        Ok(got)
    }
}

/// The sum of a header's bytes, with blanks in place of the sum itself.
fn check_sum(block: &[u8; BLOCK]) -> io::Result<()> {
    let header = tar::Header::from_byte_slice(block);
    let plain = block[..148].iter().chain(&block[156..]);
    let sum = plain.fold(8 * u32::from(b' '), |sum, b| sum + u32::from(*b));
    if header.cksum().is_ok_and(|told| told == sum) { Ok(()) } else { Err(bad("a header's checksum is wrong")) }
}

fn device(number: io::Result<Option<u32>>) -> u32 {
    number.ok().flatten().unwrap_or(0)
}

fn number(text: &[u8]) -> io::Result<u64> {
    let number = std::str::from_utf8(text).ok().and_then(|t| t.parse().ok());
    number.ok_or_else(|| bad("a pax record that must be a number isn't one"))
}

/// A number as headers write it: octal digits between blanks and zeros.
fn octal(field: &[u8]) -> io::Result<u64> {
    if field[0] & 0x80 != 0 {
        // The binary form of big numbers: the last eight bytes hold all that fits.
        let low: [u8; 8] = field[NUMBER - 8..NUMBER].try_into().unwrap_or_default();
        return Ok(u64::from_be_bytes(low));
    }
    let digits = field.split(|b| *b == 0).next().unwrap_or_default().trim_ascii();
    let text = std::str::from_utf8(digits).ok();
    let number = text.and_then(|t| if t.is_empty() { Some(0) } else { u64::from_str_radix(t, 8).ok() });
    number.ok_or_else(|| bad("a number of a sparse file is none"))
}

fn add_pieces(pieces: &mut Vec<(u64, u64)>, bytes: &[u8], count: usize) -> io::Result<()> {
    for one in bytes.chunks(2 * NUMBER).take(count) {
        if one[0] == 0 || one[NUMBER] == 0 {
            return Ok(());
        }
        if pieces.len() >= MAX_PIECES {
            return Err(bad(format!("a sparse file of more than {MAX_PIECES} pieces")));
        }
        pieces.push((octal(&one[..NUMBER])?, octal(&one[NUMBER..])?));
    }
    Ok(())
}

/// Those records of a pax header that this reader heeds: `LENGTH NAME=VALUE\n`, the length counting all of it.
fn records(mut bytes: &[u8]) -> io::Result<Vec<(String, Vec<u8>)>> {
    let broken = || bad("a pax header is damaged");
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().take(8).position(|b| *b == b' ').ok_or_else(broken)?;
        let length = std::str::from_utf8(&bytes[..space]).ok().and_then(|t| t.parse::<usize>().ok());
        let length = length.filter(|l| *l > space + 1 && *l <= bytes.len()).ok_or_else(broken)?;
        let record = bytes[space + 1..length].strip_suffix(b"\n").ok_or_else(broken)?;
        bytes = &bytes[length..];
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(broken)?;
        let heeded = |n: &str| {
            matches!(n, "path" | "linkpath" | "size" | "uid" | "gid")
                || n.starts_with("GNU.sparse.")
                || n.starts_with("SCHILY.xattr.")
        };
        if let Some(name) = std::str::from_utf8(&record[..equals]).ok().filter(|n| heeded(n)) {
            records.push((name.to_owned(), record[equals + 1..].to_vec()));
        }
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: EntryType, name: &str, size: u64) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path(name).unwrap();
        header.set_mode(0o644);
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    }

    fn padded(data: &[u8]) -> Vec<u8> {
        let mut data = data.to_vec();
        data.resize(data.len().next_multiple_of(BLOCK), 0);
        data
    }

    fn record(name: &str, value: &[u8]) -> Vec<u8> {
        let rest = [b" ", name.as_bytes(), b"=", value, b"\n"].concat();
        let mut length = rest.len() + 1;
        while length != rest.len() + length.to_string().len() {
            length += 1;
        }
        [length.to_string().as_bytes(), &rest].concat()
    }

    /// Counts what is taken from an endless archive.
    struct Endless(Vec<u8>, usize);

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let rest = &self.0[self.1.min(self.0.len())..];
            let n = if rest.is_empty() { buffer.len() } else { rest.len().min(buffer.len()) };
            buffer[..n].fill(b'a');
            buffer[..n.min(rest.len())].copy_from_slice(&rest[..n.min(rest.len())]);
            self.1 += n;
            Ok(n)
        }
    }

    #[test]
    fn a_gigabyte_of_name_is_refused_unread() {
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader, EntryType::XGlobalHeader] {
            let mut entries = Entries::new(Endless(header(kind, "././@LongLink", 1 << 30), 0));
            let error = entries.next().unwrap_err().to_string();
            assert!(error.contains("the limit is 1048576"), "{kind:?}: {error}");
            assert_eq!(entries.into_inner().1, BLOCK, "nothing but the header was read: {kind:?}");
        }
    }

    #[test]
    fn names_of_every_form_are_found() {
        let long = "d/".repeat(80) + "file";
        let mut archive = tar::Builder::new(Vec::new());
        let mut h = tar::Header::new_gnu();
        h.set_size(5);
        h.set_mode(0o4755);
        archive.append_data(&mut h, &long, &b"hello"[..]).unwrap();
        let mut bytes = archive.into_inner().unwrap();
        bytes.truncate(bytes.len() - 2 * BLOCK);
        let pax = [
            record("path", "päx/f.x".as_bytes()),
            record("SCHILY.xattr.user.a", b"1\x00=\n23456"),
            record("size", b"700"),
            record("mtime", b"1.5"),
            record("uid", b"7"),
        ]
        .concat();
        bytes.extend(header(EntryType::XHeader, "x", pax.len() as u64));
        bytes.extend(padded(&pax));
        bytes.extend(header(EntryType::Regular, "short", 1));
        bytes.extend(padded(&[b'z'; 700]));
        bytes.extend(header(EntryType::Directory, "dir", 4096));
        bytes.extend(header(EntryType::Regular, "last", 2));
        bytes.extend(padded(b"ok"));
        let mut entries = Entries::new(bytes.as_slice());
        let one = entries.next().unwrap().unwrap();
        assert_eq!((one.path, one.mode), (long.into_bytes(), 0o4755));
        let mut text = String::new();
        entries.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello");
        let two = entries.next().unwrap().unwrap();
        assert_eq!((two.path.as_slice(), two.uid), ("päx/f.x".as_bytes(), 7));
        assert_eq!(two.xattrs, [("user.a".to_owned(), b"1\x00=\n23456".to_vec())]);
        assert_eq!(entries.next().unwrap().unwrap().kind, EntryType::Directory, "700 bytes were passed over");
        assert_eq!(entries.next().unwrap().unwrap().path, b"last", "a directory has no data, whatever it says");
        assert!(entries.next().unwrap().is_none());
    }

    #[test]
    fn damaged_archives_are_refused() {
        let mut wrong = header(EntryType::Regular, "a", 0);
        wrong[0] ^= 1;
        assert!(Entries::new(wrong.as_slice()).next().unwrap_err().to_string().contains("checksum"));
        let cut = header(EntryType::Regular, "a", 10);
        let mut entries = Entries::new(cut.as_slice());
        entries.next().unwrap();
        assert_eq!(entries.next().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        for text in [&b"9 path=a"[..], b"x path=a\n", b"0 path=a\n", b"99 path=a\n", b"7 path\n", b"3 \n"] {
            assert!(records(text).is_err(), "{:?}", String::from_utf8_lossy(text));
        }
        let huge = header(EntryType::Regular, "a", u64::MAX);
        let mut entries = Entries::new(huge.as_slice());
        assert!(entries.next().is_err() || entries.next().is_err());
    }

    #[test]
    fn holes_are_told_and_maps_checked() {
        let sparse = |pieces: &[(u64, u64)], real: u64, stored: u64| {
            let mut bytes = header(EntryType::GNUSparse, "s", stored);
            for (at, (offset, length)) in pieces.iter().enumerate() {
                let place = SPARSE.0 + at * 2 * NUMBER;
                bytes[place..place + 11].copy_from_slice(format!("{offset:011o}").as_bytes());
                bytes[place + NUMBER..place + NUMBER + 11].copy_from_slice(format!("{length:011o}").as_bytes());
            }
            bytes[SPARSE.3..SPARSE.3 + 11].copy_from_slice(format!("{real:011o}").as_bytes());
            let mut header = tar::Header::new_gnu();
            header.as_mut_bytes().copy_from_slice(&bytes);
            header.set_cksum();
            Entries::new(header.as_bytes().as_slice()).next()
        };
        let one = sparse(&[(0, 512), (4096, 10)], 8192, 522).unwrap().unwrap();
        assert_eq!(one.sparse, Some(Sparse { pieces: vec![(0, 512), (4096, 10)], size: 8192 }));
        assert!(sparse(&[(0, 512), (100, 10)], 8192, 522).is_err(), "they overlap");
        assert!(sparse(&[(0, 512)], 100, 512).is_err(), "beyond the end");
        assert!(sparse(&[(0, 512)], 8192, 1 << 30).is_err(), "more stored than pieces take");
    }
}
