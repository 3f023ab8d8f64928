/* What a handler sees and changes: vectors, flags, pc; a restorer that was not asked for; faults. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static volatile int count;
static sigjmp_buf back;

static void plain(int signum) {
    count += signum;
}

static struct fpsimd_context *floats(ucontext_t *context) {
    return (struct fpsimd_context *)context->uc_mcontext.__reserved;
}

static void change(int signum, siginfo_t *info, void *opaque) {
    ucontext_t *context = opaque;
    struct fpsimd_context *fp = floats(context);
    printf("record %x %u flags %llx x20 %llx\n", fp->head.magic, fp->head.size,
           (unsigned long long)context->uc_mcontext.pstate >> 28,
           (unsigned long long)context->uc_mcontext.regs[20]);
    printf("v9 %llx fpsr %x fpcr %x\n", (unsigned long long)fp->vregs[9], fp->fpsr, fp->fpcr);
    fp->vregs[9] = 77;
    context->uc_mcontext.regs[20] = 88;
    context->uc_mcontext.pstate = 0x20000000;
    context->uc_mcontext.pc += 4;
    __asm__ volatile("movi v9.16b, 1\n msr fpsr, xzr" ::: "v9");
}

static void fault(int signum, siginfo_t *info, void *opaque) {
    printf("signal %d code %d address %lx\n", signum, info->si_code, (long)info->si_addr);
    siglongjmp(back, 1);
}

int main(void) {
    struct {
        void (*handler)(int);
        unsigned long flags;
        void *restorer;
        unsigned long mask;
    } action = {plain, 0, (void *)0x1234, 0};
    syscall(SYS_rt_sigaction, SIGUSR1, &action, NULL, 8);
    raise(SIGUSR1);
    printf("returned %d\n", count == SIGUSR1);

    struct sigaction with_info = {.sa_sigaction = change, .sa_flags = SA_SIGINFO};
    sigaction(SIGTRAP, &with_info, NULL);
    uint64_t v9, x20, flags, fpsr;
    __asm__ volatile(
        "mov x20, 0x5678\n movi d9, 0\n ins v9.d[0], x20\n msr fpsr, xzr\n fmov d0, 1.0\n fmov d1, 3.0\n"
        "fdiv d0, d0, d1\n cmp xzr, xzr\n brk 1\n"
        "mrs %2, nzcv\n mrs %3, fpsr\n umov %0, v9.d[0]\n mov %1, x20\n"
        : "=&r"(v9), "=&r"(x20), "=&r"(flags), "=&r"(fpsr)
        :
        : "x20", "v0", "v1", "v9", "cc", "memory");
    printf("v9 %llu x20 %llu flags %llx fpsr %llx\n", (unsigned long long)v9,
           (unsigned long long)x20, (unsigned long long)flags >> 28, (unsigned long long)fpsr);

    with_info.sa_sigaction = fault;
    for (int signum = 1; signum < 32; signum++)
        if (signum == SIGBUS || signum == SIGSEGV || signum == SIGILL) sigaction(signum, &with_info, NULL);
    if (!sigsetjmp(back, 1)) __asm__ volatile("ldxr x0, [%0]" ::"r"(0x10001L) : "x0");
    if (!sigsetjmp(back, 1)) __asm__ volatile("ldr x0, [%0]" ::"r"(0xab00000000001000L) : "x0");
    if (!sigsetjmp(back, 1)) __asm__ volatile("str q0, [%0]" ::"r"(8L) : "memory");
    unsigned long hwcap = getauxval(AT_HWCAP);
    printf("fp %d crypto %lx uscat %lu sve %lu\n", (int)(hwcap & 3), hwcap >> 3 & 0x1F, hwcap >> 25 & 1,
           hwcap >> 22 & 1);
    return 0;
}
