//! The image copy engine and its backends; run by the agent on the receiving side.
