//! MySQL-family driver; MariaDB 10.11 for now. Skeleton.
