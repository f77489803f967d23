//! Golden bytes, and what becomes of bytes that nobody should send.

mod seed;
mod zmtp;
