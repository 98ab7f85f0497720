//! The clock that also counts while the machine is suspended: `Instant` stands still then, and so do timers. Callers:
//! whoever has to know how long it could say nothing.

use std::time::Duration;

/// The time since the machine was started (`CLOCK_BOOTTIME`).
pub fn since_boot() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is ours and as long as the kernel writes. With a clock that there is it can't fail.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_one_that_the_kernel_shows_and_goes_on() {
        let before = since_boot();
        let shown = std::fs::read_to_string("/proc/uptime").unwrap();
        let shown: f64 = shown.split(' ').next().unwrap().parse().unwrap();
        let after = since_boot();
        // It shows hundredths.
        assert!(before.as_secs_f64() - 0.02 <= shown && shown <= after.as_secs_f64(), "{before:?} {shown} {after:?}");
    }
}
