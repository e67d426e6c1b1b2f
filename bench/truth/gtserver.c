/* The ground-truth server: it knows when every reply left, and why then.
 *
 * A TCP echo (or HTTP/1.1) server whose replies take as long as it is told, and which writes down what happened to each
 * request, so that bench/trust can hold loadgen's figures against it one by one. It shares no code with loadgen: a
 * mistake in the one should not hide in the other.
 *
 *   gtserver [--protocol echo|http] [--size 64] [--service SPEC | --delay SPEC] [--stall L/N] [--drop P] [--corrupt P]
 *            [--reset P] [--skip N] [--seed N] [--log FILE] [--capacity N]
 *   SPEC: fixed:D  exp:MEAN  bimodal:P,A,B (A with probability P, else B)  trace:FILE (one time a line, again from the
 *         start when it is used up)  drift:A,B,T (from A to B in T, then B)  step:A,B,T (A before T, then B)
 *   times: 250us, 1.5ms, 2s, or nanoseconds
 *
 * --service is one virtual resource in front of which requests queue, first come first served:
 *     start = max(rx, busy_until), done = start + S, busy_until = done.
 * --delay has no queue: start = rx. Nothing is computed meanwhile; the reply is released at `done` by a timer (slack
 * 1 ns, woken SPIN_NS early, the rest is polled). On one connection replies keep the order of requests.
 * --stall: no service starts in the last L of each period N; what would start there starts at the period's end.
 * Periods, drift and step count from `rx` of the first request after --skip. The first N requests (--skip N: the ones
 * by which a client proves its connections) are answered at once, draw nothing, and start no clock.
 * --drop: no reply, ever. --corrupt: one bit of the reply is wrong. --reset: RST instead of the reply.
 * A peer that does not read its replies stops the whole server: this is an instrument, not a server for anybody else.
 *
 * At SIGTERM it writes the log (CSV, CLOCK_MONOTONIC nanoseconds) and a line of JSON on standard output. `conn` counts
 * connections in the order of accept, `index` requests on one of them; `tx` is read right before the reply is handed
 * to the kernel, 0 where there was none. The JSON has its own timer's overrun, the noise of the machine: tx - done, or
 * since the reply before it where many were due at once.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SPIN_NS 50000
#define MAX_REQUEST 8192 /* an HTTP head; an echo request is --size */
#define FATAL(...) (fprintf(stderr, "gtserver: " __VA_ARGS__), fputc('\n', stderr), exit(2))

enum { FIXED, EXP, BIMODAL, TRACE, DRIFT, STEP };
enum { SERVED, SKIPPED, DROPPED, CORRUPTED, RESET, GONE };
static const char *const FATES[] = {"ok", "skipped", "dropped", "corrupted", "reset", "gone"};

typedef struct { int kind; double p; int64_t a, b, t; int64_t *trace; size_t traced, next; } Times;
typedef struct { int fd; int64_t index, requests, last_done; size_t have; unsigned char *input; } Conn;
typedef struct { int64_t conn, index, rx, start, done, tx, service, late; int fate; } Record;
typedef struct { int64_t done; uint64_t order; Conn *conn; size_t record; int fate; unsigned char *reply; } Pending;

static int http, epoll_fd, listen_fd, queued = 1;
static size_t size = 64, skip, capacity = 1 << 20, logged, log_lost, pending, pending_room, conns;
static Times times;
static double drop, corrupt, reset_share;
static int64_t stall, period, origin, busy_until;
static Record *records;
static Pending *heap;
static Conn **all;
static uint64_t rng[2] = {1, 2}, orders;
static const char *log_path;
static volatile sig_atomic_t stopped;
static int64_t requests, fates[6], received_bytes, sent_bytes, k_received, k_acked, k_sent, k_retrans, fins;

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* xorshift128+; in (0, 1), never 0. */
static double uniform(void) {
    uint64_t a = rng[0], b = rng[1];
    rng[0] = b;
    a ^= a << 23;
    rng[1] = a ^ b ^ (a >> 17) ^ (b >> 26);
    return ((double)((rng[1] + b) >> 11) + 0.5) / 9007199254740992.0;
}

static int64_t time_ns(const char *text, char **end) {
    double value = strtod(text, end);
    double unit = 1;
    if (!strncmp(*end, "ns", 2)) *end += 2;
    else if (!strncmp(*end, "us", 2)) unit = 1e3, *end += 2;
    else if (!strncmp(*end, "ms", 2)) unit = 1e6, *end += 2;
    else if (**end == 's') unit = 1e9, *end += 1;
    if (*end == text || value < 0) FATAL("%s is no time", text);
    return llround(value * unit);
}

