/* The task and all its descendants: started, limited in time, killed, reaped, and told about. */
#include "init.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    LEFTOVER_GRACE_US = 1000000, /* for what the task left behind: it had its time */
    KILL_AGAIN_US = 20000,
    TASK_NICE = 5, /* the task gives way to this program, and the owner's programs, where they share a processor */
    GIVE_UP_US = 10000000        /* a process in an uninterruptible sleep may never go; go on without it */
};

int64_t next_deadline_us = INT64_MAX;

static int signals = -1, trouble = -1;
static pid_t task;
static bool task_gone, all_gone, stopping;
static int task_status;
static uint64_t started_us, ended_us, leftovers;
static int64_t timeout_at = INT64_MAX, kill_at = INT64_MAX, give_up_at = INT64_MAX;
static enum why why;

struct failure {
    int error;
    int stage;
};
static const char *const stages[] = {"cannot run", "cannot enter the working directory for", "cannot limit", "cannot start"};

void children_setup(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (signals < 0) panic("cannot make a signal fd");
    if (getpid() != 1) prctl(PR_SET_CHILD_SUBREAPER, 1);
}

int children_signal_fd(void) { return signals; }

static int64_t in_us(uint64_t ms) { return (int64_t)(now_us() + ms * 1000); }

static void arm(void) {
    next_deadline_us = timeout_at < kill_at ? timeout_at : kill_at;
}

/* Not PID 1: only for tests and odd places. Kills our children; what they leave becomes our child and is next. */
static void signal_found(int number) {
    DIR *proc = opendir("/proc");
    if (!proc) return;
    for (struct dirent *entry; (entry = readdir(proc));) {
        if (!isdigit((unsigned char)entry->d_name[0])) continue;
        char path[32] = "/proc/", text[512];
        strncat(path, entry->d_name, 10);
        strcat(path, "/stat");
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
        if (fd >= 0) close(fd);
        if (got <= 0) continue;
        text[got] = 0;
        const char *after = strrchr(text, ')'); /* the name before it may hold anything; then " S 123": state, parent */
        if (after && strlen(after) > 4 && atoi(after + 4) == getpid()) kill((pid_t)atoi(entry->d_name), number);
    }
    closedir(proc);
}

/* To the task's process group; to the task alone while it has not yet made its group: just forked, the signal waits for it. */
static void signal_task(int number) {
    if (kill(-task, number) && errno == ESRCH) kill(task, number);
}

static void signal_all(int number) {
    if (getpid() == 1) {
        kill(-1, number);
        return;
    }
    if (task > 0 && !task_gone) signal_task(number);
    signal_found(number);
}

static void child_setup(int in, int out, int err, struct failure *failure) {
    sigset_t none;
    sigemptyset(&none);
    setsid();
    /* By the call itself: libc keeps 32 to 34 to itself, and a parent's glibc may have left them ignored (make's does). */
    static const unsigned long default_action[4];
    for (int number = 1; number < 65; number++) syscall(SYS_rt_sigaction, number, default_action, NULL, 8);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (getppid() != 1) prctl(PR_SET_PDEATHSIG, SIGKILL);
    failure->stage = 3;
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0) return;
    if (!rights_give_up()) return;
    /* Let the kernel's OOM killer take the task, never this program. Needs a moment of being dumpable; nobody else is here. */
    prctl(PR_SET_DUMPABLE, 1);
    int score = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (score >= 0 && write(score, "800", 3) < 0) errno = 0;
    failure->stage = 1;
    if (fchdir(workspace_fd) || (spec.cwd[0] && chdir(spec.cwd))) return;
    failure->stage = 2;
    for (size_t i = 0; i < spec.rlimit_count; i++) {
        struct rlimit limit = {spec.rlimits[i].soft, spec.rlimits[i].hard};
        if (setrlimit((int)spec.rlimits[i].resource, &limit)) return;
    }
    if (nice(TASK_NICE) < 0) errno = 0; /* it cannot be refused; -1 may be the new value as well */
    confine();
    fence(getppid());
    failure->stage = 0;
}

