//! Places where the crash tests end the process.

/// The steps that every operation has beside its own, for tests that walk all abort points of a method.
pub const STEPS: [&str; 3] = ["accept", "finish", "answered"];

/// Aborts the process if `TROVE_GUESTAGENT_ABORT_AT` equals `name` (`<method>/<step>/<before|after>`). Does nothing unless
/// built with the feature `failpoints`.
#[cfg(feature = "failpoints")]
pub fn failpoint(name: &str) {
    if std::env::var("TROVE_GUESTAGENT_ABORT_AT").is_ok_and(|at| at == name) {
        tracing::error!(name, "aborting at a named step");
        std::process::abort();
    }
}

/// Aborts the process if `TROVE_GUESTAGENT_ABORT_AT` equals `name` (`<method>/<step>/<before|after>`). Does nothing unless
/// built with the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn failpoint(_name: &str) {}