static void read_trace(Times *t, const char *path) {
    char line[64], *end;
    FILE *file = fopen(path, "r");
    if (!file) FATAL("%s: %s", path, strerror(errno));
    while (fgets(line, sizeof line, file)) {
        t->trace = realloc(t->trace, (t->traced + 1) * sizeof *t->trace);
        t->trace[t->traced++] = time_ns(line, &end);
    }
    fclose(file);
    if (!t->traced) FATAL("%s is empty", path);
}

static Times parse_times(const char *spec) {
    static const char *const names[] = {"fixed:", "exp:", "bimodal:", "trace:", "drift:", "step:"};
    Times t = {0};
    while (t.kind < 6 && strncmp(spec, names[t.kind], strlen(names[t.kind]))) t.kind++;
    if (t.kind == 6) FATAL("%s is no distribution of times", spec);
    char *at = (char *)spec + strlen(names[t.kind]);
    if (t.kind == TRACE) return read_trace(&t, at), t;
    if (t.kind == BIMODAL) t.p = strtod(at, &at), at += *at == ',';
    t.a = time_ns(at, &at);
    if (t.kind >= BIMODAL && *at++ == ',') t.b = time_ns(at, &at);
    if (t.kind >= DRIFT && *at++ == ',') t.t = time_ns(at, &at);
    if (*at || (t.kind >= DRIFT && !t.t)) FATAL("%s is not understood", spec);
    return t;
}

static int64_t draw(int64_t rx) {
    int64_t since = rx - origin;
    switch (times.kind) {
    case EXP: return llround(-(double)times.a * log(uniform()));
    case BIMODAL: return uniform() < times.p ? times.a : times.b;
    case TRACE: return times.trace[times.next++ % times.traced];
    case DRIFT: return since >= times.t ? times.b
                                        : times.a + llround((double)(times.b - times.a) * since / times.t);
    case STEP: return since < times.t ? times.a : times.b;
    default: return times.a;
    }
}

/* Pending replies: a binary heap by `done`, then by order of arrival. */
static int before(const Pending *x, const Pending *y) {
    return x->done != y->done ? x->done < y->done : x->order < y->order;
}

static void push(Pending p) {
    if (pending == pending_room) heap = realloc(heap, (pending_room = pending_room * 2 + 1024) * sizeof *heap);
    size_t at = pending++;
    while (at && before(&p, &heap[(at - 1) / 2])) heap[at] = heap[(at - 1) / 2], at = (at - 1) / 2;
    heap[at] = p;
}

static Pending pop(void) {
    Pending top = heap[0], last = heap[--pending];
    size_t at = 0, child;
    while ((child = 2 * at + 1) < pending) {
        if (child + 1 < pending && before(&heap[child + 1], &heap[child])) child++;
        if (!before(&heap[child], &last)) break;
        heap[at] = heap[child], at = child;
    }
    heap[at] = last;
    return top;
}

/* What the kernel counted. It counts a FIN of the peer as a byte received. */
static void close_conn(Conn *c, int fin) {
    struct tcp_info info;
    socklen_t length = sizeof info;
    if (!getsockopt(c->fd, IPPROTO_TCP, TCP_INFO, &info, &length)) {
        k_received += info.tcpi_bytes_received;
        k_acked += info.tcpi_bytes_acked;
        k_sent += info.tcpi_bytes_sent;
        k_retrans += info.tcpi_total_retrans;
    }
    fins += fin;
    close(c->fd);
    c->fd = -1;
}

static void send_all(Conn *c, const unsigned char *bytes, size_t length) {
    while (length) {
        ssize_t n = send(c->fd, bytes, length, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            struct pollfd p = {c->fd, POLLOUT, 0};
            poll(&p, 1, -1);
        } else if (n < 0) {
            return; /* the peer is gone; its receive will say so */
        } else {
            bytes += n, length -= n, sent_bytes += n;
        }
    }
}

