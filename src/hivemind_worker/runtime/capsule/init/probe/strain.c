/* Caps, tried by going beyond them: each attempt stops by itself a little beyond what is promised, and gives back what it
   took. Far beyond, a folder in memory without a cap would have the capsule killed before it can say which it was. */
#include "probe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PIECE = 64 * 1024, FILE_BYTES = 512 * 1024, MEBIBYTE = 1 << 20, MORE_FILES = 64, MORE_PROCESSES = 16 };

static char piece[PIECE];

/* Removes what was made there under numbers below `end`. */
static void remove_files(const char *folder, long end) {
    char path[300];
    for (long i = 0; i < end; i++) {
        snprintf(path, sizeof path, "%s/hivemind-%ld", folder, i);
        unlink(path);
    }
}

static void fill_bytes(const char *folder, long promised) {
    long written = 0, files = 0;
    int error = 0;
    while (!error && written <= promised + MEBIBYTE) {
        char path[300];
        snprintf(path, sizeof path, "%s/hivemind-%ld", folder, files++);
        int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        if (fd < 0) {
            error = errno;
            break;
        }
        for (long in_file = 0; in_file < FILE_BYTES;) {
            ssize_t got = write(fd, piece, PIECE);
            if (got <= 0) {
                error = got < 0 ? errno : ENOSPC;
                break;
            }
            in_file += got;
            written += got;
        }
        close(fd);
    }
    remove_files(folder, files);
    say("fill %s %ld %d", folder, written, error);
}

static void fill_files(const char *folder, long promised) {
    long made = 0;
    int error = 0;
    while (!error && made <= promised + MORE_FILES) {
        char path[300];
        snprintf(path, sizeof path, "%s/hivemind-%ld", folder, made);
        int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        if (fd < 0) error = errno;
        else close(fd), made++;
    }
    remove_files(folder, made);
    say("inodes %s %ld %d", folder, made, error);
}

void fill(const char *spec) {
    char folder[256];
    size_t length = strcspn(spec, ":");
    if (length >= sizeof folder || !spec[length]) {
        say("unknown fill=%s", spec);
        return;
    }
    memcpy(folder, spec, length);
    folder[length] = 0;
    char *rest;
    long bytes = strtol(spec + length + 1, &rest, 10), files = *rest ? atol(rest + 1) : 0;
    fill_bytes(folder, bytes);
    if (files) fill_files(folder, files);
}

void open_up_to(long count) {
    long opened = 0;
    int error = 0, *fds = calloc((size_t)count + MORE_FILES, sizeof *fds);
    while (fds && opened < count + MORE_FILES) {
        int fd = fcntl(1, F_DUPFD_CLOEXEC, 3);
        if (fd < 0) {
            error = errno;
            break;
        }
        fds[opened++] = fd;
    }
    for (long i = 0; i < opened; i++) close(fds[i]);
    free(fds);
    say("opened %ld %d", opened, error);
}

void fork_up_to(long count) {
    long made = 0;
    int error = 0;
    pid_t *children = calloc((size_t)count + MORE_PROCESSES, sizeof *children);
    while (children && made < count + MORE_PROCESSES) {
        pid_t child = fork();
        if (!child)
            for (;;) pause();
        if (child < 0) {
            error = errno;
            break;
        }
        children[made++] = child;
    }
    for (long i = 0; i < made; i++) kill(children[i], SIGKILL);
    for (long i = 0; i < made; i++) waitpid(children[i], NULL, 0);
    free(children);
    say("forks %ld %d", made, error);
}

void allocate_over(long bytes) {
    volatile long *progress = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (progress == MAP_FAILED) {
        say("memory 0 0 %d", errno);
        return;
    }
    progress[0] = progress[1] = 0;
    pid_t child = fork();
    if (!child) {
        while (progress[0] < 3 * bytes) {
            char *more = mmap(NULL, MEBIBYTE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (more == MAP_FAILED) {
                progress[1] = errno;
                _exit(0);
            }
            for (long at = 0; at < MEBIBYTE; at += 4096) more[at] = (char)(1 + at);
            progress[0] += MEBIBYTE;
        }
        _exit(0);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child) progress[1] = errno;
    say("memory %ld %d %ld", progress[0], WIFSIGNALED(status) ? WTERMSIG(status) : 0, progress[1]);
}

static int64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

void spin(long milliseconds, long processes) {
    struct rusage before, after;
    getrusage(RUSAGE_CHILDREN, &before);
    int64_t begin = now_us(), end = begin + milliseconds * 1000;
    long made = 0;
    for (; made < processes; made++) {
        pid_t child = fork();
        if (child < 0) break;
        if (!child) {
            while (now_us() < end) continue;
            _exit(0);
        }
    }
    for (long i = 0; i < made; i++) wait(NULL);
    getrusage(RUSAGE_CHILDREN, &after);
    long used = (after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec - before.ru_stime.tv_sec) * 1000000 +
                (after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec - before.ru_stime.tv_usec);
    say("processor %ld %lld %ld", used, (long long)(now_us() - begin), made);
}
