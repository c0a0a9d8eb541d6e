/* The way out of a task that may have one: a port on loopback, whose connections travel as frames to the worker's proxy.
 * What is said on them is nothing to this program; the worker alone connects to anything. All is bounded: connections, bytes
 * under way in each direction, bytes that wait to be written. */
#include "init.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    PIECE_BYTES = 16 * 1024,      /* of an upload, per frame: so long may a line of output wait for it */
    QUEUE_BYTES = 128 * 1024,     /* frames that wait to be written: beyond it nothing more is read */
    CREDIT_STEP = TUNNEL_WINDOW / 4,
    FRAME_US = 500,               /* frames that a task can cause, one at a time: the worker has others to listen to ... */
    FRAMES_AT_ONCE = 512,         /* ... so many after a rest ... */
    OPENING_FRAMES = 8            /* ... and each connection counts as so many: 250 a second */
};

struct tunnel {
    int fd;           /* -1: free */
    uint32_t id;
    uint64_t uploaded, upload_credit;                             /* up to which byte the worker has room */
    uint64_t received, delivered, credited;                       /* of the download */
    uint8_t *ring;                                                /* what is received and not delivered */
    bool upload_ended, download_ended, download_shut, closing;    /* closing: the worker is through with it */
};

static struct tunnel tunnels[TUNNELS];
static int listener = -1;
static uint32_t last_id;
static int64_t paid_until_us; /* each frame that the task causes moves it on; it may be ahead by FRAMES_AT_ONCE frames */

/* How long nothing may be read, for the task has caused too many frames; 0: not. */
int64_t network_pause_us(void) {
    int64_t ahead = paid_until_us - (int64_t)now_us() - (int64_t)FRAMES_AT_ONCE * FRAME_US;
    return listener >= 0 && ahead > 0 ? ahead : 0;
}

static void count_frames(int number) {
    int64_t now = (int64_t)now_us();
    paid_until_us = (paid_until_us > now ? paid_until_us : now) + number * FRAME_US;
}

static size_t smaller(uint64_t a, uint64_t b) { return (size_t)(a < b ? a : b); }

bool network_begin(void) {
    for (int i = 0; i < TUNNELS; i++) tunnels[i].fd = -1;
    if (!spec.proxy_port) return true;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)spec.proxy_port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return listener >= 0 && !bind(listener, (struct sockaddr *)&address, sizeof address) && !listen(listener, TUNNELS);
}

static void tell(uint8_t type, uint32_t id, const void *data, size_t length) {
    struct frame *frame = frame_new(type, 4 + length);
    put32(frame_payload(frame), id);
    if (length) memcpy(frame_payload(frame) + 4, data, length);
    frame_tunnel(frame, 4 + length);
}

static void tell_number(uint8_t type, uint32_t id, uint64_t value) {
    uint8_t bytes[8];
    put64(bytes, value);
    tell(type, id, bytes, sizeof bytes);
}

static void release(struct tunnel *tunnel) {
    close(tunnel->fd);
    free(tunnel->ring);
    memset(tunnel, 0, sizeof *tunnel);
    tunnel->fd = -1;
}

static void finish(struct tunnel *tunnel) {
    tell(TUNNEL_CLOSED, tunnel->id, NULL, 0);
    release(tunnel);
}

static void open_tunnels(void) {
    for (int i = 0; i < TUNNELS; i++) {
        if (tunnels[i].fd >= 0) continue;
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        if (last_id == UINT32_MAX) { /* no number is used twice; 136 years at one a second */
            close(fd);
            return;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        tunnels[i] = (struct tunnel){.fd = fd, .id = ++last_id, .upload_credit = TUNNEL_WINDOW};
        tell(TUNNEL_OPENED, last_id, NULL, 0);
        count_frames(OPENING_FRAMES);
    }
}

static bool may_read(const struct tunnel *tunnel) {
    return !tunnel->upload_ended && !tunnel->closing && tunnel->uploaded < tunnel->upload_credit &&
           tunnel_bytes < QUEUE_BYTES;
}

static void upload(struct tunnel *tunnel) {
    static uint8_t piece[PIECE_BYTES];
    ssize_t got = read(tunnel->fd, piece, smaller(sizeof piece, tunnel->upload_credit - tunnel->uploaded));
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got < 0) {
        finish(tunnel);
        return;
    }
    tunnel->upload_ended = !got;
    tunnel->uploaded += (uint64_t)got;
    count_frames(1);
    tell(TUNNEL_UPLOAD, tunnel->id, piece, (size_t)got); /* empty: the task has no more to say on it */
}

