//! The file systems and files that are not in one.
//!
//! - [`image`]: the hashed image, through a cache of checked pages
//! - [`cache`]: the bound of the page cache
//! - [`pty`]: pseudo-terminals and /dev/pts
//! - [`ramfs`]: files in memory; over the image it is the writable layer of the root
//! - [`dev`]: devices; [`proc`]: what programs read about themselves and the system
//! - [`console`]: standard input, output and error of the host program
//! - [`host`]: a directory of the host
//! - [`hostcall`]: ocalls about files, with their answers checked
//! - [`options`]: file systems that mount(2) asks for
//! - [`store`]: files in an encrypted store, alone or over the image; [`disk`]: the host file it is in
//! - [`sealing`]: keys of stores from the CPU
//! - [`hostfd`]: descriptors of the host
//! - [`tree`]: the mounts of the boot configuration

pub mod cache;
pub mod console;
pub mod dev;
pub mod disk;
pub mod host;
pub mod hostcall;
pub mod hostfd;
pub mod image;
pub mod options;
pub mod proc;
pub mod pty;
pub mod ramfs;
pub mod sealing;
pub mod store;
pub mod stores;
pub mod tree;
