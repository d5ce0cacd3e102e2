"""ELF files, as far as building an image needs them.

- `file`: headers, dynamic section and symbols of one file
- `closure`: which libraries a program needs, and where they are
- `functions`: the bounds of functions, from ``.eh_frame``, symbols or Go's table
- `sites`: ``syscall`` instructions and the table the kernel patches them by
"""
