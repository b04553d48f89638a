//! Configuration in three steps: fragments (files as they are), merged inputs, validated settings.
//!
//! Owns: oslo.config's file format and precedence, our own sections, the list of all problems with file and line. Uses: each
//! room's own `Settings`. Never does: I/O beyond reading the files named.
