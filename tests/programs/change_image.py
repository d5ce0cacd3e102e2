"""Changes files and directories that come from the image; run inside only.

The image is read-only and authentic; what a program changes is kept in memory and hides what
lies below.
"""

import errno
import mmap
import os
import shutil
import stat

LIBRARY = "/usr/lib/python3.11"
MODULE = f"{LIBRARY}/json/decoder.py"


def change_a_part() -> None:
    with open(MODULE, "rb") as file:
        before = file.read()
    number = os.stat(MODULE).st_ino
    with open(MODULE, "r+b") as file:
        file.seek(10)
        file.write(b"XXXX")
    with open(MODULE, "rb") as file:
        assert file.read() == before[:10] + b"XXXX" + before[14:]
    assert os.stat(MODULE).st_ino == number


def move_a_file() -> None:
    try:
        os.rename(MODULE, "/tmp/decoder.py")
        raise AssertionError("renamed to another mount")
    except OSError as error:
        assert error.errno == errno.EXDEV
    os.rename(MODULE, "/usr/decoder.py")
    assert not os.path.exists(MODULE)
    assert "decoder.py" not in os.listdir(f"{LIBRARY}/json")


def replace_a_directory() -> None:
    count = len(os.listdir(LIBRARY))
    os.rename(f"{LIBRARY}/json", "/usr/json")
    assert len(os.listdir(LIBRARY)) == count - 1
    assert "encoder.py" in os.listdir("/usr/json")
    os.mkdir(f"{LIBRARY}/json")
    assert os.listdir(f"{LIBRARY}/json") == []
    with open(f"{LIBRARY}/json/encoder.py", "w") as file:
        file.write("mine")
    with open("/usr/json/encoder.py") as file:
        assert file.read() != "mine"
    shutil.rmtree("/usr/json")
    shutil.rmtree(f"{LIBRARY}/json")
    assert not os.path.exists(f"{LIBRARY}/json")


def cut_and_extend() -> None:
    big = "/opt/data/big"
    with open(big, "r+b") as file:
        file.seek(50_000_000)
        file.write(b"hello")
        file.seek(49_999_990)
        assert file.read(30)[10:15] == b"hello"
        file.truncate(50_000_100)
    with open(big, "ab") as file:
        file.write(b"end")
    with open(big, "rb") as file:
        file.seek(-5, os.SEEK_END)
        assert file.read()[2:] == b"end"
    assert os.stat(big).st_size == 50_000_103
    os.link(big, "/opt/data/second")
    assert os.stat(big).st_nlink == 2
    os.unlink(big)
    assert os.stat("/opt/data/second").st_nlink == 1


def change_attributes() -> None:
    os.chmod("/usr", 0o700)
    os.utime("/usr", (1, 2))
    st = os.stat("/usr")
    assert (stat.S_IMODE(st.st_mode), st.st_mtime) == (0o700, 2)


def map_what_was_changed() -> None:
    with open("/opt/data/second", "r+b") as file, mmap.mmap(file.fileno(), 1 << 20) as memory:
        memory[:5] = b"map's"
        assert os.pread(file.fileno(), 5, 0) == b"map's"
        os.pwrite(file.fileno(), b"write's", 100)
        assert memory[100:107] == b"write's"


if __name__ == "__main__":
    change_a_part()
    move_a_file()
    replace_a_directory()
    cut_and_extend()
    change_attributes()
    map_what_was_changed()
    print("changed")
