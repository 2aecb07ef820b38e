//! A master that Sentinel replaces.
