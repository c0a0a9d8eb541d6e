/* hivemind-probe: a task of ours that tries what its capsule is to prevent, and prints what came of it, a line each. It judges
 * nothing: `runtime/capsule/defences.py` does. Every attempt is made so that it does no harm where nothing prevents it. */
#ifndef HIVEMIND_PROBE_H
#define HIVEMIND_PROBE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <stddef.h>
#include <stdint.h>

/* probe.c */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
int in_child(int (*work)(void *), void *with); /* what it returned, 1000 + signal where one ended it, -1: no child */

/* calls.c */
void try_calls(void);
void try_writes(void);
void try_first_process(void);
void try_network(const char *address); /* an IPv4 or IPv6 address: is there a way to it? Nothing is sent */

/* facts.c */
void tell_status(const char *who, const char *path);
void tell_lines(const char *what, const char *path);
void tell_namespaces(void);
void tell_processes(void);
void tell_folder(const char *what, const char *path);
void tell_devices(void);
void tell_path(const char *path);

/* strain.c */
void fill(const char *spec);    /* FOLDER:BYTES:FILES, the caps that are promised; FILES 0: none */
void fork_up_to(long count);
void allocate_over(long bytes);
void spin(long milliseconds, long processes);
void open_up_to(long count);

#endif
