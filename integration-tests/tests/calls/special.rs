//! What the table cannot say.
