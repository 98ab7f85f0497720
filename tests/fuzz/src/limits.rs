//! Runs one input of a target as production would meet it, on a thread with the server's stack, and holds it to the
//! ceilings of memory and time. Both drivers call [`check`]. I/O: clocks.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use meta::depth::STACK_BYTES;
use peak_alloc::PeakAlloc;

use crate::Target;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// What an input of no bytes may hold: decompressors' windows, tables that are made once.
pub const BASE_MEMORY: usize = 8 << 20;
/// What an input of no bytes may take, in a build without optimisation on a busy machine.
const BASE_TIME: Duration = Duration::from_millis(1_500);
/// A reader in one pass takes a hundredth of it, one that is quadratic in 64 KiB fifty times as much.
const TIME_PER_BYTE: Duration = Duration::from_micros(40);
/// An input over a ceiling is tried again: somebody else may have had the processor, tables may have been made once.
const TRIES: usize = 3;

/// What one run took.
struct Taken {
    memory: usize,
    time: Duration,
}

type Job = (&'static Target, Vec<u8>, Sender<Result<Taken, String>>);

/// Runs the input.
///
/// # Errors
/// What did not hold, or which ceiling was passed.
pub fn check(target: &'static Target, input: &[u8]) -> Result<(), String> {
    let length = u32::try_from(input.len()).unwrap_or(u32::MAX);
    let most = Taken { memory: BASE_MEMORY + target.memory * input.len(), time: BASE_TIME + TIME_PER_BYTE * length };
    let mut least = Taken { memory: usize::MAX, time: Duration::MAX };
    for _ in 0..TRIES {
        let taken = run(target, input)?;
        least = Taken { memory: least.memory.min(taken.memory), time: least.time.min(taken.time) };
        if least.memory <= most.memory && least.time <= most.time {
            return Ok(());
        }
    }
    Err(format!("{} bytes of memory and {:?} for {length} bytes of input", least.memory, least.time))
}

fn run(target: &'static Target, input: &[u8]) -> Result<Taken, String> {
    static WORKER: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    let worker = WORKER.get_or_init(|| Mutex::new(start()));
    let (answer, answered) = channel();
    let gone = |_| "the worker's thread has ended".to_owned();
    worker.lock().map_err(|e| e.to_string())?.send((target, input.to_vec(), answer)).map_err(|e| e.to_string())?;
    answered.recv().map_err(gone)?
}

fn start() -> Sender<Job> {
    let (jobs, queue): (Sender<Job>, Receiver<Job>) = channel();
    let serve = move || {
        for (target, input, answer) in queue {
            let _ = answer.send(measure(target, &input));
        }
    };
    // Without a thread every send fails, which is told as a failure of the input.
    drop(thread::Builder::new().name("input".to_owned()).stack_size(STACK_BYTES).spawn(serve));
    jobs
}

fn measure(target: &Target, input: &[u8]) -> Result<Taken, String> {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let (began, computed) = (Instant::now(), processor_time());
    let result = catch_unwind(AssertUnwindSafe(|| (target.run)(input)));
    // Others may have had the processor meanwhile.
    let time = computed.zip(processor_time()).map_or(began.elapsed(), |(before, now)| now.saturating_sub(before));
    let taken = Taken { time, memory: HEAP.peak_usage().saturating_sub(before) };
    result.map(|()| taken).map_err(|panic| words(panic.as_ref()))
}

/// How long this thread has been on a processor, where the kernel counts it.
fn processor_time() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(text.split(' ').next()?.parse().ok()?))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
    format!("panicked: {}", text.unwrap_or_default())
}
