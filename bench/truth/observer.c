/* An observer that is neither client nor server: it sees the segments of a TCP exchange on the loopback device, with
 * the time at which the kernel took each from its sender.
 *
 *   observer --port SERVER_PORT [--log FILE]       # needs CAP_NET_RAW and CAP_NET_ADMIN
 *
 * The latency of a request is the time of its reply's segment minus that of its own, so request and reply must be one
 * segment each, one at a time on a connection. What is not so is counted as irregular. The kernel stamps the segments
 * (SO_TIMESTAMPNS) and keeps them in a large buffer; this program looks there four times a second, so it takes next to
 * no CPU time from those that it observes. It says "ready" when it sees, and at SIGTERM writes the log (CSV, times on
 * CLOCK_MONOTONIC; `conn` counts client ports in the order of their first request) and a line of JSON, where `dropped`
 * must be 0.
 *
 * What it does not see: the way from the client's clock to the device before a request, and the interrupt, the wake-up
 * and the receive after a reply. Its figures are therefore lower than any client's, by what the client's machine takes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif
#define SNAP 64
#define BATCH 256
#define CONNS 65536
#define FATAL(what) (fprintf(stderr, "observer: %s: %s\n", what, strerror(errno)), exit(2))

typedef struct { uint32_t address; int64_t index, requests, sent; int waiting; } Conn;
typedef struct { int64_t conn, index, request, reply; } Pair;

static Conn conns[CONNS]; /* by client port; loopback addresses of one client rarely share ports, which is checked */
static Pair *pairs;
static size_t found, room, seen_conns;
static int64_t irregular;
static uint16_t port;
static volatile sig_atomic_t stopped;

static int64_t clock_ns(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* CLOCK_MONOTONIC minus CLOCK_REALTIME: the closest of some looks. */
static int64_t to_monotonic(void) {
    int64_t best = INT64_MAX, offset = 0;
    for (int i = 0; i < 50; i++) {
        int64_t a = clock_ns(CLOCK_MONOTONIC), real = clock_ns(CLOCK_REALTIME), b = clock_ns(CLOCK_MONOTONIC);
        if (b - a < best) best = b - a, offset = (a + b) / 2 - real;
    }
    return offset;
}

static void segment(const unsigned char *ip, size_t length, int64_t at) {
    size_t ihl = (ip[0] & 15) * 4;
    if (length < ihl + 20) return;
    const unsigned char *tcp = ip + ihl;
    int from = tcp[0] << 8 | tcp[1], to = tcp[2] << 8 | tcp[3], asks = to == port;
    int payload = (ip[2] << 8 | ip[3]) - (int)ihl - (tcp[12] >> 4) * 4;
    if (payload <= 0) return;
    Conn *c = &conns[asks ? from : to];
    uint32_t address;
    memcpy(&address, ip + (asks ? 12 : 16), 4);
    if (asks) {
        if (!c->address) c->address = address, c->index = seen_conns++;
        if (c->waiting || c->address != address) irregular++;
        c->waiting = 1, c->sent = at;
    } else if (!c->waiting) {
        irregular++;
    } else {
        if (found == room) pairs = realloc(pairs, (room = room * 2 + 65536) * sizeof *pairs);
        pairs[found++] = (Pair){c->index, c->requests++, c->sent, at};
        c->waiting = 0;
    }
}

static void look(int fd, int64_t offset) {
    static unsigned char bytes[BATCH][SNAP], control[BATCH][64];
    struct mmsghdr messages[BATCH];
    struct iovec vectors[BATCH];
    int n;
    do {
        memset(messages, 0, sizeof messages);
        for (int i = 0; i < BATCH; i++) {
            vectors[i] = (struct iovec){bytes[i], SNAP};
            messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1,
                                                  .msg_control = control[i], .msg_controllen = 64};
        }
        n = recvmmsg(fd, messages, BATCH, MSG_DONTWAIT, NULL);
        for (int i = 0; i < n; i++) {
            struct msghdr *m = &messages[i].msg_hdr;
            for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
                struct timespec t;
                if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_TIMESTAMPNS) continue;
                memcpy(&t, CMSG_DATA(c), sizeof t);
                segment(bytes[i], messages[i].msg_len, t.tv_sec * 1000000000LL + t.tv_nsec + offset);
            }
        }
    } while (n == BATCH);
}

static int open_socket(void) {
    /* IPv4 TCP from or to the port; SNAP bytes of it. Of all protocols (ETH_P_ALL): those taps are served before IP is,
     * so a request lies in the buffer before anybody could answer it. */
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 0),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xf0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x40, 0, 8),
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 9),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_TCP, 0, 6),
        BPF_STMT(BPF_LDX | BPF_B | BPF_MSH, 0),
        BPF_STMT(BPF_LD | BPF_H | BPF_IND, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, port, 2, 0),
        BPF_STMT(BPF_LD | BPF_H | BPF_IND, 2),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, port, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SNAP),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL),
                                  .sll_ifindex = if_nametoindex("lo")};
    int yes = 1, large = 256 << 20, fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) FATAL("AF_PACKET");
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter)) FATAL("SO_ATTACH_FILTER");
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &large, sizeof large)) FATAL("SO_RCVBUFFORCE");
    if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &yes, sizeof yes)) FATAL("SO_TIMESTAMPNS");
    if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &yes, sizeof yes)) FATAL("PACKET_IGNORE_OUTGOING");
    if (bind(fd, (struct sockaddr *)&address, sizeof address)) FATAL("bind to lo");
    return fd;
}

static int by_latency(const void *x, const void *y) {
    const Pair *a = x, *b = y;
    int64_t p = a->reply - a->request, q = b->reply - b->request;
    return (p > q) - (p < q);
}

static void stop(int signal) { (void)signal, stopped = 1; }

int main(int argc, char **argv) {
    const char *path = NULL;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--port")) port = (uint16_t)atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--log")) path = argv[i + 1];
    }
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    int fd = open_socket();
    int64_t offset = to_monotonic();
    puts("ready"), fflush(stdout);
    while (!stopped) {
        struct timespec quarter = {0, 250000000};
        nanosleep(&quarter, NULL);
        look(fd, offset);
    }
    look(fd, offset);
    struct tpacket_stats statistics;
    socklen_t length = sizeof statistics;
    if (getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &statistics, &length)) FATAL("PACKET_STATISTICS");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (path && !file) FATAL(path);
    if (file) fprintf(file, "conn,index,request_ns,reply_ns\n");
    for (size_t i = 0; file && i < found; i++)
        fprintf(file, "%ld,%ld,%ld,%ld\n", pairs[i].conn, pairs[i].index, pairs[i].request, pairs[i].reply);
    if (file && fclose(file)) FATAL(path);
    qsort(pairs, found, sizeof *pairs, by_latency);
#define AT(q) (found ? pairs[(size_t)((found - 1) * (q))].reply - pairs[(size_t)((found - 1) * (q))].request : 0)
    printf("{\"segments\": %u, \"dropped\": %u, \"pairs\": %zu, \"irregular\": %ld, \"connections\": %zu, "
           "\"p50_ns\": %ld, \"p90_ns\": %ld, \"p99_ns\": %ld, \"clock_moved_ns\": %ld}\n",
           statistics.tp_packets, statistics.tp_drops, found, irregular, seen_conns, AT(0.5), AT(0.9), AT(0.99),
           to_monotonic() - offset);
    return 0;
}
