/* The load generator of the fan-out benches: reads many sockets, writes one, and checks for missing, repeated and unordered
 * messages.
 *
 * It implements no protocol. bench.fanout opens and authenticates every socket and passes the file descriptors. Each message
 * carries a stamp ^SSSSSSSSSS:TTTTTTTTTTTTTTTTTTT: its number, and the monotonic time in ns at which it was written or, at a
 * rate, was due. Received bytes are searched for stamps only. Every reader must get every number once and in order.
 *
 *   load SOCKETS TEXTS window|rate AMOUNT WARM_S SECONDS [PID ...]
 *
 * SOCKETS is a file of descriptors: the publisher's, then the readers'. TEXTS is a file of texts, each after its size and a line
 * feed: the keep-alive of a reader, the keep-alive of the publisher, then the encoded message of each channel. The channels are
 * published to in turn. window: AMOUNT messages are in flight to the slowest reader. rate: AMOUNT messages per second. Prints one
 * line of key=value; `missing` counts messages not received within 5 s after the last byte. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STAMP 31 /* ^ + 10 digits + : + 19 digits */
#define MAX_CHANNELS 64
#define MAX_PIDS 8
#define MAX_READERS 20000
#define HISTOGRAM_US 4000000
#define SILENCE_NS 5000000000ull
#define ALIVE_NS 5000000000ull

typedef struct { int fd; uint32_t expected; uint64_t got; int carried; uint8_t carry[STAMP]; } Reader;
typedef struct { uint8_t *text; int size, stamp; } Text;

static Reader *readers;
static Text alive_reader, alive_publisher, messages[MAX_CHANNELS];
static int subscribers, channels, publisher;
static uint64_t received, bytes, reads, wrong, measured, slowest_us;
static uint32_t published, *histogram;
static uint32_t least; static int at_least; /* lowest number expected by a reader, and how many readers expect it */
static int measuring;

static uint64_t now_ns(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }
static void die(const char *what) { perror(what); exit(2); }
static void quit(const char *what) { fprintf(stderr, "%s\n", what); exit(2); }

static void digits(uint8_t *at, uint64_t value, int count) { while (count--) { at[count] = '0' + value % 10; value /= 10; } }
static uint64_t number(const uint8_t *at, int count) { uint64_t v = 0; for (int i = 0; i < count; i++) v = v * 10 + (at[i] - '0'); return v; }

static void load_sockets(const char *path) {
    FILE *file = fopen(path, "r"); if (!file) die(path);
    readers = calloc(MAX_READERS, sizeof *readers);
    if (fscanf(file, "%d", &publisher) != 1) quit("no publisher");
    while (subscribers < MAX_READERS && fscanf(file, "%d", &readers[subscribers].fd) == 1) subscribers++;
    fclose(file); if (!subscribers) quit("no readers");
}

static int next_text(FILE *file, Text *text) {
    if (fscanf(file, "%d", &text->size) != 1) return 0;
    fgetc(file); text->text = malloc(text->size + 1);
    if ((int)fread(text->text, 1, text->size, file) != text->size) quit("a text is cut short");
    return 1;
}

static void load_texts(const char *path) {
    FILE *file = fopen(path, "rb"); if (!file) die(path);
    if (!next_text(file, &alive_reader) || !next_text(file, &alive_publisher)) quit("nothing that keeps sockets alive");
    while (channels < MAX_CHANNELS && next_text(file, &messages[channels])) {
        Text *t = &messages[channels++]; uint8_t *stamp = memchr(t->text, '^', t->size);
        if (!stamp) quit("a message without a stamp");
        t->stamp = stamp - t->text;
    }
    fclose(file); if (!channels) quit("no messages");
}

static void find_least(void) {
    least = UINT32_MAX;
    for (int i = 0; i < subscribers; i++) {
        if (readers[i].expected < least) { least = readers[i].expected; at_least = 0; }
        if (readers[i].expected == least) at_least++;
    }
}