static const char *path_variable(void) {
    for (char **entry = spec.env; *entry; entry++)
        if (!strncmp(*entry, "PATH=", 5)) return *entry + 5;
    return "/usr/local/bin:/usr/bin:/bin";
}

/* As a shell finds programs; returns only when it fails, errno says why. */
static void execute(void) {
    const char *program = spec.argv[0];
    if (strchr(program, '/') || !*program) {
        execve(program, spec.argv, spec.env);
        return;
    }
    int error = ENOENT;
    size_t length = strlen(program);
    for (const char *at = path_variable(); at;) {
        const char *colon = strchr(at, ':');
        size_t part = colon ? (size_t)(colon - at) : strlen(at);
        char candidate[MAX_PATH + 1];
        if (part + 1 + length < sizeof candidate) {
            memcpy(candidate, part ? at : ".", part ? part : 1);
            size_t end = part ? part : 1;
            candidate[end] = '/';
            memcpy(candidate + end + 1, program, length + 1);
            execve(candidate, spec.argv, spec.env);
            if (errno != ENOENT && errno != ENOTDIR) error = errno;
        }
        at = colon ? colon + 1 : NULL;
    }
    errno = error;
}

static int empty_input(void) {
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC), ends[2];
    if (fd >= 0 || pipe2(ends, O_CLOEXEC)) return fd;
    close(ends[1]);
    return ends[0];
}

static void nonblocking(int fd) { fcntl(fd, F_SETFL, O_NONBLOCK); }

void children_start(void) {
    int in[2] = {-1, -1}, out[2], err[2], report[2];
    bool made = !pipe2(out, O_CLOEXEC) && !pipe2(err, O_CLOEXEC) && !pipe2(report, O_CLOEXEC);
    if (!made || (spec.stdin_stream && pipe2(in, O_CLOEXEC))) {
        fail(ERROR_INTERNAL, "cannot make the pipes for the task", NULL, 0, errno);
        return;
    }
    if (spec.stdin_stream) {
        nonblocking(in[1]);
        stdin_begin(in[1]);
    } else {
        in[0] = empty_input();
    }
    nonblocking(out[0]);
    nonblocking(err[0]);
    nonblocking(report[0]);
    started_us = now_us();
    task = fork();
    if (!task) {
        struct failure failure = {0, 0};
        child_setup(in[0], out[1], err[1], &failure);
        if (!failure.stage) execute();
        failure.error = errno;
        _exit(write(report[1], &failure, sizeof failure) == sizeof failure ? 127 : 126);
    }
    if (task < 0) {
        struct failure failure = {errno, 3};
        task_gone = write(report[1], &failure, sizeof failure) == sizeof failure;
        ended_us = started_us;
    }
    close(in[0]);
    close(out[1]);
    close(err[1]);
    close(report[1]);
    trouble = report[0];
    output_begin(out[0], err[0]);
    if (spec.timeout_ms) timeout_at = in_us(spec.timeout_ms);
    arm();
}

static void begin_killing(uint64_t grace_us) {
    int64_t at = (int64_t)(now_us() + grace_us);
    if (at < kill_at) kill_at = at;
    arm();
}

static void reap(void) {
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid < 0 && errno == ECHILD) all_gone = task_gone;
        if (pid <= 0) return;
        if (task_gone) leftovers++;
        if (pid == task) {
            task_gone = true;
            task_status = status;
            ended_us = now_us();
        }
    }
}

void children_signals(void) {
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == sizeof info)
        /* From outside our PID namespace the sender is 0. The task itself may not stop us by a signal: it can claim to be
         * 0 by rt_sigqueueinfo, but the kernel lets no process claim SI_USER to another. */
        if (info.ssi_signo != SIGCHLD && ((info.ssi_pid == 0 && info.ssi_code == SI_USER) || getpid() != 1)) {
            if (state == RUNNING) children_stop(WHY_STOP, UINT64_MAX);
            else if (state == IDLE || state == LOADING) on_frame(CLOSE, NULL, 0);
        }
}

