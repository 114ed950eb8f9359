/* The load of the fan-out bench: reads many sockets, writes one, and checks that nothing is missing or out of order.
 *
 * It speaks no protocol. bench/fanout opens and greets every socket and hands them over as file descriptors; each message
 * carries a stamp ^SSSSSSSSSS:TTTTTTTTTTTTTTTTTTT (its number and the monotonic time in ns at which it was written), which is
 * all that is looked for in what comes back.
 *
 *   load FIRST_SUBSCRIBER SUBSCRIBERS CHANNELS PUBLISHER TEMPLATE_FILE MODE AMOUNT SECONDS [PID ...]
 *
 * Subscriber i gets channel i % CHANNELS, or every channel where CHANNELS is negative (then -CHANNELS of them in turn, each
 * message on one). MODE window: AMOUNT messages may be on their way. MODE rate: AMOUNT messages a second. The template file holds
 * one message for each channel, separated by a byte 0, as the publisher must write it. Prints one line of key=value. */
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

#define STAMP 31           /* ^ + 10 digits + : + 19 digits */
#define MAX_CHANNELS 64
#define WARM_S 1.0
#define STALL_S 10

typedef struct { uint32_t expected; uint64_t got; int carried; uint8_t carry[STAMP]; } Reader;
typedef struct { uint8_t *text; int size, stamp; } Template;

static Reader *readers;
static Template templates[MAX_CHANNELS];
static int first, subscribers, channels, all_channels, publisher;
static uint64_t received, wrong, measured;
static uint32_t published;
static uint32_t *histogram; /* by microsecond, up to 4 s */
static uint64_t slowest_us;
static int measuring;

static uint64_t now_ns(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec * 1000000000ull + t.tv_nsec; }
static void die(const char *what) { perror(what); exit(2); }

static void digits(uint8_t *at, uint64_t value, int count) { while (count--) { at[count] = '0' + value % 10; value /= 10; } }
static uint64_t number(const uint8_t *at, int count) { uint64_t v = 0; for (int i = 0; i < count; i++) v = v * 10 + (at[i] - '0'); return v; }

static void load_templates(const char *path) {
    static uint8_t buffer[1 << 20];
    int file = open(path, O_RDONLY); if (file < 0) die(path);
    int size = read(file, buffer, sizeof buffer - 1); close(file);
    uint8_t *at = buffer, *end = buffer + size;
    for (int i = 0; i < channels; i++) {
        uint8_t *stop = memchr(at, 0, end - at); if (!stop) stop = end;
        templates[i].text = at; templates[i].size = stop - at;
        uint8_t *stamp = memchr(at, '^', stop - at); if (!stamp) { fprintf(stderr, "no stamp in template %d\n", i); exit(2); }
        templates[i].stamp = stamp - at; at = stop + 1;
    }
}

/* A message's number counts over all channels; a subscriber of one channel sees every CHANNELS-th of them. */
static void saw(Reader *reader, const uint8_t *stamp, uint64_t now) {
    uint32_t seq = number(stamp + 1, 10);
    if (seq != reader->expected) wrong++;
    reader->expected = seq + (all_channels ? 1 : channels);
    reader->got++; received++;
    if (!measuring) return;
    uint64_t sent = number(stamp + 12, 19), us = now > sent ? (now - sent) / 1000 : 0;
    if (us > slowest_us) slowest_us = us;
    histogram[us < 4000000 ? us : 3999999]++; measured++;
}

static void scan(Reader *reader, const uint8_t *data, int size, uint64_t now) {
    int at = 0;
    if (reader->carried) {
        int more = STAMP - reader->carried; if (more > size) more = size;
        memcpy(reader->carry + reader->carried, data, more); reader->carried += more; at = more;
        if (reader->carried < STAMP) return;
        saw(reader, reader->carry, now); reader->carried = 0;
    }
    while (at < size) {
        const uint8_t *stamp = memchr(data + at, '^', size - at); if (!stamp) return;
        int left = data + size - stamp;
        if (left < STAMP) { memcpy(reader->carry, stamp, left); reader->carried = left; return; }
        saw(reader, stamp, now); at = stamp - data + STAMP;
    }
}

static uint32_t slowest_reader(void) {
    uint32_t least = UINT32_MAX;
    for (int i = 0; i < subscribers; i++) if (readers[i].expected < least) least = readers[i].expected;
    return least;
}

static double cpu_s(int pids, char **pid) {
    double total = 0;
    for (int i = 0; i < pids; i++) {
        char path[64], text[2048]; snprintf(path, sizeof path, "/proc/%s/stat", pid[i]);
        FILE *file = fopen(path, "r"); if (!file) continue;
        int size = fread(text, 1, sizeof text - 1, file); text[size] = 0; fclose(file);
        unsigned long user, system; char *close = strrchr(text, ')');
        if (close && sscanf(close + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system) == 2)
            total += (user + system) / (double)sysconf(_SC_CLK_TCK);
    }
    return total;
}

