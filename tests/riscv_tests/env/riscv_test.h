/* User-level environment for the public riscv-tests: a static Linux program per source file.
   A passing test exits with status 0, a failing one with the number of its test case. */
#ifndef ANYARCH_RISCV_TEST_H
#define ANYARCH_RISCV_TEST_H

/* clang-format off: these are assembler macros. */
#define TESTNUM gp

#define RVTEST_RV64U  .macro init; csrwi fcsr, 0; .endm
#define RVTEST_RV64UF RVTEST_RV64U

#define RVTEST_CODE_BEGIN   \
        .section .text.init; \
        .balign 64;          \
        .globl _start;       \
_start:                      \
        li TESTNUM, 0;       \
        init

#define RVTEST_CODE_END     \
        unimp

#define EXIT_WITH(status)   \
        mv a0, status;       \
        li a7, 93;           \
        ecall

#define RVTEST_PASS         \
        fence;               \
        EXIT_WITH(zero)

#define RVTEST_FAIL         \
        fence;               \
        EXIT_WITH(TESTNUM)

/* Nothing runs before the test, so no trap vector and no signature are needed. */
#define EXTRA_DATA
#define RVTEST_DATA_BEGIN EXTRA_DATA .balign 16; .global begin_signature; begin_signature:
#define RVTEST_DATA_END   .balign 16; .global end_signature; end_signature:

#endif
