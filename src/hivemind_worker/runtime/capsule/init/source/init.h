/* What the files of hivemind-init share. See docs: one task runs in one capsule; this program is its first process. */
#ifndef HIVEMIND_INIT_H
#define HIVEMIND_INIT_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define MAX_PAYLOAD (1u << 20)
#define HEADER 20u          /* magic 2, version 1, type 1, length 4, sequence 8, CRC 4 */
#define VERSION 1
#define MAX_PATH 4096
#define MAX_PART 255
#define MAX_DEPTH 256
#define NONCE 16
#define MAX_KEY 64
#define INPUT_WINDOW (256u * 1024u)
#define PIECE (256u * 1024u) /* of a result file, per frame */
#define TUNNELS 32           /* connections of the task to its proxy at once */
#define TUNNEL_WINDOW (256u * 1024u) /* bytes of one of them under way, in each direction */

enum type {
    SPEC = 0x01, FILE_ = 0x02, START = 0x03, INPUT = 0x04, SIGNAL_ = 0x05, STOP = 0x06, ACK = 0x07, RESUME = 0x08,
    CLOSE = 0x09,
    TUNNEL_DOWNLOAD = 0x21, TUNNEL_UPLOAD_CREDIT = 0x22, TUNNEL_CLOSE = 0x23,
    READY = 0x81, OUT = 0x82, ERR = 0x83, TAKEN = 0x84, EXITED = 0x85, DONE = 0x86, ERROR_ = 0x87,
    RESULT_BEGIN = 0x91, RESULT_DATA = 0x92, RESULT_END = 0x93, RESULT_DROPPED = 0x94, RESULT_SKIPPED = 0x95,
    TUNNEL_OPENED = 0xA1, TUNNEL_UPLOAD = 0xA2, TUNNEL_DOWNLOAD_CREDIT = 0xA3, TUNNEL_CLOSED = 0xA4
};
enum state { IDLE, LOADING, RUNNING, COLLECTING, FINISHED, FAILED };
enum why { WHY_OWN, WHY_TIMEOUT, WHY_STOP, WHY_DISCONNECT };
enum error { ERROR_PROTOCOL = 1, ERROR_SPEC, ERROR_FILE, ERROR_INTERNAL };

struct rlimit_spec {
    uint64_t resource, soft, hard;
};

struct spec {
    char **argv, **env;
    const char *cwd, *workspace;
    uint64_t stdin_stream, timeout_ms, grace_ms, output_head, output_tail;
    uint64_t results_bytes, results_apparent, results_count, results_depth, results_ms, window;
    uint64_t stop_on_disconnect;
    uint8_t key[MAX_KEY];
    size_t key_length;
    uint64_t expect_uid; /* UINT64_MAX: any */
    struct rlimit_spec *rlimits;
    size_t rlimit_count;
    uint64_t proxy_port; /* on loopback, for the task; 0: none */
};

/* main.c */
extern enum state state;
extern struct spec spec;
extern int workspace_fd;
extern bool peer_gone;      /* fd 0 has ended: nobody can acknowledge or resume any more */
void panic(const char *what) __attribute__((noreturn)); /* says it on fd 2, ends everything */
void *allocate(size_t size);
uint64_t now_us(void);
void fail(enum error code, const char *text, const char *detail, size_t detail_length, int error_number);
void on_frame(uint8_t type, const uint8_t *payload, size_t length);
void on_disconnect(void);

/* frames.c: what goes out, and the window of frames that are kept until acknowledged */
struct frame {
    struct frame *next;
    uint64_t sequence;
    size_t length, capacity; /* of bytes, header included */
    uint8_t bytes[];
};
extern uint64_t last_sequence, exited_sequence, done_sequence;
uint32_t crc32_of(uint32_t crc, const uint8_t *data, size_t length);
struct frame *frame_new(uint8_t type, size_t payload_capacity);
static inline uint8_t *frame_payload(struct frame *frame) { return frame->bytes + HEADER; }
uint64_t frame_put(struct frame *frame, size_t payload_length);     /* numbers it and keeps it; returns its number */
void frame_control(struct frame *frame, size_t payload_length);     /* unnumbered, not kept */
extern size_t tunnel_bytes;                                         /* of tunnels' frames that wait to be written */
void frame_tunnel(struct frame *frame, size_t payload_length);      /* unnumbered, not kept; takes turns with the numbered */
void tunnel_frames_drop(void);                                      /* all but one that is partly written */
void frame_discard(struct frame *frame);
bool window_room(size_t payload_length);
bool acknowledge(uint64_t sequence);
bool repeat_after(uint64_t sequence); /* false: beyond what was ever said */
uint64_t kept_from(void);
bool output_pending(void);
void flush_output(void);

