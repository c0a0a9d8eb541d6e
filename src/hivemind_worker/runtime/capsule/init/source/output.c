/* What the task writes: the head goes out live, the rest into a ring that keeps the last bytes. And what it reads. */
#include "init.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 64 * 1024, TURN = 1 << 20 /* bytes per stream and turn, so that a flood cannot starve the rest */ };

struct stream {
    int fd;
    uint64_t total;   /* bytes read from the task */
    uint64_t emitted; /* offset up to which all was put into frames or cut out */
    uint64_t dropped;
    uint8_t *ring;    /* of spec.output_tail bytes, made when first needed; holds what is read and not emitted */
    uint64_t ring_start;
};

static struct stream streams[2] = {{.fd = -1}, {.fd = -1}};
static uint64_t head_left;
static uint8_t chunk[CHUNK];

void output_begin(int out, int err) {
    head_left = spec.output_head;
    streams[0].fd = out;
    streams[1].fd = err;
}

void output_fds(int fds[2]) {
    fds[0] = streams[0].fd;
    fds[1] = streams[1].fd;
}

uint64_t output_total(int which) { return streams[which].total; }
uint64_t output_dropped(int which) { return streams[which].dropped; }

static void emit(struct stream *stream, const uint8_t *data, size_t length) {
    struct frame *frame = frame_new(stream == streams ? OUT : ERR, 8 + length);
    put64(frame_payload(frame), stream->emitted);
    memcpy(frame_payload(frame) + 8, data, length);
    frame_put(frame, 8 + length);
    stream->emitted += length;
}

static size_t smaller(uint64_t a, uint64_t b) { return (size_t)(a < b ? a : b); }

/* Copies the ring's bytes from stream offset `at` on. */
static void from_ring(const struct stream *stream, uint64_t at, uint8_t *to, size_t length) {
    size_t start = (size_t)(at % spec.output_tail), until_end = smaller(length, spec.output_tail - start);
    memcpy(to, stream->ring + start, until_end);
    memcpy(to + until_end, stream->ring, length - until_end);
}

static void into_ring(struct stream *stream, uint64_t at, const uint8_t *data, size_t length) {
    if (!spec.output_tail) return;
    if (!stream->ring) stream->ring = allocate(spec.output_tail);
    if (length > spec.output_tail) {
        data += length - spec.output_tail;
        at += length - spec.output_tail;
        length = (size_t)spec.output_tail;
    }
    size_t start = (size_t)(at % spec.output_tail), until_end = smaller(length, spec.output_tail - start);
    memcpy(stream->ring + start, data, until_end);
    memcpy(stream->ring, data + until_end, length - until_end);
}

static void take(struct stream *stream, const uint8_t *data, size_t length) {
    if (stream->emitted == stream->total && head_left && window_room(8 + length)) {
        size_t now = smaller(length, head_left);
        emit(stream, data, now);
        head_left -= now;
        stream->total += now;
        stream->ring_start = stream->total;
        data += now;
        length -= now;
    }
    into_ring(stream, stream->total, data, length);
    stream->total += length;
    if (stream->total - stream->ring_start > spec.output_tail) stream->ring_start = stream->total - spec.output_tail;
}

void output_read(int which) {
    struct stream *stream = &streams[which];
    for (size_t sum = 0; sum < TURN && stream->fd >= 0;) {
        ssize_t got = read(stream->fd, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) {
            close(stream->fd);
            stream->fd = -1;
            return;
        }
        take(stream, chunk, (size_t)got);
        sum += (size_t)got;
    }
}

static void emit_from_ring(struct stream *stream, uint64_t limit, bool wait_for_room) {
    while (limit && stream->ring_start < stream->total) {
        size_t length = smaller(smaller(CHUNK, limit), stream->total - stream->ring_start);
        if (wait_for_room && !window_room(8 + length)) return;
        from_ring(stream, stream->ring_start, chunk, length);
        stream->emitted = stream->ring_start;
        emit(stream, chunk, length);
        stream->ring_start += length;
        limit -= length;
        head_left -= smaller(head_left, length);
    }
}

/* Head bytes that found no room in the window earlier, as long as nothing of them is lost. */
void output_push(void) {
    for (int which = 0; which < 2; which++) {
        struct stream *stream = &streams[which];
        if (head_left && stream->ring_start == stream->emitted) emit_from_ring(stream, head_left, true);
    }
}

/* All writers are dead: what the pipes still hold, then the tails. The window may grow by the tails: EXITED must not wait. */
void output_finish(void) {
    for (int which = 0; which < 2; which++) {
        struct stream *stream = &streams[which];
        output_read(which); /* one turn holds more than any pipe */
        if (stream->fd >= 0) close(stream->fd);
        stream->fd = -1;
        stream->dropped = stream->ring_start - stream->emitted;
        emit_from_ring(stream, UINT64_MAX, false);
        free(stream->ring);
        stream->ring = NULL;
    }
    stdin_end();
}

/* stdin: a ring of what was sent and not yet taken by the task */

static int input_fd = -1;
static uint8_t *input;
static uint64_t input_taken, input_sent, input_told;
static bool input_closed; /* by the worker: pass on the end when all is taken */

void stdin_begin(int fd) { input_fd = fd; }

int stdin_fd(void) { return input_taken < input_sent || input_closed ? input_fd : -1; }

void stdin_end(void) {
    if (input_fd >= 0) close(input_fd);
    input_fd = -1;
}

static void tell_taken(void) {
    if (input_told == input_taken || (input_taken - input_told < INPUT_WINDOW / 4 && input_taken < input_sent)) return;
    struct frame *frame = frame_new(TAKEN, 8);
    put64(frame_payload(frame), input_taken);
    frame_put(frame, 8);
    input_told = input_taken;
}

bool stdin_take(const uint8_t *data, size_t length) {
    if (input_closed || length > INPUT_WINDOW - (input_sent - input_taken)) return false;
    if (!input) input = allocate(INPUT_WINDOW);
    if (!length) input_closed = true;
    for (size_t i = 0; i < length;) {
        size_t start = (size_t)((input_sent + i) % INPUT_WINDOW), part = smaller(length - i, INPUT_WINDOW - start);
        memcpy(input + start, data + i, part);
        i += part;
    }
    input_sent += length;
    if (input_fd < 0) input_taken = input_sent; /* nobody reads it: the task has ended or has no stdin */
    if (state == RUNNING) stdin_write();
    return true;
}

void stdin_write(void) {
    while (input_fd >= 0 && input_taken < input_sent) {
        size_t start = (size_t)(input_taken % INPUT_WINDOW);
        ssize_t done = write(input_fd, input + start, smaller(input_sent - input_taken, INPUT_WINDOW - start));
        if (done < 0 && errno == EINTR) continue;
        if (done < 0 && errno == EAGAIN) break;
        if (done < 0) {
            stdin_end(); /* the task has closed it: what follows goes nowhere, as with any pipe */
            input_taken = input_sent;
            break;
        }
        input_taken += (uint64_t)done;
    }
    if (input_closed && input_taken == input_sent) stdin_end();
    tell_taken();
}
