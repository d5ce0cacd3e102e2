/* Every page of a program's own text can be mapped again, executable, whether it holds system calls or not. */
// variants: glibc static
#include <assert.h>
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096

static int map_segment(int fd, const Elf64_Phdr *segment)
{
    int pages = 0;
    for (Elf64_Off at = segment->p_offset & -PAGE; at < segment->p_offset + segment->p_filesz; at += PAGE) {
        void *page = mmap(NULL, PAGE, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, at);
        assert(page != MAP_FAILED);
        assert(munmap(page, PAGE) == 0);
        pages++;
    }
    return pages;
}

int main(void)
{
    int fd = open("/proc/self/exe", O_RDONLY);
    Elf64_Ehdr header;
    assert(fd >= 0 && read(fd, &header, sizeof header) == sizeof header);
    int pages = 0;
    for (int i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr segment;
        assert(pread(fd, &segment, sizeof segment, header.e_phoff + i * sizeof segment) == sizeof segment);
        if (segment.p_type == PT_LOAD && (segment.p_flags & PF_X))
            pages += map_segment(fd, &segment);
    }
    puts(pages > 0 ? "all pages" : "no text");
    return 0;
}
