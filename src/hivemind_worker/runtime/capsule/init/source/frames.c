/* Frames that go out: numbered, checksummed, kept in a window until acknowledged, written without ever blocking. */
#include "init.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

uint64_t last_sequence, exited_sequence, done_sequence;

static struct frame *first, *last;      /* the window, oldest first */
static struct frame *sending;           /* in the window; NULL: all of it is written */
struct queue {
    struct frame *first, *last;
};
static struct queue control, tunnel;    /* unnumbered: written once, never repeated */
static struct queue *writing;           /* the one whose first frame is being written; NULL: the window's */
static size_t written;                  /* of the frame being written */
static bool tunnels_wait;               /* it was a tunnel's turn last */
size_t tunnel_bytes;
static uint64_t kept_bytes;
static uint64_t written_sequence;       /* last one written whole on this stream */
static bool peer_deaf;                  /* fd 1 is broken */
static struct frame *spare;             /* one large frame for reuse: spares the kernel clearing pages */
static size_t spare_count;

static uint32_t crc_table[8][256];

static void crc_setup(void) {
    for (uint32_t n = 0; n < 256; n++) {
        uint32_t c = n;
        for (int k = 0; k < 8; k++) c = c & 1 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
        crc_table[0][n] = c;
    }
    for (uint32_t n = 0; n < 256; n++)
        for (int k = 1; k < 8; k++) crc_table[k][n] = crc_table[0][crc_table[k - 1][n] & 0xFF] ^ (crc_table[k - 1][n] >> 8);
}

/* CRC-32 as zlib computes it, eight bytes at a time (Intel's slicing-by-8). */
uint32_t crc32_of(uint32_t crc, const uint8_t *data, size_t length) {
    if (!crc_table[0][1]) crc_setup();
    crc = ~crc;
    for (; length >= 8; data += 8, length -= 8) {
        uint32_t low = get32(data) ^ crc, high = get32(data + 4);
        crc = crc_table[7][low & 0xFF] ^ crc_table[6][(low >> 8) & 0xFF] ^ crc_table[5][(low >> 16) & 0xFF] ^
              crc_table[4][low >> 24] ^ crc_table[3][high & 0xFF] ^ crc_table[2][(high >> 8) & 0xFF] ^
              crc_table[1][(high >> 16) & 0xFF] ^ crc_table[0][high >> 24];
    }
    for (; length; length--) crc = crc_table[0][(crc ^ *data++) & 0xFF] ^ (crc >> 8);
    return ~crc;
}

struct frame *frame_new(uint8_t type, size_t payload_capacity) {
    size_t capacity = HEADER + payload_capacity;
    struct frame *frame;
    if (spare && capacity > spare->capacity / 2 && capacity <= spare->capacity) {
        frame = spare;
        spare = frame->next;
        spare_count--;
    } else {
        frame = allocate(sizeof *frame + capacity);
        frame->capacity = capacity;
    }
    frame->next = NULL;
    frame->sequence = 0;
    memcpy(frame->bytes, "HM", 2);
    frame->bytes[2] = VERSION;
    frame->bytes[3] = type;
    return frame;
}

void frame_discard(struct frame *frame) {
    if (frame->capacity >= PIECE && spare_count < 4) {
        frame->next = spare;
        spare = frame;
        spare_count++;
    } else {
        free(frame);
    }
}

static void seal(struct frame *frame, size_t payload_length, uint64_t sequence) {
    frame->sequence = sequence;
    frame->length = HEADER + payload_length;
    put32(frame->bytes + 4, (uint32_t)payload_length);
    put64(frame->bytes + 8, sequence);
    put32(frame->bytes + 16, crc32_of(crc32_of(0, frame->bytes, 16), frame->bytes + HEADER, payload_length));
}

/* What a frame costs in memory: its allocation, not only its bytes, so that a million tiny ones are counted rightly. */
static uint64_t cost(const struct frame *frame) { return frame->capacity + sizeof *frame + 16; }

