/* The least that a client can do, as a yardstick for waking up: one connection, a request at each due time, sleep until
 * the reply is there, look at the clock. What it measures beyond the server's time is the kernel's and the machine's.
 *
 *   bareclient PORT RATE REQUESTS SIZE >LOG        # CSV in the form of loadgen's --request-log
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv) {
    if (argc != 5) return fprintf(stderr, "bareclient PORT RATE REQUESTS SIZE\n"), 2;
    int64_t rate = atoll(argv[2]), requests = atoll(argv[3]), size = atoll(argv[4]), yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1])),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0), epoll_fd = epoll_create1(0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address)) return perror("bareclient: connect"), 2;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(int));
    struct epoll_event event = {EPOLLIN, {.fd = fd}};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    prctl(PR_SET_TIMERSLACK, 1);
    char *bytes = calloc(1, size);
    int64_t *times = calloc(requests, 3 * sizeof *times), begin = now() + 10000000;
    for (int64_t k = 0; k < requests; k++) {
        int64_t due = begin + k * 1000000000 / rate, got = 0;
        struct timespec t = {due / 1000000000, due % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
        times[3 * k] = due, times[3 * k + 1] = now();
        if (send(fd, bytes, size, MSG_NOSIGNAL) != size) return perror("bareclient: send"), 2;
        while (got < size) {
            epoll_wait(epoll_fd, &event, 1, -1);
            ssize_t n = recv(fd, bytes, size - got, 0);
            if (n <= 0) return fprintf(stderr, "bareclient: the server is gone\n"), 2;
            got += n;
        }
        times[3 * k + 2] = now();
    }
    printf("slot,due_ns,sent_ns,received_ns,outcome\n");
    for (int64_t k = 0; k < requests; k++)
        printf("0,%ld,%ld,%ld,ok\n", times[3 * k], times[3 * k + 1], times[3 * k + 2]);
    return 0;
}
