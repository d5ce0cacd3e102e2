//! The file systems and files that are not in one.
//!
//! - [`image`]: the hashed image, through a cache of checked pages
//! - [`pty`]: pseudo-terminals and /dev/pts
//! - [`ramfs`]: files in memory; over the image it is the writable layer of the root
//! - [`dev`]: devices; [`proc`]: what programs read about themselves and the system
//! - [`console`]: standard input, output and error of the host program
//! - [`host`]: a directory of the host
//! - [`hostcall`]: ocalls about files, with their answers checked
//! - [`options`]: file systems that mount(2) asks for
//! - [`tree`]: the mounts of the boot configuration

pub mod console;
pub mod dev;
pub mod host;
pub mod hostcall;
pub mod image;
pub mod options;
pub mod proc;
pub mod pty;
pub mod ramfs;
pub mod tree;
