#![no_std]
//! Records and map keys shared by kernel and user side.