static void saw(Reader *reader, const uint8_t *stamp, uint64_t now) {
    uint32_t seq = number(stamp + 1, 10);
    if (seq != reader->expected) wrong++;
    uint32_t before = reader->expected; reader->expected = seq + 1;
    if (before == least && --at_least == 0) find_least();
    reader->got++; received++;
    if (!measuring) return;
    uint64_t sent = number(stamp + 12, 19), us = now > sent ? (now - sent) / 1000 : 0;
    if (us > slowest_us) slowest_us = us;
    histogram[us < HISTOGRAM_US ? us : HISTOGRAM_US - 1]++; measured++;
}

/* A ^ may also be a byte of a frame's length, so the bytes after it must look like a stamp. Returns where to look on, or -1 when what
 * is left may be the beginning of a stamp. */
static int at_caret(Reader *reader, const uint8_t *data, int at, int size, uint64_t now) {
    int left = size - at;
    for (int i = 1; i < STAMP && i < left; i++)
        if (i == 11 ? data[at + i] != ':' : data[at + i] < '0' || data[at + i] > '9') return at + 1;
    if (left < STAMP) return -1;
    saw(reader, data + at, now); return at + STAMP;
}

static void scan(Reader *reader, const uint8_t *data, int size, uint64_t now) {
    int at = 0;
    if (reader->carried) { /* a stamp may have begun in the previous read: join both parts */
        uint8_t joint[2 * STAMP]; int had = reader->carried, more = size < STAMP ? size : STAMP;
        memcpy(joint, reader->carry, had); memcpy(joint + had, data, more); reader->carried = 0;
        int i = 0;
        while (i < had) {
            if (joint[i] != '^') { i++; continue; }
            int next = at_caret(reader, joint, i, had + more, now);
            if (next < 0) { reader->carried = had + more - i; memmove(reader->carry, joint + i, reader->carried); return; }
            i = next;
        }
        at = i - had;
    }
    while (at < size) {
        const uint8_t *caret = memchr(data + at, '^', size - at); if (!caret) return;
        int next = at_caret(reader, data, caret - data, size, now);
        if (next < 0) { reader->carried = data + size - caret; memcpy(reader->carry, caret, reader->carried); return; }
        at = next;
    }
}

static void cpu_s(int pids, char **pid, double *used) {
    for (int i = 0; i < pids; i++) {
        clockid_t clock; struct timespec t; used[i] = 0;
        if (clock_getcpuclockid(atoi(pid[i]), &clock) || clock_gettime(clock, &t)) die("a server's clock");
        used[i] = t.tv_sec + t.tv_nsec * 1e-9;
    }
}

static double own_cpu_s(void) { struct timespec t; clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); return t.tv_sec + t.tv_nsec * 1e-9; }

static uint64_t percentile(double share) {
    uint64_t wanted = measured * share, seen = 0;
    for (uint32_t us = 0; us < HISTOGRAM_US; us++) { seen += histogram[us]; if (seen > wanted) return us; }
    return slowest_us;
}

/* The next write is built in `out`, with as many messages as the window allows. */
static uint8_t out[1 << 20]; static int out_size, out_at;

static int room(int size) {
    if (out_at == out_size) out_at = out_size = 0;
    return out_size + size <= (int)sizeof out;
}

static int build(uint64_t written) {
    Text *t = &messages[published % channels];
    if (!room(t->size)) return 0;
    memcpy(out + out_size, t->text, t->size);
    digits(out + out_size + t->stamp + 1, published, 10);
    digits(out + out_size + t->stamp + 12, written, 19);
    out_size += t->size; published++;
    return 1;
}

static void write_some(void) {
    while (out_at < out_size) {
        int sent = send(publisher, out + out_at, out_size - out_at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) { if (errno == EAGAIN || errno == EINTR) return; die("publisher"); }
        out_at += sent;
    }
}

static void keep_alive(void) {
    if (alive_publisher.size && room(alive_publisher.size)) { memcpy(out + out_size, alive_publisher.text, alive_publisher.size); out_size += alive_publisher.size; }
    if (alive_reader.size) for (int i = 0; i < subscribers; i++) send(readers[i].fd, alive_reader.text, alive_reader.size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

static void watch(int poll, int fd, uint32_t who) {
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = who};
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    if (epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event)) die("epoll_ctl");
}