/* What came for the task goes to it as it reads; then the end, if that was said. */
static void deliver(struct tunnel *tunnel) {
    while (tunnel->delivered < tunnel->received) {
        size_t start = (size_t)(tunnel->delivered % TUNNEL_WINDOW);
        size_t part = smaller(tunnel->received - tunnel->delivered, TUNNEL_WINDOW - start);
        ssize_t put = send(tunnel->fd, tunnel->ring + start, part, MSG_NOSIGNAL);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0 && errno == EAGAIN) break;
        if (put < 0) {
            finish(tunnel);
            return;
        }
        tunnel->delivered += (uint64_t)put;
    }
    bool all = tunnel->delivered == tunnel->received;
    if (!tunnel->closing && !tunnel->download_ended &&
        (tunnel->delivered - tunnel->credited >= CREDIT_STEP || (all && tunnel->delivered > tunnel->credited))) {
        tunnel->credited = tunnel->delivered;
        tell_number(TUNNEL_DOWNLOAD_CREDIT, tunnel->id, tunnel->credited);
    }
    if (all && tunnel->download_ended && !tunnel->download_shut) {
        shutdown(tunnel->fd, SHUT_WR);
        tunnel->download_shut = true;
    }
    if (all && (tunnel->closing || (tunnel->download_shut && tunnel->upload_ended))) finish(tunnel);
}

int network_poll(struct pollfd *fds) {
    if (listener < 0) return 0; /* the kernel polls no more places than a process may have files open */
    bool room = false, paused = network_pause_us() > 0;
    for (int i = 0; i < TUNNELS; i++) {
        struct tunnel *tunnel = &tunnels[i];
        short events = 0;
        if (tunnel->fd < 0) room = true;
        else if (!paused && may_read(tunnel)) events |= POLLIN;
        if (tunnel->fd >= 0 && tunnel->delivered < tunnel->received) events |= POLLOUT;
        fds[1 + i] = (struct pollfd){.fd = tunnel->fd, .events = events};
    }
    fds[0] = (struct pollfd){.fd = room && !paused && tunnel_bytes < QUEUE_BYTES ? listener : -1, .events = POLLIN};
    return 1 + TUNNELS;
}

void network_work(const struct pollfd *fds) {
    if (listener < 0) return;
    for (int i = 0; i < TUNNELS; i++) {
        struct tunnel *tunnel = &tunnels[i];
        if (tunnel->fd < 0 || !fds[1 + i].revents) continue;
        if (fds[1 + i].revents & POLLIN && may_read(tunnel)) upload(tunnel);
        if (tunnel->fd >= 0 && fds[1 + i].revents & POLLOUT) deliver(tunnel);
        /* Broken in both directions: what it had still to say is read first, as far as there is room for it. */
        if (tunnel->fd >= 0 && fds[1 + i].revents & (POLLERR | POLLHUP) && !(fds[1 + i].revents & POLLIN)) finish(tunnel);
    }
    if (fds[0].revents) open_tunnels();
}

static struct tunnel *tunnel_of(uint32_t id) {
    for (int i = 0; i < TUNNELS; i++)
        if (tunnels[i].fd >= 0 && tunnels[i].id == id) return &tunnels[i];
    return NULL;
}

static bool download(struct tunnel *tunnel, const uint8_t *data, size_t length) {
    if (tunnel->download_ended || length > TUNNEL_WINDOW - (tunnel->received - tunnel->delivered)) return false;
    if (!length) tunnel->download_ended = true;
    if (length && !tunnel->ring) tunnel->ring = allocate(TUNNEL_WINDOW);
    for (size_t i = 0; i < length;) {
        size_t start = (size_t)((tunnel->received + i) % TUNNEL_WINDOW), part = smaller(length - i, TUNNEL_WINDOW - start);
        memcpy(tunnel->ring + start, data + i, part);
        i += part;
    }
    tunnel->received += length;
    deliver(tunnel);
    return true;
}

bool network_take(uint8_t type, const uint8_t *payload, size_t length) {
    if (length < 4 || !spec.proxy_port) return false;
    uint32_t id = get32(payload);
    struct tunnel *tunnel = tunnel_of(id);
    if (!id || id > last_id) return false;
    if (type == TUNNEL_DOWNLOAD) return !tunnel || tunnel->closing || download(tunnel, payload + 4, length - 4);
    if (type == TUNNEL_CLOSE) {
        if (length != 4) return false;
        if (!tunnel) return true; /* it crossed our TUNNEL_CLOSED */
        tunnel->closing = true;
        deliver(tunnel);
        return true;
    }
    if (length != 12) return false;
    uint64_t credit = get64(payload + 4); /* so many bytes of the upload have gone on */
    if (!tunnel) return true;
    if (credit > tunnel->uploaded || credit + TUNNEL_WINDOW < tunnel->upload_credit) return false;
    tunnel->upload_credit = credit + TUNNEL_WINDOW;
    return true;
}

void network_cut(void) {
    for (int i = 0; i < TUNNELS; i++)
        if (listener >= 0 && tunnels[i].fd >= 0) release(&tunnels[i]);
    tunnel_frames_drop();
}

void network_end(void) {
    network_cut();
    if (listener >= 0) close(listener);
    listener = -1;
}