/* input.c: what comes in */
extern uint64_t frames_received;
void read_input(void);
void lose_track(const char *why); /* the peer speaks nonsense: say so, ignore all up to a RESUME */

/* tlv.c */
struct writer {
    uint8_t *at;
};
void put16(uint8_t *at, uint16_t value);
void put32(uint8_t *at, uint32_t value);
void put64(uint8_t *at, uint64_t value);
uint16_t get16(const uint8_t *at);
uint32_t get32(const uint8_t *at);
uint64_t get64(const uint8_t *at);
void tlv_number(struct writer *to, uint16_t tag, uint64_t value);
void tlv_bytes(struct writer *to, uint16_t tag, const void *data, size_t length);
const char *read_spec(const uint8_t *payload, size_t length); /* fills `spec`; NULL or what is wrong */

/* files.c */
void take_file(const uint8_t *payload, size_t length);
bool file_open_now(void);

/* output.c: the task's stdout and stderr, and its stdin */
void output_begin(int out, int err);
void output_fds(int fds[2]);
void output_read(int which);
void output_push(void);      /* what waited for room in the window */
void output_finish(void);    /* everything that is left, and the tails */
uint64_t output_total(int which);
uint64_t output_dropped(int which);
void stdin_begin(int fd);
int stdin_fd(void);          /* to be polled for writing; -1: nothing to write */
void stdin_write(void);
bool stdin_take(const uint8_t *data, size_t length);
void stdin_end(void);

/* children.c */
extern int64_t next_deadline_us; /* INT64_MAX: none */
void children_setup(void);
int children_signal_fd(void);
void children_start(void);
void children_signals(void);   /* the signal fd is readable */
bool children_ended(void);     /* the task and all it left behind are gone; call after signals and deadlines */
void children_deadlines(void);
void children_stop(enum why why, uint64_t grace_ms);
void children_signal(int number);
void children_kill_and_reap(void); /* at once, for CLOSE */
void children_report(void);    /* EXITED */

/* network.c */
struct pollfd;
bool network_begin(void);                    /* false: errno says what is wrong with the port */
int64_t network_pause_us(void);              /* so long nothing is read from tunnels, for there was too much; 0: not */
int network_poll(struct pollfd *fds);        /* fills 1 + TUNNELS of them; how many */
void network_work(const struct pollfd *fds);
bool network_take(uint8_t type, const uint8_t *payload, size_t length); /* a frame about a tunnel; false: not possible */
void network_cut(void);                      /* nobody serves the tunnels that are open: all end, new ones may come */
void network_end(void);

/* fence.c */
void fence(pid_t init);

/* landlock.c */
void confine(void);

/* rights.c */
bool rights_settle(int argc, char **argv); /* false: the arguments are no such */
bool rights_give_up(void);                 /* in the child: becomes the task's user without any; false: errno says why */

/* results.c */
void results_begin(void);
bool results_step(void); /* one piece of work; false: nothing can be done now (no room in the window, or DONE was said) */

/* listing.c: the names in a directory, smallest first, as many as memory allows */
struct listing {
    char *text;
    uint32_t *names; /* offsets in text */
    size_t text_used, text_size, count, names_size, next;
    bool cut;                 /* larger names were left out ... */
    char bound[MAX_PART + 1]; /* ... this is the smallest of them */
};
/* Reads the open directory (and closes it). At most `most` names and `bytes` bytes are kept. False: errno says why not. */
bool listing_read(struct listing *listing, int directory, size_t most, size_t bytes);
void listing_free(struct listing *listing);

#endif
