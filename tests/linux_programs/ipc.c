/* System V shared memory, semaphores and queues; POSIX queues. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

union semun { int val; struct semid_ds *buf; unsigned short *array; };

static void nothing(int number) { (void)number; }

static void memory(void) {
    int id = shmget(IPC_PRIVATE, 10000, IPC_CREAT | 0600);
    char *a = shmat(id, NULL, 0), *b = shmat(id, NULL, SHM_RDONLY);
    strcpy(a, "shared");
    printf("shm %d %d %s\n", id >= 0, a != b, b);
    if (!fork()) {
        strcpy(a + 9000, "child");
        _exit(shmdt(a));
    }
    int status;
    wait(&status);
    struct shmid_ds info;
    printf("child %d %s", status, b + 9000);
    printf(" stat %d %d %d %o\n", shmctl(id, IPC_STAT, &info), (int)info.shm_segsz,
           (int)info.shm_nattch, info.shm_perm.mode);
    printf("again %d", shmat(id, a, 0) == (void *)-1 && errno == EINVAL);
    printf(" over %d\n", shmat(id, a, SHM_REMAP) == a);
    printf("detach %d %d", shmdt(a), shmdt(a));
    printf(" %s\n", strerror(errno));
    printf("fixed %d", shmat(id, a, 0) == a);
    printf(" %s remove %d\n", a, shmctl(id, IPC_RMID, NULL));
    mprotect(a, 4096, PROT_READ), mprotect(a + 4096, 4096, PROT_NONE);
    printf("divided %d", shmdt(a));
    shmctl(id, IPC_STAT, &info);
    printf(" %d\n", (int)info.shm_nattch);
    shmdt(b);
    printf("gone %d", shmctl(id, IPC_STAT, &info));
    printf(" %s\n", strerror(errno));
}

static void semaphores(void) {
    int id = semget(IPC_PRIVATE, 3, IPC_CREAT | 0600);
    unsigned short values[3] = {1, 2, 3}, got[3];
    printf("sem %d", semctl(id, 0, SETALL, (union semun){.array = values}));
    printf(" %d", semctl(id, 0, SETVAL, (union semun){.val = 7}));
    semctl(id, 0, GETALL, (union semun){.array = got});
    printf(" %d %d %d %d\n", got[0], got[1], got[2], semctl(id, 0, GETVAL));
    struct semid_ds info;
    printf("stat %d", semctl(id, 0, IPC_STAT, (union semun){.buf = &info}));
    printf(" %d %d %d\n", (int)info.sem_nsems, info.sem_ctime > 1000000000, info.sem_perm.mode & 0777);
    info.sem_perm.mode = 0640;
    printf("set %d", semctl(id, 0, IPC_SET, (union semun){.buf = &info}));
    semctl(id, 0, IPC_STAT, (union semun){.buf = &info});
    printf(" %o\n", info.sem_perm.mode & 0777);
    struct sembuf down = {1, -3, 0}, up = {1, 1, 0};
    struct timespec soon = {0, 20000000};
    printf("timed %d", semtimedop(id, &down, 1, &soon));
    printf(" %s\n", strerror(errno));
    if (!fork()) _exit(semop(id, &up, 1));
    printf("down %d %d\n", semop(id, &down, 1), semctl(id, 1, GETVAL));
    wait(NULL);
    struct sigaction action = {.sa_handler = nothing, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval often = {{1, 0}, {1, 0}}; /* the first may come before the call */
    setitimer(ITIMER_REAL, &often, NULL);
    printf("interrupted %d", semop(id, &down, 1)); /* not restarted, whatever the flags */
    printf(" %s\n", strerror(errno));
    alarm(0);
    printf("remove %d\n", semctl(id, 0, IPC_RMID));
}

static void queues(void) {
    struct { long type; char text[20]; } message = {3, "third"}, got;
    int id = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
    printf("msg %d", msgsnd(id, &message, 6, 0));
    message.type = 1, strcpy(message.text, "first");
    printf(" %d", msgsnd(id, &message, 6, 0));
    printf(" %zd", msgrcv(id, &got, 20, 3, 0));
    printf(" %ld %s", got.type, got.text);
    struct msqid_ds info;
    printf(" stat %d %d", msgctl(id, IPC_STAT, &info), (int)info.msg_qnum);
    printf(" none %zd", msgrcv(id, &got, 20, 9, IPC_NOWAIT));
    printf(" %s remove %d\n", strerror(errno), msgctl(id, IPC_RMID, NULL));
    char name[40];
    sprintf(name, "/anyarch-%d", getpid());
    struct mq_attr wanted = {.mq_maxmsg = 3, .mq_msgsize = 32}, attributes;
    mqd_t queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &wanted);
    if (queue == (mqd_t)-1) {
        printf("mq %s\n", strerror(errno));
        return;
    }
    char text[32];
    unsigned priority;
    printf("mq %d %d", mq_send(queue, "low", 4, 1), mq_send(queue, "high", 5, 9));
    printf(" %zd", mq_receive(queue, text, 32, &priority));
    printf(" %s %u", text, priority);
    printf(" %d %ld %ld\n", mq_getattr(queue, &attributes), attributes.mq_msgsize, attributes.mq_curmsgs);
    mq_receive(queue, text, 32, NULL);
    struct timespec past = {1, 0};
    printf("timed %zd", mq_timedreceive(queue, text, 32, NULL, &past));
    printf(" %s unlink %d\n", strerror(errno), mq_unlink(name));
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    memory();
    semaphores();
    queues();
    return 0;
}
