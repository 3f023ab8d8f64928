/* Asynchronous input and output through the kernel's own calls. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define SAY(what) (errno = 0, printf("%s: %ld", #what, (long)(what)), printf(" %s\n", strerror(errno)))

int main(void) {
    aio_context_t context = 0, none = 0;
    SAY(syscall(SYS_io_setup, 8, &context));
    SAY(syscall(SYS_io_setup, 0, &none));
    SAY(syscall(SYS_io_setup, 8, NULL));
    int fd = open("file", O_RDWR | O_CREAT, 0600);
    char first[8] = "", rest[8] = "";
    struct iovec parts[2] = {{"abc", 3}, {"defgh", 5}}, wanted[2] = {{first, 2}, {rest, 4}};
    struct iocb write = {.aio_data = 1, .aio_lio_opcode = IOCB_CMD_PWRITEV, .aio_fildes = fd,
                         .aio_buf = (uint64_t)parts, .aio_nbytes = 2};
    struct iocb read = {.aio_data = 2, .aio_lio_opcode = IOCB_CMD_PREADV, .aio_fildes = fd,
                        .aio_buf = (uint64_t)wanted, .aio_nbytes = 2, .aio_offset = 1};
    char all[16] = "";
    struct iocb plain = {.aio_data = 3, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = fd,
                         .aio_buf = (uint64_t)all, .aio_nbytes = 15};
    struct iocb bad = plain, *list[] = {&write}, *more[] = {&read, &plain, &bad}, *wrong[] = {(void *)-1};
    bad.aio_fildes = 77;
    struct io_event events[8];
    SAY(syscall(SYS_io_submit, context, 1, list));
    SAY(syscall(SYS_io_getevents, context, 1, 8, events, NULL));
    printf("%llu %d %lld\n", events[0].data, events[0].obj == (uint64_t)&write, events[0].res);
    SAY(syscall(SYS_io_submit, context, 3, more));
    struct timespec second = {1, 0}, soon = {0, 1000000};
    SAY(syscall(SYS_io_getevents, context, 2, 8, events, &second));
    for (int i = 0; i < 2; i++) {
        int is_read = events[i].obj == (uint64_t)&read;
        printf("%d %d %lld\n", events[i].data == (is_read ? 2 : 3), is_read || events[i].obj == (uint64_t)&plain, events[i].res);
    }
    printf("%s %s %s buffer %d\n", first, rest, all, plain.aio_buf == (uint64_t)all);
    SAY(syscall(SYS_io_submit, context, 1, more + 2));
    SAY(syscall(SYS_io_submit, context, 0, more));
    SAY(syscall(SYS_io_submit, context, -1L, more));
    SAY(syscall(SYS_io_submit, context, 1, wrong));
    SAY(syscall(SYS_io_submit, 0, 1, list));
    SAY(syscall(SYS_io_getevents, context, 1, 8, events, &soon));
    SAY(syscall(SYS_io_getevents, context, 2, 1, events, &soon));
    SAY(syscall(SYS_io_getevents, context, -1L, 1L, events, &soon));
    SAY(syscall(SYS_io_pgetevents, context, 1, 1, events, &soon, NULL));
    SAY(syscall(SYS_io_cancel, context, &read, events));
    SAY(syscall(SYS_io_destroy, context));
    SAY(syscall(SYS_io_destroy, context));
    return 0;
}
