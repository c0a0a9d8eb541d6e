/* What the kernel says of this process, of the first one, and of what surrounds them. */
#include "probe.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* Calls `line` with each line of a file; an unreadable one is told as one line that says so. */
static void each_line(const char *path, void (*line)(const char *what, char *text), const char *what) {
    FILE *file = fopen(path, "re");
    if (!file) {
        say("unreadable %s %d", path, errno);
        return;
    }
    char text[4096];
    while (fgets(text, sizeof text, file)) {
        text[strcspn(text, "\n")] = 0;
        line(what, text);
    }
    fclose(file);
}

static void plain(const char *what, char *text) { say("%s %s", what, text); }

void tell_lines(const char *what, const char *path) { each_line(path, plain, what); }

static void of_status(const char *what, char *text) {
    static const char *const fields[] = {"Name:", "Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:",
                                         "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:"};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (!strncmp(text, fields[i], strlen(fields[i]))) {
            for (char *at = text; *at; at++)
                if (*at == '\t') *at = ' ';
            say("status %s %s", what, text);
        }
}

void tell_status(const char *who, const char *path) { each_line(path, of_status, who); }

void tell_namespaces(void) {
    static const char *const names[] = {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64], target[64];
        snprintf(path, sizeof path, "/proc/self/ns/%s", names[i]);
        ssize_t length = readlink(path, target, sizeof target - 1);
        if (length < 0) continue;
        target[length] = 0;
        char *number = strchr(target, '[');
        if (number) say("namespace %s %lld", names[i], atoll(number + 1));
    }
}

static void of_process(const char *what, char *text) {
    static char name[64], uid[32];
    if (!strncmp(text, "Name:\t", 6)) snprintf(name, sizeof name, "%s", text + 6);
    if (strncmp(text, "Uid:\t", 5)) return;
    snprintf(uid, sizeof uid, "%.*s", (int)strcspn(text + 5, "\t"), text + 5);
    say("process %s %s %s", what, uid, name);
}

void tell_processes(void) {
    DIR *proc = opendir("/proc");
    if (!proc) return;
    say("own %d", (int)getpid());
    for (struct dirent *entry; (entry = readdir(proc));) {
        if (!isdigit((unsigned char)entry->d_name[0])) continue;
        char path[300];
        snprintf(path, sizeof path, "/proc/%s/status", entry->d_name);
        each_line(path, of_process, entry->d_name);
    }
    closedir(proc);
}

void tell_folder(const char *what, const char *path) {
    DIR *folder = opendir(path);
    if (!folder) {
        say("unreadable %s %d", path, errno);
        return;
    }
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (!strcmp(what, "file") && atoi(entry->d_name) == dirfd(folder)) continue;
        char target[512] = "";
        if (!strcmp(what, "file") && readlinkat(dirfd(folder), entry->d_name, target, sizeof target - 1) < 0) continue;
        say("%s %s %s", what, entry->d_name, target);
    }
    closedir(folder);
}

void tell_devices(void) {
    DIR *folder = opendir("/dev");
    if (!folder) return;
    for (struct dirent *entry; (entry = readdir(folder));) {
        struct stat info;
        if (fstatat(dirfd(folder), entry->d_name, &info, AT_SYMLINK_NOFOLLOW)) continue;
        if (S_ISBLK(info.st_mode) || S_ISCHR(info.st_mode))
            say("device %s %c %u %u", entry->d_name, S_ISBLK(info.st_mode) ? 'b' : 'c', major(info.st_rdev),
                minor(info.st_rdev));
    }
    closedir(folder);
}

void tell_path(const char *path) {
    struct stat info;
    say("path %d %s", stat(path, &info) ? errno : 0, path);
}
