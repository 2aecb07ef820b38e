//! What one Redis can do to us.
