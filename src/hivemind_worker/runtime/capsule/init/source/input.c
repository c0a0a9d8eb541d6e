/* Frames that come in: checked byte by byte; when track is lost, found again at a RESUME. */
#include "init.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

uint64_t frames_received;

static uint8_t *buffer;
static size_t capacity, length;
static uint64_t expected = 1; /* next sequence number of this stream */
static size_t scanned;        /* of an incomplete frame: no RESUME begins before this byte */
static bool lost;             /* what comes is not understood: wait for a RESUME */

enum { READ_SIZE = 64 * 1024, RESUME_MIN = 8 + NONCE, RESUME_MAX = 8 + NONCE + MAX_KEY };

void lose_track(const char *why) {
    if (lost) return;
    lost = true;
    fail(ERROR_PROTOCOL, why, NULL, 0, 0);
}

static bool sound(const uint8_t *at, uint32_t payload_length) {
    return crc32_of(crc32_of(0, at, 16), at + HEADER, payload_length) == get32(at + 16);
}

static bool key_fits(const uint8_t *payload, size_t payload_length) {
    if (!spec.key_length) return true;
    return payload_length - RESUME_MIN == spec.key_length && !memcmp(payload + RESUME_MIN, spec.key, spec.key_length);
}

/* 1: a whole RESUME that may speak to us begins at `at`; 0: not; -1: it may when more has come. */
static int resume_at(const uint8_t *at, size_t available) {
    static const uint8_t start[4] = {'H', 'M', VERSION, RESUME};
    if (memcmp(at, start, available < 4 ? available : 4)) return 0;
    if (available < HEADER) return -1;
    uint32_t size = get32(at + 4);
    if (size < RESUME_MIN || size > RESUME_MAX || get64(at + 8) != 1) return 0;
    if (available < HEADER + size) return -1;
    return sound(at, size) && key_fits(at + HEADER, size);
}

/* Drops all before a RESUME if there is one. Else keeps what is needed: when lost, only what may still become one.
 * `scanned` spares looking twice at the bytes of a large frame that comes in many pieces. */
static bool find_resume(void) {
    size_t keep = length;
    if (scanned > length || lost) scanned = 0;
    for (size_t at = scanned; at < length; at++) {
        const uint8_t *next = memchr(buffer + at, 'H', length - at);
        if (!next) break;
        at = (size_t)(next - buffer);
        int found = resume_at(next, length - at);
        if (found > 0) {
            length -= at;
            memmove(buffer, next, length);
            scanned = 0;
            return true;
        }
        if (found < 0 && at < keep) keep = at;
    }
    scanned = keep;
    if (lost) {
        length -= keep;
        memmove(buffer, buffer + keep, length);
        scanned = 0;
    }
    return false;
}

/* Takes one frame off `at`; returns its length, or 0 when it is not whole yet or track was lost. */
static size_t take_frame(const uint8_t *at, size_t available) {
    static const uint8_t start[3] = {'H', 'M', VERSION};
    if (memcmp(at, start, available < 3 ? available : 3)) return lose_track("a frame begins wrongly"), 0;
    if (available < HEADER) return 0;
    uint32_t size = get32(at + 4);
    uint8_t type = at[3];
    if (size > MAX_PAYLOAD) return lose_track("a frame is too long"), 0;
    if (available < HEADER + size) return 0;
    if (!sound(at, size)) return lose_track("a checksum is wrong"), 0;
    if (type == RESUME) {
        if (size < RESUME_MIN || size > RESUME_MAX || get64(at + 8) != 1 || !key_fits(at + HEADER, size))
            return lose_track("a RESUME that is not for this task"), 0;
        expected = 1;
    }
    if (get64(at + 8) != expected) return lose_track("a frame is out of sequence"), 0;
    expected++;
    frames_received++;
    on_frame(type, at + HEADER, size);
    return HEADER + size;
}

static void take_frames(void) {
    for (;;) {
        size_t at = 0;
        while (!lost && at < length) {
            size_t taken = take_frame(buffer + at, length - at);
            if (!taken) break;
            at += taken;
        }
        length -= at;
        if (at) {
            if (length) memmove(buffer, buffer + at, length);
            scanned = 0;
        }
        if (!length || !find_resume()) return;
        lost = false; /* a RESUME stands first now: take it */
    }
}

/* Room for what is coming: a whole frame when its header is there. */
static void make_room(void) {
    size_t need = length + READ_SIZE;
    if (length >= HEADER && !lost) {
        size_t frame = HEADER + (size_t)get32(buffer + 4);
        if (frame > need && frame <= HEADER + MAX_PAYLOAD) need = frame;
    }
    if (need <= capacity) return;
    buffer = realloc(buffer, need);
    if (!buffer) panic("out of memory");
    capacity = need;
}

void read_input(void) {
    make_room();
    ssize_t got = read(0, buffer + length, capacity - length);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        on_disconnect();
        return;
    }
    length += (size_t)got;
    take_frames();
}
