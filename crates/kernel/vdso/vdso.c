/*
 * The vDSO: clocks without entering the kernel.
 *
 * One image, mapped once for all programs; the page before it (`clock_page`) holds what the host
 * says about the time-stamp counter and is written by the kernel alone (mm/vdso.rs has the same
 * layout). Whatever is not answered here goes the way of a patched system call: a jump through the
 * pointer at GS:0x10 with the return address in RCX. There is no `syscall` instruction.
 */

typedef unsigned int u32;
typedef unsigned long u64;

struct timespec { long tv_sec; long tv_nsec; };
struct timeval { long tv_sec; long tv_usec; };
struct timezone { int tz_minuteswest; int tz_dsttime; };

struct clock_page {
	u64 seq;		/* odd while the kernel writes; 0 before it did */
	u64 tsc_base;
	u64 mult;		/* ns = ((tsc - tsc_base) * mult) >> 32 */
	u64 monotonic_ns;
	u64 realtime_ns;
};

extern const volatile struct clock_page clock_page __attribute__((visibility("hidden")));

enum {
	CLOCK_REALTIME = 0,
	CLOCK_MONOTONIC = 1,
	CLOCK_MONOTONIC_RAW = 4,
	CLOCK_REALTIME_COARSE = 5,
	CLOCK_MONOTONIC_COARSE = 6,
	CLOCK_BOOTTIME = 7,
};

enum { SYS_gettimeofday = 96, SYS_time = 201, SYS_clock_gettime = 228, SYS_clock_getres = 229 };

#define NS_PER_S 1000000000ul
#define EXPORT(name) \
	extern __typeof__(__vdso_##name) name __attribute__((weak, alias("__vdso_" #name)))

static inline long enter_kernel(long number, long first, long second)
{
	long result;

	__asm__ volatile("lea 1f(%%rip), %%rcx\n\t"
			 "jmp *%%gs:0x10\n"
			 "1:"
			 : "=a"(result)
			 : "a"(number), "D"(first), "S"(second)
			 : "rcx", "r11", "memory");
	return result;
}

static inline u64 read_tsc(void)
{
	u32 low, high;

	/* The fence keeps the counter from being read before what the program did earlier. */
	__asm__ volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high) :: "memory");
	return (u64)high << 32 | low;
}

/* The clock whose value at tsc_base is in `*base`; 0 if the kernel has not set it yet. */
static inline u64 clock_ns(const volatile u64 *base)
{
	u64 seq, ns, tsc, start;

	do {
		while ((seq = __atomic_load_n(&clock_page.seq, __ATOMIC_ACQUIRE)) & 1)
			__builtin_ia32_pause();
		if (seq == 0)
			return 0;
		tsc = read_tsc();
		start = clock_page.tsc_base;
		ns = 0;
		if (tsc > start)
			ns = (u64)(((unsigned __int128)(tsc - start) * clock_page.mult) >> 32);
		ns += *base;
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while (seq != __atomic_load_n(&clock_page.seq, __ATOMIC_RELAXED));
	return ns;
}

static inline u64 ns_of(int clock)
{
	switch (clock) {
	case CLOCK_REALTIME:
	case CLOCK_REALTIME_COARSE:
		return clock_ns(&clock_page.realtime_ns);
	case CLOCK_MONOTONIC:
	case CLOCK_MONOTONIC_RAW:
	case CLOCK_MONOTONIC_COARSE:
	case CLOCK_BOOTTIME:
		return clock_ns(&clock_page.monotonic_ns);
	default:
		return 0;
	}
}

int __vdso_clock_gettime(int clock, struct timespec *ts)
{
	u64 ns = ns_of(clock);

	if (ns == 0)
		return (int)enter_kernel(SYS_clock_gettime, clock, (long)ts);
	ts->tv_sec = ns / NS_PER_S;
	ts->tv_nsec = ns % NS_PER_S;
	return 0;
}
EXPORT(clock_gettime);

int __vdso_gettimeofday(struct timeval *tv, struct timezone *tz)
{
	u64 ns = clock_ns(&clock_page.realtime_ns);

	if (ns == 0 || tz)
		return (int)enter_kernel(SYS_gettimeofday, (long)tv, (long)tz);
	if (tv) {
		tv->tv_sec = ns / NS_PER_S;
		tv->tv_usec = ns % NS_PER_S / 1000;
	}
	return 0;
}
EXPORT(gettimeofday);

long __vdso_time(long *t)
{
	u64 ns = clock_ns(&clock_page.realtime_ns);
	long s;

	if (ns == 0)
		return enter_kernel(SYS_time, (long)t, 0);
	s = ns / NS_PER_S;
	if (t)
		*t = s;
	return s;
}
EXPORT(time);

int __vdso_clock_getres(int clock, struct timespec *res)
{
	return (int)enter_kernel(SYS_clock_getres, clock, (long)res);
}
EXPORT(clock_getres);

/* The vCPU's number is in its page, which GS points to. There is one node. */
long __vdso_getcpu(u32 *cpu, u32 *node, void *unused)
{
	u64 index;

	(void)unused;
	__asm__ volatile("mov %%gs:0x8, %0" : "=r"(index));
	if (cpu)
		*cpu = (u32)index;
	if (node)
		*node = 0;
	return 0;
}
EXPORT(getcpu);
