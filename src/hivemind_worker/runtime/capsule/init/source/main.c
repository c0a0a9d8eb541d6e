/* hivemind-init: the first process of a capsule. Runs one task, tells all about it on fd 1, is told what to do on fd 0. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum state state;
struct spec spec = {.window = 4u << 20};
int workspace_fd = -1;
bool peer_gone;

static bool closing; /* CLOSE was said, or nobody is left to talk to */
static struct frame *failure; /* the ERROR that a RESUME is told again */

void panic(const char *what) {
    static const char prefix[] = "hivemind-init: ";
    if (write(2, prefix, sizeof prefix - 1) < 0 || write(2, what, strlen(what)) < 0 || write(2, "\n", 1) < 0)
        _exit(71);
    _exit(70);
}

void *allocate(size_t size) {
    void *memory = malloc(size);
    if (!memory) panic("out of memory");
    return memory;
}

uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static void say_failure(void) {
    struct frame *copy = frame_new(ERROR_, failure->length);
    memcpy(frame_payload(copy), frame_payload(failure), failure->length);
    frame_control(copy, failure->length);
}

void fail(enum error code, const char *text, const char *detail, size_t detail_length, int error_number) {
    const char *reason = error_number ? strerror(error_number) : "";
    size_t room = strlen(text) + detail_length + strlen(reason) + 64;
    struct frame *frame = frame_new(ERROR_, room);
    struct writer to = {frame_payload(frame)};
    char *message = allocate(room);
    size_t at = strlen(text);
    memcpy(message, text, at);
    if (detail_length) {
        message[at++] = ' ';
        memcpy(message + at, detail, detail_length);
        at += detail_length;
    }
    if (error_number) {
        memcpy(message + at, ": ", 2);
        memcpy(message + at + 2, reason, strlen(reason));
        at += 2 + strlen(reason);
    }
    tlv_number(&to, 1, code);
    tlv_bytes(&to, 2, message, at);
    free(message);
    if (code == ERROR_PROTOCOL) { /* only this stream is at fault; the task goes on */
        frame_control(frame, (size_t)(to.at - frame_payload(frame)));
        return;
    }
    state = FAILED;
    failure = frame;
    failure->length = (size_t)(to.at - frame_payload(frame));
    say_failure();
}

static void say_ready(const uint8_t *nonce, size_t nonce_length) {
    struct frame *frame = frame_new(READY, 256);
    struct writer to = {frame_payload(frame)};
    tlv_number(&to, 1, VERSION);
    tlv_number(&to, 2, state);
    tlv_bytes(&to, 3, nonce, nonce_length);
    tlv_number(&to, 4, getpid() == 1);
    tlv_number(&to, 5, last_sequence);
    tlv_number(&to, 6, kept_from());
    tlv_number(&to, 7, exited_sequence);
    tlv_number(&to, 8, done_sequence);
    tlv_number(&to, 9, frames_received);
    frame_control(frame, (size_t)(to.at - frame_payload(frame)));
}

void on_disconnect(void) {
    peer_gone = true;
    network_cut();
    if (state == IDLE || state == LOADING) closing = true;
    else if (state == RUNNING && spec.stop_on_disconnect) children_stop(WHY_DISCONNECT, spec.grace_ms);
    else if (state == COLLECTING && spec.stop_on_disconnect) closing = true;
}

