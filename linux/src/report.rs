//! Memory that a process shares with those it forks: how they tell it what became of them. Does I/O.
//!
//! A pipe would be a descriptor that a container can find in the /proc of a process that joins it, and hold open. The
//! text of a failure may be written by whoever has taken over the child; the number of a process may not, so that page
//! is not handed on. Used by `container::launch`.

use std::io;
use std::ptr::NonNull;

/// Bytes of each of the two pages; a longer failure is cut.
const PAGE: usize = 4096;
/// Before the text: its length.
const LENGTH: usize = size_of::<u32>();

/// Two pages: why it failed, and the number of a process.
#[derive(Debug)]
pub struct Report(NonNull<u8>);

impl Report {
    /// Empty pages.
    pub fn new() -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at an address of the kernel's choice, filled with zeros.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), 2 * PAGE, protection, flags, -1, 0) };
        match NonNull::new(memory.cast::<u8>()) {
            Some(memory) if memory.as_ptr().cast() != libc::MAP_FAILED => Ok(Report(memory)),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Writes down why there is no program.
    pub fn fail(&self, text: &str) {
        let text = &text.as_bytes()[..text.len().min(PAGE - LENGTH)];
        // SAFETY: length and text lie within the first page, which is mapped as long as `self` lives and is aligned.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), self.0.as_ptr().add(LENGTH), text.len());
            self.0.cast::<u32>().write_volatile(text.len() as u32);
        }
    }

    /// What was written; nothing when all went well.
    pub fn failure(&self) -> Option<String> {
        // SAFETY: within the first page; the length is not believed.
        let text = unsafe {
            let length = (self.0.cast::<u32>().read_volatile() as usize).min(PAGE - LENGTH);
            let mut text = vec![0u8; length];
            std::ptr::copy_nonoverlapping(self.0.as_ptr().add(LENGTH), text.as_mut_ptr(), length);
            text
        };
        (!text.is_empty()).then(|| String::from_utf8_lossy(&text).into_owned())
    }

    /// Keeps the second page from processes that are forked from now on.
    pub fn keep_number(&self) -> io::Result<()> {
        // SAFETY: the second page of our own mapping.
        let answer = unsafe { libc::madvise(self.0.as_ptr().add(PAGE).cast(), PAGE, libc::MADV_DONTFORK) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Writes down the number of the program's process; after [`Report::keep_number`].
    pub fn set_number(&self, pid: i32) {
        // SAFETY: the beginning of the second page, which is mapped in this process and aligned.
        unsafe { self.0.add(PAGE).cast::<i32>().write_volatile(pid) }
    }

    /// The number, if one was written.
    pub fn number(&self) -> Option<i32> {
        // SAFETY: as above.
        let pid = unsafe { self.0.add(PAGE).cast::<i32>().read_volatile() };
        (pid > 0).then_some(pid)
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nobody uses any more. A page that was not handed on is no error.
        unsafe { libc::munmap(self.0.as_ptr().cast(), 2 * PAGE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_cut_to_its_page() {
        let report = Report::new().unwrap();
        assert_eq!((report.failure(), report.number()), (None, None));
        report.fail(&"x".repeat(3 * PAGE));
        assert_eq!(report.failure().unwrap().len(), PAGE - LENGTH);
        report.set_number(7);
        assert_eq!(report.number(), Some(7), "the long text did not reach the second page");
    }
}
