//! Logs: on standard error, by `FERROKUBE_LOG` (tracing's filter syntax), without colours because they end in files.

use std::io::Write;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::Directive;

/// What the Kubernetes client says of an answer that it can't decode is the whole answer, Secrets included. Nobody wants
/// that in a log, whatever else is asked for; the error itself goes to whoever called, and is told there.
const NO_BODIES: &str = "kube_client::client=off";

/// Called once, by commands that stay.
pub fn init() {
    let asked = EnvFilter::try_from_env("FERROKUBE_LOG").unwrap_or_else(|_| "info,kube=warn".into());
    let filter = without_bodies(asked);
    let subscriber = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).with_env_filter(filter);
    // What can't be written would be told on standard error by a macro that panics when that can't be written either: a
    // full disk would end whoever logs.
    subscriber.log_internal_errors(false).init();
}

/// A line on standard error from where nothing may panic: that is a file on a disk that may be full.
pub fn print_line(line: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stderr(), "ferrokube: {line}");
}

fn without_bodies(filter: EnvFilter) -> EnvFilter {
    match NO_BODIES.parse::<Directive>() {
        Ok(directive) => filter.add_directive(directive),
        Err(_) => filter,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_answer_that_can_not_be_decoded_is_not_written_to_the_log() {
        for asked in ["info,kube=warn", "trace", "kube_client=trace", "kube_client::client=trace"] {
            let log = Log::default();
            let writer = log.clone();
            let filter = without_bodies(EnvFilter::new(asked));
            let subscriber =
                tracing_subscriber::fmt().with_writer(move || writer.clone()).with_env_filter(filter).finish();
            tracing::subscriber::with_default(subscriber, || {
                tracing::warn!(target: "kube_client::client", "the whole body");
                tracing::warn!(target: "kube_client::config", "something else");
            });
            let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
            assert!(!text.contains("body"), "{asked}: {text}");
        }
    }
}
