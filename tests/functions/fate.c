/*
 * Meets the end that the input names, and answers anything else with "alive". While the file exists that
 * FATE names, every call aborts; where FATE is "silent", the library is loaded for ever. Interface v1.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "v1.h"

static pthread_t launcher;

int faas_init(void) {
    const char* fate = getenv("FATE");
    launcher = pthread_self();
    while (fate != NULL && strcmp(fate, "silent") == 0) pause();
    return 0;
}

/* The launcher's socket: says nothing more on it, or nonsense. */
static void spoil_control(int says_nonsense) {
    int fd, type;
    for (fd = 3; fd < 64; fd++) {
        socklen_t size = sizeof type;
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_SEQPACKET) continue;
        if (says_nonsense)
            (void)!write(fd, "nonsense", 8);
        else
            shutdown(fd, SHUT_WR);
    }
    for (;;) pause();
}

int faas_func_call(void* worker_handle, const char* input, size_t input_length) {
    const worker* self = worker_handle;
    const char* fate = getenv("FATE");
    char how[16] = "";
    if (input_length < sizeof how) memcpy(how, input, input_length);

    if (fate != NULL && access(fate, F_OK) == 0) abort();
    if (strcmp(how, "exit") == 0) exit(3);
    if (strcmp(how, "segv") == 0) *(volatile char*)16 = 1;
    if (strcmp(how, "abort") == 0) abort();
    if (strcmp(how, "wait") == 0) for (;;) pause();
    if (strcmp(how, "hang up") == 0) spoil_control(0);
    if (strcmp(how, "nonsense") == 0) spoil_control(1);
    if (strcmp(how, "end thread") == 0) pthread_exit(NULL);
    if (strcmp(how, "end launcher") == 0) {
        pthread_cancel(launcher);
        for (;;) pause();
    }
    self->append_output(self->context, "alive", 5);
    return 0;
}
