/* Input files: created new under the workspace, whatever links lie there already; parents are made as needed. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FIXED = 18, BEGIN = 1, END = 2 };

static int file = -1;
static char name[MAX_PATH + 1];
static size_t name_length;
static uint64_t offset_expected;

bool file_open_now(void) { return file >= 0; }

static bool safe(const char *path, size_t length) {
    if (!length || length > MAX_PATH || memchr(path, 0, length)) return false;
    size_t depth = 0;
    for (size_t at = 0; at <= length;) {
        const char *slash = memchr(path + at, '/', length - at);
        size_t part = slash ? (size_t)(slash - path) - at : length - at;
        if (!part || part > MAX_PART || ++depth > MAX_DEPTH) return false;
        if (path[at] == '.' && (part == 1 || (part == 2 && path[at + 1] == '.'))) return false;
        at += part + 1;
    }
    return true;
}

static void give_up(const char *what, int error_number) {
    fail(ERROR_FILE, what, name, name_length, error_number);
    if (file >= 0) close(file);
    file = -1;
}

/* Opens the directory that is to hold `name`, making what is missing; *last is the name in it. -1 and errno if not. */
static int open_parent(const char **last) {
    int directory = fcntl(workspace_fd, F_DUPFD_CLOEXEC, 3);
    const char *at = name;
    for (const char *slash; directory >= 0 && (slash = strchr(at, '/')); at = slash + 1) {
        char part[MAX_PART + 1];
        memcpy(part, at, (size_t)(slash - at));
        part[slash - at] = 0;
        if (mkdirat(directory, part, 0777) && errno != EEXIST) {
            int error = errno;
            close(directory);
            errno = error;
            return -1;
        }
        int next = openat(directory, part, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int error = errno;
        close(directory);
        errno = error;
        directory = next;
    }
    *last = at;
    return directory;
}

static bool begin(const char *path, size_t length) {
    if (file >= 0 || !safe(path, length)) {
        lose_track("a FILE that is not safe, or begins within another");
        return false;
    }
    memcpy(name, path, length);
    name[length] = 0;
    name_length = length;
    offset_expected = 0;
    const char *last = name;
    int parent = open_parent(&last);
    if (parent >= 0) file = openat(parent, last, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int error = errno;
    if (parent >= 0) close(parent);
    if (file >= 0) return true;
    give_up("cannot create the input file", error);
    return false;
}

static bool write_all(const uint8_t *data, size_t length) {
    while (length) {
        ssize_t done = write(file, data, length);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return false;
        data += done;
        length -= (size_t)done;
    }
    return true;
}

void take_file(const uint8_t *payload, size_t length) {
    if (length < FIXED || length < FIXED + (size_t)get16(payload + 16)) {
        lose_track("a FILE that is cut off");
        return;
    }
    mode_t mode = get32(payload) & 0777; /* setuid means nothing under no_new_privs; not to be planted either */
    uint32_t flags = get32(payload + 4);
    size_t path_length = get16(payload + 16);
    const char *path = (const char *)payload + FIXED;
    if (flags & BEGIN) {
        if (!begin(path, path_length)) return;
    } else if (file < 0 || path_length != name_length || memcmp(path, name, name_length)) {
        lose_track("a FILE that was not begun");
        return;
    }
    if (get64(payload + 8) != offset_expected) {
        lose_track("a FILE with a gap");
        return;
    }
    const uint8_t *data = payload + FIXED + path_length;
    size_t data_length = length - FIXED - path_length;
    if (!write_all(data, data_length)) {
        give_up("cannot write the input file", errno);
        return;
    }
    offset_expected += data_length;
    if (!(flags & END)) return;
    if (fchmod(file, mode)) {
        give_up("cannot set the mode of the input file", errno);
        return;
    }
    int closed = close(file);
    file = -1;
    if (closed) give_up("cannot write the input file", errno);
}