static void read_some(int poll, int64_t wait_ns) {
    static uint8_t data[1 << 18]; static struct epoll_event events[1024];
    struct timespec wait = {wait_ns / 1000000000, wait_ns % 1000000000};
    int ready = epoll_pwait2(poll, events, 1024, &wait, NULL);
    for (int i = 0; i < ready; i++) {
        uint32_t who = events[i].data.u32; int fd = who == UINT32_MAX ? publisher : readers[who].fd;
        int size = recv(fd, data, sizeof data, MSG_DONTWAIT);
        if (size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR)) { fprintf(stderr, "socket %d (reader %d) ended after %u published\n", fd, (int)who, published); exit(3); }
        if (size > 0 && who != UINT32_MAX) { bytes += size; reads++; scan(&readers[who], data, size, now_ns()); } /* the publisher's replies are discarded */
    }
}

int main(int argc, char **argv) {
    if (argc < 7 || argc > 7 + MAX_PIDS) quit("usage: load SOCKETS TEXTS window|rate AMOUNT WARM_S SECONDS [PID ...]");
    load_sockets(argv[1]); load_texts(argv[2]);
    int by_rate = !strcmp(argv[3], "rate"); double amount = atof(argv[4]), warm_ns = atof(argv[5]) * 1e9, run_ns = atof(argv[6]) * 1e9;
    int pids = argc - 7; char **pid = argv + 7; double cpu_begin[MAX_PIDS], cpu_end[MAX_PIDS], own = 0;
    histogram = calloc(HISTOGRAM_US, sizeof *histogram);
    int poll = epoll_create1(0);
    for (int i = 0; i < subscribers; i++) watch(poll, readers[i].fd, i);
    watch(poll, publisher, UINT32_MAX); find_least();
    uint64_t start = now_ns(), begin = 0, end = 0, moved = start, seen = 0, alive = start;
    uint64_t got = 0, got_bytes = 0, got_reads = 0; uint32_t sent = 0;
    for (;;) {
        uint64_t now = now_ns();
        if (!begin && now - start > warm_ns) { begin = now; measuring = 1; got = received; got_bytes = bytes; got_reads = reads; sent = published; cpu_s(pids, pid, cpu_begin); own = own_cpu_s(); }
        if (begin && !end && now - begin > run_ns) { end = now; measuring = 0; got = received - got; got_bytes = bytes - got_bytes; got_reads = reads - got_reads; sent = published - sent; cpu_s(pids, pid, cpu_end); own = own_cpu_s() - own; }
        if (received != seen) { seen = received; moved = now; }
        if (end && (received >= (uint64_t)published * subscribers || now - moved > SILENCE_NS)) break;
        if (!end && now - moved > SILENCE_NS) quit("nothing came for 5 s");
        if (now - alive > ALIVE_NS) { alive = now; keep_alive(); }
        int64_t wait = 1000000;
        if (!end && by_rate) {
            uint64_t due;
            while ((due = start + (uint64_t)(published * 1e9 / amount)) <= now && build(due));
            wait = due > now ? (int64_t)(due - now) : 0; if (wait > 1000000) wait = 1000000;
        } else if (!end) {
            for (uint32_t until = least + amount; published < until && build(now););
        }
        write_some();
        if (out_at < out_size) wait = 0;
        read_some(poll, wait);
    }
    uint64_t missing = 0; for (int i = 0; i < subscribers; i++) missing += published - readers[i].got;
    double elapsed = (end - begin) / 1e9;
    printf("deliveries_per_s=%.0f published_per_s=%.0f published=%u wrong=%llu missing=%lld bytes=%.1f messages_a_read=%.1f load_cores=%.3f p50_us=%llu p99_us=%llu max_us=%llu cores=",
           got / elapsed, sent / elapsed, published, (unsigned long long)wrong, (long long)missing, got ? got_bytes / (double)got : 0, got_reads ? got / (double)got_reads : 0, own / elapsed,
           (unsigned long long)percentile(0.5), (unsigned long long)percentile(0.99), (unsigned long long)slowest_us);
    for (int i = 0; i < pids; i++) printf("%s%.4f", i ? "," : "", (cpu_end[i] - cpu_begin[i]) / elapsed);
    printf("\n");
    return wrong || missing ? 4 : 0;
}