bool children_ended(void) {
    static bool asked;
    if (!all_gone) reap();
    if (all_gone || !task_gone) return all_gone;
    if (!asked) { /* the task has ended and left processes behind */
        asked = true;
        timeout_at = INT64_MAX;
        signal_all(SIGTERM);
        uint64_t grace = spec.grace_ms * 1000;
        begin_killing(grace < LEFTOVER_GRACE_US ? grace : LEFTOVER_GRACE_US);
        reap();
    }
    return all_gone;
}

void children_deadlines(void) {
    if (state != RUNNING || next_deadline_us == INT64_MAX) return;
    int64_t now = (int64_t)now_us();
    if (now >= timeout_at) children_stop(WHY_TIMEOUT, spec.grace_ms);
    if (now < kill_at) return;
    if (give_up_at == INT64_MAX) give_up_at = now + GIVE_UP_US;
    signal_all(SIGKILL);
    kill_at = now + KILL_AGAIN_US;
    if (now >= give_up_at && task_gone) all_gone = true;
    arm();
}

void children_stop(enum why reason, uint64_t grace_ms) {
    if (grace_ms > spec.grace_ms) grace_ms = spec.grace_ms;
    timeout_at = INT64_MAX;
    if (!stopping && !task_gone) {
        why = reason;
        signal_task(SIGTERM);
    }
    stopping = true;
    begin_killing(grace_ms * 1000);
}

void children_signal(int number) {
    if (state == RUNNING && !task_gone) signal_task(number);
}

void children_kill_and_reap(void) {
    for (int64_t until = in_us(5000); !all_gone && (int64_t)now_us() < until;) {
        signal_all(SIGKILL);
        reap();
        if (!all_gone) usleep(2000);
    }
}

static size_t append(char *text, size_t at, size_t room, const char *more) {
    size_t length = strnlen(more, room - at);
    memcpy(text + at, more, length);
    return at + length;
}

/* Why the program could not be started; 0: it was. Codes as shells give them. */
static size_t trouble_text(char *text, size_t room, uint64_t *status) {
    struct failure failure;
    ssize_t got = read(trouble, &failure, sizeof failure);
    close(trouble);
    if (got != sizeof failure) return 0;
    *status = failure.stage == 0 && (failure.error == ENOENT || failure.error == ENOTDIR) ? 127 : 126;
    size_t at = append(text, 0, room, stages[failure.stage]);
    at = append(text, at, room, " '");
    at = append(text, at, at + 500 < room ? at + 500 : room, spec.argv[0]);
    at = append(text, at, room, "': ");
    return append(text, at, room, strerror(failure.error));
}

void children_report(void) {
    char text[700];
    uint64_t status = WIFEXITED(task_status) ? (uint64_t)WEXITSTATUS(task_status) : 0;
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    struct frame *frame = frame_new(EXITED, 1024);
    struct writer to = {frame_payload(frame)};
    size_t text_length = trouble_text(text, sizeof text, &status);
    if (text_length || WIFEXITED(task_status)) tlv_number(&to, 1, status);
    else tlv_number(&to, 2, (uint64_t)WTERMSIG(task_status));
    tlv_number(&to, 3, why);
    tlv_bytes(&to, 4, text, text_length);
    tlv_number(&to, 5, ended_us - started_us);
    tlv_number(&to, 6, (uint64_t)usage.ru_utime.tv_sec * 1000000u + (uint64_t)usage.ru_utime.tv_usec);
    tlv_number(&to, 7, (uint64_t)usage.ru_stime.tv_sec * 1000000u + (uint64_t)usage.ru_stime.tv_usec);
    tlv_number(&to, 8, (uint64_t)usage.ru_maxrss * 1024u);
    tlv_number(&to, 9, (uint64_t)usage.ru_inblock * 512u);
    tlv_number(&to, 10, (uint64_t)usage.ru_oublock * 512u);
    for (int which = 0; which < 2; which++) {
        tlv_number(&to, (uint16_t)(11 + which), output_total(which));
        tlv_number(&to, (uint16_t)(13 + which), output_dropped(which));
    }
    tlv_number(&to, 15, leftovers);
    exited_sequence = frame_put(frame, (size_t)(to.at - frame_payload(frame)));
    next_deadline_us = INT64_MAX;
}