static void answer(Pending p, int64_t at) {
    Record *r = p.record < capacity ? &records[p.record] : &(Record){0};
    static unsigned char *page;
    static size_t head;
    static int64_t last_tx;
    int fate = p.conn->fd < 0 ? GONE : p.fate;
    if (fate == RESET) {
        struct linger now_and_hard = {1, 0};
        setsockopt(p.conn->fd, SOL_SOCKET, SO_LINGER, &now_and_hard, sizeof now_and_hard);
        close_conn(p.conn, 0);
    } else if (fate != GONE && fate != DROPPED) {
        if (http && !page) {
            page = malloc(size + 128);
            head = sprintf((char *)page, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", size);
            memset(page + head, 'x', size);
        }
        if (!http && fate == CORRUPTED) p.reply[size / 2] ^= 1;
        r->tx = at;
        r->late = at - (p.done > last_tx ? p.done : last_tx);
        last_tx = at;
        if (http) send_all(p.conn, page, head + size);
        else send_all(p.conn, p.reply, size);
    }
    r->fate = fate;
    fates[fate]++;
    free(p.reply);
}

static void release_due(void) {
    while (pending) {
        int64_t at = now();
        if (heap[0].done > at) return;
        answer(pop(), at);
    }
}

static void request(Conn *c, int64_t rx, const unsigned char *bytes) {
    int64_t start = rx, done, service = 0;
    int fate = SERVED;
    if ((size_t)requests++ < skip) {
        fate = SKIPPED, done = rx;
    } else {
        if (!origin) origin = rx;
        service = draw(rx);
        double chance = drop + corrupt + reset_share > 0 ? uniform() : 1;
        fate = chance < drop ? DROPPED : chance < drop + corrupt ? CORRUPTED
             : chance < drop + corrupt + reset_share ? RESET : SERVED;
        if (queued && busy_until > start) start = busy_until;
        if (period && (start - origin) % period >= period - stall)
            start += period - (start - origin) % period;
        done = start + service;
        if (queued) busy_until = done;
        if (done < c->last_done) done = c->last_done;
        c->last_done = done;
    }
    Record r = {c->index, c->requests++, rx, start, done, 0, service, 0, GONE};
    if (logged < capacity) records[logged] = r;
    else log_lost++;
    Pending p = {done, orders++, c, logged, fate, http ? NULL : memcpy(malloc(size), bytes, size)};
    logged += logged < capacity;
    if (p.record >= capacity) p.record = capacity; /* nowhere */
    push(p);
}

/* Whole requests in the connection's input; how many bytes they are. */
static size_t whole(const Conn *c, size_t from) {
    if (!http) return c->have - from >= size ? size : 0;
    unsigned char *end = memmem(c->input + from, c->have - from, "\r\n\r\n", 4);
    return end ? end + 4 - (c->input + from) : 0;
}

static void readable(Conn *c) {
    size_t room = (http ? MAX_REQUEST : size < MAX_REQUEST ? MAX_REQUEST : size) - c->have, used = 0, n;
    ssize_t got = c->fd < 0 ? -1 : recv(c->fd, c->input + c->have, room, 0);
    int64_t rx = now();
    if (c->fd < 0 || (got < 0 && errno == EAGAIN)) return;
    if (got <= 0) return close_conn(c, got == 0);
    received_bytes += got;
    c->have += got;
    while ((n = whole(c, used))) request(c, rx, c->input + used), used += n;
    memmove(c->input, c->input + used, c->have -= used);
    if (http && c->have == MAX_REQUEST) FATAL("a request head of more than %d bytes", MAX_REQUEST);
}

static void accept_all(void) {
    int fd, yes = 1;
    while ((fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        Conn *c = calloc(1, sizeof *c);
        *c = (Conn){.fd = fd, .index = conns, .input = malloc(size < MAX_REQUEST ? MAX_REQUEST : size)};
        all = realloc(all, (conns + 1) * sizeof *all);
        all[conns++] = c;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        struct epoll_event event = {EPOLLIN, {.ptr = c}};
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event);
    }
    if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) FATAL("accept: %s", strerror(errno));
}

static void serve(void) {
    struct epoll_event events[256];
    sigset_t open_mask;
    sigemptyset(&open_mask);
    while (!stopped) {
        release_due();
        int64_t left = pending ? heap[0].done - SPIN_NS - now() : 0;
        if (left < 0) left = 0;
        struct timespec t = {left / 1000000000, left % 1000000000};
        int n = epoll_pwait2(epoll_fd, events, 256, pending ? &t : NULL, &open_mask);
        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr) readable(events[i].data.ptr);
            else accept_all();
            release_due();
        }
    }
}

static int by_value(const void *x, const void *y) {
    int64_t a = *(const int64_t *)x, b = *(const int64_t *)y;
    return (a > b) - (a < b);
}

