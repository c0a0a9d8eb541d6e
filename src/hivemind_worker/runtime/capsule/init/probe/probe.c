/* The words on hivemind-probe's command line, each one thing to try, and how its lines are printed. */
#include "probe.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* One line, with everything unprintable in it as '?': names come from whoever mounted or named things. */
void say(const char *format, ...) {
    char line[4200];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    if (length < 0) return;
    if ((size_t)length > sizeof line - 2) length = sizeof line - 2;
    for (int i = 0; i < length; i++)
        if ((unsigned char)line[i] < ' ' || (unsigned char)line[i] > '~') line[i] = '?';
    line[length++] = '\n';
    for (int at = 0; at < length;) {
        ssize_t written = write(1, line + at, (size_t)(length - at));
        if (written <= 0) _exit(71);
        at += (int)written;
    }
}

int in_child(int (*work)(void *), void *with) {
    pid_t child = fork();
    if (!child) _exit(work(with));
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static void tell_limit(const char *name, int resource) {
    struct rlimit limit;
    if (!getrlimit(resource, &limit))
        say("limit %s %llu %llu", name, (unsigned long long)limit.rlim_cur, (unsigned long long)limit.rlim_max);
}

static void facts(void) {
    struct utsname names;
    if (!uname(&names)) say("host %s", names.nodename);
    tell_status("self", "/proc/self/status");
    tell_status("first", "/proc/1/status");
    tell_lines("mount", "/proc/self/mountinfo");
    tell_lines("oom-self", "/proc/self/oom_score_adj");
    tell_lines("oom-first", "/proc/1/oom_score_adj");
    tell_lines("label", "/proc/self/attr/current");
    tell_lines("interface", "/proc/self/net/dev");
    tell_lines("route", "/proc/self/net/route");
    tell_lines("socket", "/proc/self/net/unix");
    tell_lines("quota", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us");
    tell_lines("quota", "/sys/fs/cgroup/cpu.max");
    tell_namespaces();
    tell_processes();
    tell_folder("file", "/proc/self/fd");
    tell_folder("root", "/");
    tell_devices();
    tell_limit("nofile", RLIMIT_NOFILE);
    tell_limit("core", RLIMIT_CORE);
    tell_limit("fsize", RLIMIT_FSIZE);
    tell_limit("nproc", RLIMIT_NPROC);
    tell_limit("data", RLIMIT_DATA);
    for (char **entry = environ; *entry; entry++) say("variable %.*s", (int)strcspn(*entry, "="), *entry);
}

/* Each argument is one thing to try: name=value, in the order in which they are tried. */
static void attempt(const char *argument) {
    size_t name = strcspn(argument, "=");
    const char *value = argument[name] ? argument + name + 1 : "";
    char *rest = NULL;
#define IS(word) (name == sizeof word - 1 && !strncmp(argument, word, name))
    if (IS("facts")) facts();
    else if (IS("calls")) try_calls();
    else if (IS("writes")) try_writes();
    else if (IS("first")) try_first_process();
    else if (IS("network")) try_network(value);
    else if (IS("path")) tell_path(value);
    else if (IS("fill")) fill(value);
    else if (IS("files")) open_up_to(atol(value));
    else if (IS("forks")) fork_up_to(atol(value));
    else if (IS("memory")) allocate_over(atol(value));
    else if (IS("processor")) {
        long milliseconds = strtol(value, &rest, 10);
        spin(milliseconds, *rest ? atol(rest + 1) : 1);
    } else say("unknown %s", argument);
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) attempt(argv[i]);
    say("end %d", argc - 1);
    return 0;
}
