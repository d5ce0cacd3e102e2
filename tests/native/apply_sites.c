// Applies site tables to the libraries of the process it is preloaded into, on plain Linux: what the
// kernel does with a table, done natively, so that the tables are tested by running real programs.
//
// SITES names pairs "substring of a library's path=table file", separated by blanks. The stubs'
// `jmp *%gs:0x10` leads to `enter`, which makes the real system call. The return address (RCX) waits
// in XMM31 meanwhile: nothing else survives the call in a thread with a new stack and is not used.
// `jmp *%gs:0x18` leads to `identify`, which executes CPUID.
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARCH_SET_GS 0x1001

struct header { char magic[4]; uint16_t version, zero; uint32_t count, stub_bytes; };
struct record {
    uint64_t window_off;
    uint8_t window_len, site_at, stub_len, stub_call, stub_ret, fix_count, map_count, kind;
    uint8_t fixes[4], maps[12], stub[];
};

void enter(void);
uint64_t entered __attribute__((visibility("hidden")));
asm(".globl enter\n.hidden enter\n.type enter, @function\n"
    "enter: vmovq %rcx, %xmm31\n"
    "       lock incq entered(%rip)\n"
    "       syscall\n"
    "       vmovq %xmm31, %rcx\n"
    "       jmp *%rcx\n");

void identify(void);
asm(".globl identify\n.hidden identify\n.type identify, @function\n"
    "identify: vmovq %rdx, %xmm31\n"
    "       cpuid\n"
    "       vmovq %xmm31, -136(%rsp)\n"  // below what leaf functions keep
    "       jmp *-136(%rsp)\n");

static void *gs_page[512] = {[2] = enter, [3] = identify};

static long direct(long number, long a, long b, long c) {
    long result;
    asm volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c)
                 : "rcx", "r11", "memory");
    return result;
}

static void fail(const char *why) {
    fprintf(stderr, "apply_sites: %s\n", why);
    _exit(99);
}

struct target { const char *name; uintptr_t base; const Elf64_Phdr *phdr; int count; };

static int match(struct dl_phdr_info *info, size_t size, void *data) {
    struct target *target = data;
    (void)size;
    if (!strstr(info->dlpi_name, target->name))
        return 0;
    target->base = info->dlpi_addr;
    target->phdr = info->dlpi_phdr;
    target->count = info->dlpi_phnum;
    return 1;
}

static uint8_t *address_of(const struct target *target, uint64_t offset) {
    for (int i = 0; i < target->count; i++) {
        const Elf64_Phdr *p = &target->phdr[i];
        if (p->p_type == PT_LOAD && offset - p->p_offset < p->p_filesz)
            return (uint8_t *)target->base + p->p_vaddr + (offset - p->p_offset);
    }
    fail("an offset lies in no segment");
    return NULL;
}

static void protect(const struct target *target, int prot) {
    for (int i = 0; i < target->count; i++) {
        const Elf64_Phdr *p = &target->phdr[i];
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X))
            continue;
        uintptr_t start = (target->base + p->p_vaddr) & -4096UL;
        uintptr_t end = (target->base + p->p_vaddr + p->p_memsz + 4095) & -4096UL;
        if (direct(SYS_mprotect, start, end - start, prot) != 0)
            fail("mprotect");
    }
}

static uint8_t *map_near(uintptr_t base, size_t size) {
    for (uintptr_t at = (base & -65536UL) - 65536; base - at < 1UL << 30; at -= 65536) {
        void *got = mmap((void *)at, size, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
        if (got == (void *)at)
            return got;
    }
    fail("no room near the library");
    return NULL;
}

static void apply(const char *name, const char *path) {
    struct target target = {.name = name};
    struct stat status;
    if (!dl_iterate_phdr(match, &target))
        return;
    int fd = open(path, O_RDONLY);
    if (fd < 0 || fstat(fd, &status) != 0)
        fail("the table can't be opened");
    const uint8_t *table = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    close(fd);
    const struct header *header = (const void *)table;
    size_t room = (header->stub_bytes + 4095) & -4096UL;
    uint8_t *stubs = map_near(target.base, room), *stub = stubs;
    const uint8_t *at = table + sizeof *header;

    protect(&target, PROT_READ | PROT_WRITE | PROT_EXEC);
    for (uint32_t i = 0; i < header->count; i++) {
        const struct record *record = (const void *)at;
        uint8_t *window = address_of(&target, record->window_off);
        // Byte by byte: memcpy may be in the library that is being patched.
        for (int b = 0; b < record->stub_len; b++)
            stub[b] = record->stub[b];
        for (int f = 0; f < record->fix_count; f++)
            *(int32_t *)(stub + record->fixes[f]) += (int32_t)(window - stub);
        window[0] = 0xe9;
        *(int32_t *)(window + 1) = (int32_t)(stub - (window + 5));
        for (int b = 5; b < record->window_len; b++)
            window[b] = 0xcc;
        stub += (record->stub_len + 15) & -16;
        at += sizeof *record + ((record->stub_len + 3) & -4);
    }
    protect(&target, PROT_READ | PROT_EXEC);
    if (direct(SYS_mprotect, (long)stubs, room, PROT_READ | PROT_EXEC) != 0)
        fail("mprotect of the stubs");
}

__attribute__((constructor)) static void start(void) {
    char *sites = getenv("SITES");
    if (!sites)
        fail("SITES is not set");
    if (direct(SYS_arch_prctl, ARCH_SET_GS, (long)gs_page, 0) != 0)
        fail("arch_prctl");
    char *copy = strdup(sites), *rest = copy;
    for (char *pair; (pair = strsep(&rest, " "));) {
        char *table = strchr(pair, '=');
        if (table) {
            *table = 0;
            apply(pair, table + 1);
        }
    }
    free(copy);
}

__attribute__((destructor)) static void report(void) {
    char *path = getenv("SITES_REPORT");
    int fd = path ? open(path, O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
    if (fd >= 0) {
        dprintf(fd, "%lu\n", (unsigned long)entered);
        close(fd);
    }
}
