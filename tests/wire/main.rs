//! Golden bytes, and what becomes of bytes that nobody should send.

mod curve;
mod golden;
mod looks;
mod peers;
mod replies;
mod requests;
mod seed;
mod zmtp;