static void take_spec(const uint8_t *payload, size_t length) {
    const char *problem = read_spec(payload, length);
    if (problem) {
        fail(ERROR_SPEC, "the spec has", problem, strlen(problem), 0);
        return;
    }
    state = LOADING;
    if (spec.expect_uid != UINT64_MAX && spec.expect_uid != geteuid()) {
        fail(ERROR_SPEC, "this capsule runs as another user than the spec expects", NULL, 0, 0);
        return;
    }
    workspace_fd = open(spec.workspace, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (workspace_fd < 0) {
        fail(ERROR_SPEC, "cannot open the workspace", spec.workspace, strlen(spec.workspace), errno);
        return;
    }
    if (mkdirat(workspace_fd, "results", 0777) && errno != EEXIST)
        fail(ERROR_SPEC, "cannot create results in the workspace", spec.workspace, strlen(spec.workspace), errno);
}

static void take_ack(const uint8_t *payload, size_t length) {
    if (length != 8 || !acknowledge(get64(payload))) lose_track("an ACK of what was not sent");
}

static void take_resume(const uint8_t *payload) {
    if (!repeat_after(get64(payload))) {
        lose_track("a RESUME after what was never said");
        return;
    }
    network_cut();
    say_ready(payload + 8, NONCE);
    if (failure) say_failure();
}

void on_frame(uint8_t type, const uint8_t *payload, size_t length) {
    bool begun = state == RUNNING || state == COLLECTING || state == FINISHED;
    switch (type) {
    case RESUME: take_resume(payload); return;
    case CLOSE: closing = true; return;
    default: break;
    }
    if (state == FAILED || closing) return; /* sent before our ERROR was heard */
    switch (type) {
    case SPEC:
        if (state != IDLE) break;
        take_spec(payload, length);
        return;
    case FILE_:
        if (state != LOADING) break;
        take_file(payload, length);
        return;
    case START:
        if (state != LOADING || file_open_now() || length) break;
        state = RUNNING;
        if (network_begin()) children_start();
        else fail(ERROR_INTERNAL, "cannot offer the task a proxy", NULL, 0, errno);
        return;
    case INPUT:
        if (!begun || !stdin_take(payload, length)) break;
        return;
    case SIGNAL_:
        if (!begun || length != 1 || payload[0] < 1 || payload[0] > 64) break;
        children_signal(payload[0]);
        return;
    case STOP:
        if (!begun || length != 8) break;
        if (state == RUNNING) children_stop(WHY_STOP, get64(payload));
        return;
    case ACK:
        if (!begun) break;
        take_ack(payload, length);
        return;
    case TUNNEL_DOWNLOAD:
    case TUNNEL_UPLOAD_CREDIT:
    case TUNNEL_CLOSE:
        if (!begun || !network_take(type, payload, length)) break;
        return;
    default: break;
    }
    lose_track("a frame that is not possible now");
}

static void setup(void) {
    prctl(PR_SET_DUMPABLE, 0); /* else the task, where it is the same user, reads fd 0 and 1 in /proc/1/fd */
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    umask(022);
#ifdef SYS_close_range
    if (syscall(SYS_close_range, 3u, ~0u, 4u /* CLOSE_RANGE_CLOEXEC */))
#endif
        for (int fd = 3; fd < 1024; fd++) fcntl(fd, F_SETFD, FD_CLOEXEC);
    for (int fd = 0; fd < 2; fd++) {
        int flags = fcntl(fd, F_GETFL);
        if (flags < 0) panic("fd 0 and 1 must be open: the conversation takes place there");
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
    }
    fcntl(1, F_SETPIPE_SZ, 1 << 20); /* fewer turns per MiB; no harm if it is no pipe or not allowed */
    signal(SIGPIPE, SIG_IGN);
    children_setup();
}

static int poll_timeout(bool busy) {
    if (busy) return 0;
    int64_t pause = network_pause_us();
    if (next_deadline_us == INT64_MAX && !pause) return -1;
    int64_t left = next_deadline_us == INT64_MAX ? pause : next_deadline_us - (int64_t)now_us();
    if (pause && pause < left) left = pause;
    if (left <= 0) return 0;
    return left > 1000000000 ? 1000000 : (int)((left + 999) / 1000);
}

/* Waits until something can be done, and does it. */
static void turn(bool busy) {
    int outputs[2];
    output_fds(outputs);
    struct pollfd fds[6 + 1 + TUNNELS] = {
        {.fd = peer_gone ? -1 : 0, .events = POLLIN},
        {.fd = output_pending() ? 1 : -1, .events = POLLOUT},
        {.fd = children_signal_fd(), .events = POLLIN},
        {.fd = outputs[0], .events = POLLIN},
        {.fd = outputs[1], .events = POLLIN},
        {.fd = stdin_fd(), .events = POLLOUT},
    };
    nfds_t count = 6 + (nfds_t)network_poll(fds + 6);
    if (poll(fds, count, poll_timeout(busy)) < 0) {
        if (errno != EINTR) panic("cannot poll");
        return;
    }
    if (fds[2].revents) children_signals();
    if (fds[0].revents) read_input();
    if (fds[3].revents) output_read(0);
    if (fds[4].revents) output_read(1);
    if (fds[5].revents) stdin_write();
    network_work(fds + 6);
    children_deadlines();
}

int main(int argc, char **argv) {
    if (!rights_settle(argc, argv)) {
        static const char version[] = "hivemind-init, conversation 1\n";
        return write(1, version, sizeof version - 1) < 0;
    }
    setup();
    say_ready(NULL, 0);
    flush_output();
    for (bool busy = false; !closing;) {
        turn(busy);
        output_push();
        if (state == RUNNING && children_ended()) {
            network_end();
            output_finish();
            children_report();
            state = COLLECTING;
            if (peer_gone && spec.stop_on_disconnect) break;
            results_begin();
        }
        busy = state == COLLECTING && results_step();
        flush_output();
        if (peer_gone && (state == FINISHED || state == FAILED) && !output_pending()) break;
    }
    if (state == RUNNING) children_kill_and_reap();
    flush_output(); /* what goes without waiting */
    return 0;
}
