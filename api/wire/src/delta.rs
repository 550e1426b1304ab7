//! Converts changes of keyed facts to and from their messages.
