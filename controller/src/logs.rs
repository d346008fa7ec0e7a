//! Logs on standard error.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// A level that is always right.
const DEFAULT_LEVEL: &str = "info";

/// How and which logs are written.
#[derive(Clone, Debug, Args)]
pub struct LogSettings {
    /// How logs are written.
    #[arg(long = "log-format", env = "CATAMARAN_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub format: LogFormat,
    /// Which logs are written: a level, or a filter such as `info,kube=debug`.
    #[arg(long = "log-level", env = "CATAMARAN_LOG_LEVEL", default_value = DEFAULT_LEVEL)]
    pub level: String,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line, for a log collector.
    Json,
    /// Text, for people.
    Pretty,
}

impl LogSettings {
    /// Starts logging. `quieter` is a filter for crates that say too much; the level that was asked for comes after it.
    /// A level that is none is told in the log, and is no reason not to start.
    pub fn start(&self, quieter: Option<&str>) {
        let Self { format, level } = self;
        let all = [quieter, Some(level)].into_iter().flatten().collect::<Vec<_>>().join(",");
        let (filter, wrong) = match EnvFilter::try_new(all) {
            Ok(filter) => (filter, None),
            Err(error) => (EnvFilter::new(DEFAULT_LEVEL), Some(error)),
        };
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        match format {
            LogFormat::Json => builder.json().init(),
            LogFormat::Pretty => builder.init(),
        }
        if let Some(error) = wrong {
            tracing::warn!(%error, "--log-level is no filter; logging at {DEFAULT_LEVEL}");
        }
    }
}