static uint64_t percentile(double share) {
    uint64_t wanted = measured * share, seen = 0;
    for (uint32_t us = 0; us < 4000000; us++) { seen += histogram[us]; if (seen > wanted) return us; }
    return slowest_us;
}

/* What is to be written next is built in `out`, so that one write carries as many messages as may go. */
static uint8_t out[1 << 20]; static int out_size, out_at;

static void build(uint32_t may) {
    if (out_at == out_size) out_at = out_size = 0;
    uint64_t now = now_ns();
    for (uint32_t i = 0; i < may; i++) {
        Template *t = &templates[published % channels];
        if (out_size + t->size > (int)sizeof out) return;
        memcpy(out + out_size, t->text, t->size);
        digits(out + out_size + t->stamp + 1, published, 10);
        digits(out + out_size + t->stamp + 12, now, 19);
        out_size += t->size; published++;
    }
}

static void write_some(void) {
    while (out_at < out_size) {
        int sent = send(publisher, out + out_at, out_size - out_at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0) { if (errno == EAGAIN || errno == EINTR) return; die("publisher"); }
        out_at += sent;
    }
}

int main(int argc, char **argv) {
    if (argc < 9) { fprintf(stderr, "usage: load FIRST SUBSCRIBERS CHANNELS PUBLISHER TEMPLATES window|rate AMOUNT SECONDS [PID ...]\n"); return 2; }
    first = atoi(argv[1]); subscribers = atoi(argv[2]); channels = atoi(argv[3]); publisher = atoi(argv[4]);
    if (channels < 0) { all_channels = 1; channels = -channels; }
    load_templates(argv[5]);
    int by_rate = !strcmp(argv[6], "rate"); double amount = atof(argv[7]), seconds = atof(argv[8]);
    int pids = argc - 9; char **pid = argv + 9;
    readers = calloc(subscribers, sizeof *readers); histogram = calloc(4000000, sizeof *histogram);
    int poll = epoll_create1(0);
    for (int i = 0; i < subscribers; i++) {
        readers[i].expected = all_channels ? 0 : i % channels;
        fcntl(first + i, F_SETFL, fcntl(first + i, F_GETFL) | O_NONBLOCK);
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        if (epoll_ctl(poll, EPOLL_CTL_ADD, first + i, &event)) die("epoll_ctl");
    }
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = UINT32_MAX}; /* what the publisher is told is read and dropped */
    if (epoll_ctl(poll, EPOLL_CTL_ADD, publisher, &event)) die("epoll_ctl publisher");
    static uint8_t data[1 << 18]; static struct epoll_event events[1024];
    uint64_t start = now_ns(), begin = 0, end = 0, last_moved = start, last_received = 0, begin_received = 0;
    uint32_t begin_published = 0; double begin_cpu = 0;
    for (;;) {
        uint64_t now = now_ns();
        if (!begin && now - start > WARM_S * 1e9) { begin = now; measuring = 1; begin_received = received; begin_published = published; begin_cpu = cpu_s(pids, pid); }
        if (begin && now - begin > seconds * 1e9) { end = now; break; }
        if (received != last_received) { last_received = received; last_moved = now; }
        else if (now - last_moved > STALL_S * 1000000000ull) { fprintf(stderr, "nothing came for %d s\n", STALL_S); return 3; }
        if (by_rate) { uint64_t due = (now - start) / 1e9 * amount; if (due > published) build(due - published > 4096 ? 4096 : due - published); }
        else { uint32_t done = slowest_reader(); if (published < done + amount) build(done + amount - published); }
        write_some();
        int wait = by_rate ? 0 : 1;
        int ready = epoll_wait(poll, events, 1024, wait);
        for (int i = 0; i < ready; i++) {
            uint32_t who = events[i].data.u32; int fd = who == UINT32_MAX ? publisher : first + (int)who;
            int size = recv(fd, data, sizeof data, MSG_DONTWAIT);
            if (size == 0 || (size < 0 && errno != EAGAIN && errno != EINTR)) { fprintf(stderr, "socket %d (reader %d) ended after %u published\n", fd, (int)who, published); return 3; }
            if (size > 0 && who != UINT32_MAX) scan(&readers[who], data, size, now_ns());
        }
    }
    double elapsed = (end - begin) / 1e9, cpu = cpu_s(pids, pid) - begin_cpu; uint64_t got = received - begin_received;
    printf("deliveries_per_s=%.0f published_per_s=%.0f wrong=%llu cores=%.3f us_cpu_per_delivery=%.3f p50_us=%llu p99_us=%llu max_us=%llu\n",
           got / elapsed, (published - begin_published) / elapsed, (unsigned long long)wrong, cpu / elapsed, got ? cpu * 1e6 / got : 0,
           (unsigned long long)percentile(0.5), (unsigned long long)percentile(0.99), (unsigned long long)slowest_us);
    return wrong ? 4 : 0;
}
