/* mosld/train/tensorboard.c - see tensorboard.h.
 *
 * A record is: u64 length, masked crc32c of the length, the bytes, masked crc32c of the bytes; all little-endian. The
 * bytes are an Event: wall_time = 1 (double), step = 2 (varint), file_version = 3 (string) or summary = 5 {value = 1
 * {tag = 1, simple_value = 2 (float)}}. */
#include "mosld/train/tensorboard.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint32_t crc32c(const unsigned char *p, size_t n)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (0x82f63b78u & -(crc & 1));
    }
    return ~crc;
}

static uint32_t masked_crc(const unsigned char *p, size_t n)
{
    uint32_t crc = crc32c(p, n);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

struct message {
    unsigned char bytes[512];
    size_t n;
};

static void put(struct message *m, const void *data, size_t n)
{
    if (n <= sizeof m->bytes - m->n) {
        memcpy(m->bytes + m->n, data, n);
        m->n += n;
    }
}

static void put_little_endian(struct message *m, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) {
        unsigned char b = (unsigned char)(value >> 8 * i);
        put(m, &b, 1);
    }
}

static void put_varint(struct message *m, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        put_little_endian(m, (value & 0x7f) | 0x80, 1);
    put_little_endian(m, value, 1);
}

static void put_bytes(struct message *m, int field, const void *data, size_t n)
{
    put_varint(m, (uint64_t)field << 3 | 2);
    put_varint(m, n);
    put(m, data, n);
}

static void put_wall_time(struct message *m)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    double seconds = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
    uint64_t bits;
    memcpy(&bits, &seconds, 8);
    put_varint(m, 1 << 3 | 1);
    put_little_endian(m, bits, 8);
}

static void write_record(FILE *file, const struct message *event)
{
    struct message head = {.n = 0}, tail = {.n = 0};
    put_little_endian(&head, event->n, 8);
    put_little_endian(&head, masked_crc(head.bytes, 8), 4);
    put_little_endian(&tail, masked_crc(event->bytes, event->n), 4);
    fwrite(head.bytes, 1, head.n, file);
    fwrite(event->bytes, 1, event->n, file);
    fwrite(tail.bytes, 1, tail.n, file);
}

enum rt_status mosld_tensorboard_open(const char *dir, FILE **out, struct rt_error *err)
{
    char path[4096];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(path, sizeof path, "%s/events.out.tfevents.%lld.%d.mosld", dir, (long long)now.tv_sec, (int)getpid());
    *out = fopen(path, "wb");
    if (!*out)
        return rt_fail(err, RT_FAILED, "%s: cannot be written: %s", path, strerror(errno));
    struct message event = {.n = 0};
    put_wall_time(&event);
    put_bytes(&event, 3, "brain.Event:2", 13);
    write_record(*out, &event);
    return RT_OK;
}

void mosld_tensorboard_scalar(FILE *file, const char *tag, uint64_t step, double value)
{
    struct message entry = {.n = 0}, summary = {.n = 0}, event = {.n = 0};
    float f = (float)value;
    uint32_t bits;
    memcpy(&bits, &f, 4);
    put_bytes(&entry, 1, tag, strnlen(tag, 200));
    put_varint(&entry, 2 << 3 | 5);
    put_little_endian(&entry, bits, 4);
    put_bytes(&summary, 1, entry.bytes, entry.n);
    put_wall_time(&event);
    put_varint(&event, 2 << 3);
    put_varint(&event, step);
    put_bytes(&event, 5, summary.bytes, summary.n);
    write_record(file, &event);
}
