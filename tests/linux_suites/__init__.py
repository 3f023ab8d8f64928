"""Public test suites of Linux system calls, run under anyarch and under QEMU side by side."""
