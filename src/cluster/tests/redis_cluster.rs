//! A Cluster whose slots move.
