//! What becomes of odd packets.