uint64_t frame_put(struct frame *frame, size_t payload_length) {
    seal(frame, payload_length, ++last_sequence);
    if (peer_deaf) {
        frame_discard(frame);
        return last_sequence;
    }
    if (last) last->next = frame;
    else first = frame;
    last = frame;
    kept_bytes += cost(frame);
    if (!sending) sending = frame;
    return last_sequence;
}

static void append(struct queue *queue, struct frame *frame) {
    if (queue->last) queue->last->next = frame;
    else queue->first = frame;
    queue->last = frame;
}

static void drop_first(struct queue *queue) {
    struct frame *frame = queue->first;
    queue->first = frame->next;
    if (!queue->first) queue->last = NULL;
    if (queue == &tunnel) tunnel_bytes -= frame->length;
    free(frame);
}

void frame_control(struct frame *frame, size_t payload_length) {
    seal(frame, payload_length, 0);
    append(&control, frame);
}

void frame_tunnel(struct frame *frame, size_t payload_length) {
    seal(frame, payload_length, 0);
    append(&tunnel, frame);
    tunnel_bytes += frame->length;
    if (peer_deaf) drop_first(&tunnel);
}

void tunnel_frames_drop(void) {
    struct frame *begun = writing == &tunnel && written ? tunnel.first : NULL;
    if (begun) tunnel.first = begun->next;
    while (tunnel.first) drop_first(&tunnel);
    if (begun) begun->next = NULL;
    tunnel.first = tunnel.last = begun;
    tunnel_bytes = begun ? begun->length : 0;
}

bool window_room(size_t payload_length) {
    return !first || kept_bytes + payload_length + HEADER + sizeof(struct frame) <= spec.window;
}

uint64_t kept_from(void) { return first ? first->sequence : last_sequence + 1; }

static void forget_first(void) {
    struct frame *frame = first;
    first = frame->next;
    if (!first) last = NULL;
    if (sending == frame) sending = first;
    kept_bytes -= cost(frame);
    frame_discard(frame);
}

bool acknowledge(uint64_t sequence) {
    if (sequence > written_sequence) return false;
    while (first && first->sequence <= sequence) forget_first();
    return true;
}

bool repeat_after(uint64_t sequence) {
    if (sequence > last_sequence) return false;
    while (first && first->sequence <= sequence) forget_first();
    while (control.first) drop_first(&control);
    while (tunnel.first) drop_first(&tunnel);
    writing = NULL;
    written = 0; /* a frame cut in the middle by the change of streams is begun anew */
    written_sequence = sequence;
    sending = first;
    return true;
}

bool output_pending(void) { return !peer_deaf && (sending || control.first || tunnel.first); }

static void sent(size_t count) {
    while (count) {
        struct frame *frame = writing ? writing->first : sending;
        size_t left = frame->length - written;
        if (count < left) {
            written += count;
            return;
        }
        count -= left;
        written = 0;
        if (writing) {
            drop_first(writing);
        } else {
            written_sequence = frame->sequence;
            sending = frame->next;
        }
    }
}

/* At a frame's border: control frames go first; a tunnel's and the numbered ones take turns, so that neither waits long. */
static void choose(void) {
    bool tunnels_now = tunnel.first && (!sending || !tunnels_wait);
    writing = control.first ? &control : tunnels_now ? &tunnel : NULL;
    if (!control.first) tunnels_wait = tunnels_now;
}

void flush_output(void) {
    while (output_pending()) {
        struct iovec parts[16];
        int count = 0, most = tunnel.first ? 4 : 16;
        if (!written) choose();
        struct frame *frame = writing ? writing->first : sending;
        size_t skip = written;
        for (; frame && count < most; frame = frame->next) {
            parts[count].iov_base = frame->bytes + skip;
            parts[count++].iov_len = frame->length - skip;
            skip = 0;
        }
        ssize_t done = writev(1, parts, count);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0 && errno == EAGAIN) break;
        if (done < 0) {
            peer_deaf = true;
            while (first) forget_first();
            on_disconnect();
            return;
        }
        sent((size_t)done);
    }
    while (peer_gone && first && first != sending) forget_first(); /* nobody will ever acknowledge these */
}
