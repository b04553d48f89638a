//! The in-memory datastore for tests. Skeleton.
