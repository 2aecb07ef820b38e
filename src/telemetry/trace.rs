//! The log: what the gateway says about itself, to standard error.

use std::io::IsTerminal as _;

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people; in colour on a terminal.
    #[default]
    Text,
    /// One JSON object a line, fields at the top.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter is not understood.
    #[error("the log filter `{filter}` is not valid: expected a level such as `info`, or `causeway=debug,warn`")]
    Filter {
        /// As given.
        filter: String,
        /// Which part.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Logging was set up before, and stays as it was.
    #[error("logging is set up already")]
    Repeated(#[source] tracing::subscriber::SetGlobalDefaultError),
}

/// Sends everything that passes `filter` to standard error, for the whole process.
///
/// `filter` is a level (`info`), or levels by module (`warn,causeway::session=debug`).
///
/// # Errors
/// When the filter is not understood, or when called twice.
pub fn init(format: LogFormat, filter: &str) -> Result<(), InitError> {
    let subscriber = subscriber(format, filter, std::io::stderr, std::io::stderr().is_terminal())?;
    tracing::subscriber::set_global_default(subscriber).map_err(InitError::Repeated)
}

fn subscriber<W>(
    format: LogFormat,
    filter: &str,
    writer: W,
    colour: bool,
) -> Result<Box<dyn Subscriber + Send + Sync>, InitError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter =
        EnvFilter::builder().parse(filter).map_err(|source| InitError::Filter { filter: filter.to_owned(), source })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    Ok(match format {
        LogFormat::Text => Box::new(builder.with_ansi(colour).finish()),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).with_span_list(false).finish()),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(buf)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str) -> String {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = subscriber(format, filter, move || writer.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(duration_ms = 7, text = "two\nlines", "drained");
            tracing::debug!("hidden");
        });
        let bytes = kept.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_json_line_has_its_fields_at_the_top() {
        let line = logged(LogFormat::Json, "info");
        assert_eq!(line.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&value["message"], &value["duration_ms"], &value["level"]),
            (&"drained".into(), &7.into(), &"INFO".into())
        );
    }

    #[test]
    fn text_is_one_line_that_reads_by_itself() {
        let line = logged(LogFormat::Text, "warn,causeway=info");
        assert!(line.contains("INFO") && line.contains("drained duration_ms=7"), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
        assert_eq!(logged(LogFormat::Text, "warn"), "");
    }

    #[test]
    fn a_filter_that_is_not_understood_is_shown() {
        let Err(error) = subscriber(LogFormat::Text, "causeway=loud", std::io::sink, false) else { panic!() };
        assert!(error.to_string().contains("`causeway=loud`"));
    }
}
