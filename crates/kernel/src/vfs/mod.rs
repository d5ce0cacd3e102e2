//! The file layer: names, open files, mounts. It names no concrete file system.

/// A process's descriptors.
pub struct FileTable {}

/// Root, working directory and umask of a process.
pub struct FsContext {}