static void write_results(void) {
    FILE *file = log_path ? fopen(log_path, "w") : NULL;
    int64_t *overruns = malloc((logged + 1) * sizeof *overruns), n = 0;
    if (log_path && !file) FATAL("%s: %s", log_path, strerror(errno));
    if (file) fprintf(file, "conn,index,rx_ns,start_ns,done_ns,tx_ns,service_ns,fate\n");
    for (size_t i = 0; i < logged; i++) {
        Record *r = &records[i];
        if (r->tx && r->done > r->rx) overruns[n++] = r->late;
        if (file)
            fprintf(file, "%ld,%ld,%ld,%ld,%ld,%ld,%ld,%s\n", r->conn, r->index, r->rx, r->start, r->done, r->tx,
                    r->service, FATES[r->fate]);
    }
    if (file && fclose(file)) FATAL("%s: %s", log_path, strerror(errno));
    qsort(overruns, n, sizeof *overruns, by_value);
    printf("{\"accepts\": %zu, \"requests\": %ld, \"replies\": %ld, \"skipped\": %ld, \"dropped\": %ld, "
           "\"corrupted\": %ld, \"reset\": %ld, \"gone\": %ld, \"received_bytes\": %ld, \"sent_bytes\": %ld, "
           "\"kernel_received_bytes\": %ld, \"kernel_acked_bytes\": %ld, \"kernel_sent_bytes\": %ld, "
           "\"kernel_retransmissions\": %ld, \"fins\": %ld, \"log_lost\": %zu, \"overruns\": %ld, "
           "\"overrun_p50_ns\": %ld, \"overrun_p99_ns\": %ld, \"overrun_max_ns\": %ld}\n",
           conns, requests, fates[SERVED] + fates[SKIPPED] + fates[CORRUPTED], fates[SKIPPED], fates[DROPPED],
           fates[CORRUPTED], fates[RESET], fates[GONE], received_bytes, sent_bytes, k_received, k_acked, k_sent,
           k_retrans, fins, log_lost, n, n ? overruns[n / 2] : 0, n ? overruns[n * 99 / 100] : 0,
           n ? overruns[n - 1] : 0);
}

static void options(int argc, char **argv) {
    for (int i = 1; i + 1 < argc; i += 2) {
        char *name = argv[i], *value = argv[i + 1], *end = value;
        if (!strcmp(name, "--protocol")) http = !strcmp(value, "http");
        else if (!strcmp(name, "--size")) size = strtoul(value, NULL, 10);
        else if (!strcmp(name, "--service")) times = parse_times(value);
        else if (!strcmp(name, "--delay")) times = parse_times(value), queued = 0;
        else if (!strcmp(name, "--seed")) rng[0] = strtoull(value, NULL, 10) * 0x9E3779B97F4A7C15ULL + 1;
        else if (!strcmp(name, "--drop")) drop = strtod(value, NULL);
        else if (!strcmp(name, "--corrupt")) corrupt = strtod(value, NULL);
        else if (!strcmp(name, "--reset")) reset_share = strtod(value, NULL);
        else if (!strcmp(name, "--skip")) skip = strtoul(value, NULL, 10);
        else if (!strcmp(name, "--log")) log_path = value;
        else if (!strcmp(name, "--capacity")) capacity = strtoul(value, NULL, 10);
        else if (!strcmp(name, "--stall")) {
            stall = time_ns(value, &end);
            if (*end != '/' || (period = time_ns(end + 1, &end)) <= stall) FATAL("--stall L/N with L < N");
        } else FATAL("what is %s?", name);
    }
    if (argc % 2 == 0) FATAL("every option has a value");
}

static void stop(int signal) { (void)signal, stopped = 1; }

int main(int argc, char **argv) {
    options(argc, argv);
    for (int i = 0; i < 100; i++) uniform(); /* seeds that differ in few bits */
    records = calloc(capacity, sizeof *records);
    for (size_t i = 0; i < capacity; i += 32) ((volatile Record *)records)[i].conn = 0; /* no page faults later */
    prctl(PR_SET_TIMERSLACK, 1);
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    sigset_t both;
    sigemptyset(&both), sigaddset(&both, SIGTERM), sigaddset(&both, SIGINT);
    sigprocmask(SIG_BLOCK, &both, NULL);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof address;
    if (bind(listen_fd, (struct sockaddr *)&address, length) || listen(listen_fd, 4096))
        FATAL("listen: %s", strerror(errno));
    getsockname(listen_fd, (struct sockaddr *)&address, &length);
    struct epoll_event event = {EPOLLIN, {.ptr = NULL}};
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listen_fd, &event);
    printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    serve();
    for (size_t i = 0; i < conns; i++)
        if (all[i]->fd >= 0) close_conn(all[i], 0);
    write_results();
    return 0;
}
