/*
 * Tells what it can see and do where it runs. An input is a word and mostly an argument:
 *   "read PATH", "list PATH", "write PATH", "connect PORT", "fork COUNT", "io_uring", "mount", "env NAME".
 * The answer is what was asked for, or "error: ..." with the system's reason. Interface v1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "v1.h"

#define CHILDREN_MAX 512

static void say(const worker* self, const char* text) {
    self->append_output(self->context, text, strlen(text));
}

static void result(const worker* self, int failed) {
    if (failed) {
        say(self, "error: ");
        say(self, strerror(errno));
    } else {
        say(self, "done");
    }
}

static void read_file(const worker* self, const char* path) {
    char buffer[4096];
    ssize_t size;
    int fd = open(path, O_RDONLY);
    if (fd < 0) {
        result(self, 1);
        return;
    }
    while ((size = read(fd, buffer, sizeof buffer)) > 0) {
        self->append_output(self->context, buffer, (size_t)size);
    }
    if (size < 0) result(self, 1);
    close(fd);
}

static void list(const worker* self, const char* path) {
    struct dirent* entry;
    DIR* directory = opendir(path);
    if (directory == NULL) {
        result(self, 1);
        return;
    }
    while ((entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] == '.') continue;
        say(self, entry->d_name);
        say(self, "\n");
    }
    closedir(directory);
}

static void write_file(const worker* self, const char* path) {
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    result(self, fd < 0 || write(fd, "x", 1) != 1);
    if (fd >= 0) close(fd);
}

static void connect_to(const worker* self, const char* port) {
    struct sockaddr_in address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons((unsigned short)atoi(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    result(self, fd < 0 || connect(fd, (struct sockaddr*)&address, sizeof address) != 0);
    if (fd >= 0) close(fd);
}

/* Has so many children at once, if it may; answers how many there were. */
static void fork_many(const worker* self, const char* count) {
    pid_t children[CHILDREN_MAX];
    int wanted = atoi(count), made, i;
    char text[32];
    for (made = 0; made < wanted && made < CHILDREN_MAX; made++) {
        children[made] = fork();
        if (children[made] < 0) break;
        if (children[made] == 0) {
            for (;;) pause();
        }
    }
    for (i = 0; i < made; i++) {
        kill(children[i], SIGKILL);
        waitpid(children[i], NULL, 0);
    }
    snprintf(text, sizeof text, "%d", made);
    say(self, text);
}

int faas_init(void) { return 0; }

int faas_func_call(void* worker_handle, const char* input, size_t input_length) {
    const worker* self = worker_handle;
    char text[1024], *argument;
    const char* value;
    if (input_length >= sizeof text) return 1;
    memcpy(text, input, input_length);
    text[input_length] = 0;
    argument = strchr(text, ' ');
    if (argument != NULL) *argument++ = 0;
    if (argument == NULL) argument = text + input_length;

    if (strcmp(text, "read") == 0) {
        read_file(self, argument);
    } else if (strcmp(text, "list") == 0) {
        list(self, argument);
    } else if (strcmp(text, "write") == 0) {
        write_file(self, argument);
    } else if (strcmp(text, "connect") == 0) {
        connect_to(self, argument);
    } else if (strcmp(text, "fork") == 0) {
        fork_many(self, argument);
    } else if (strcmp(text, "io_uring") == 0) {
        result(self, syscall(SYS_io_uring_setup, 1, NULL) < 0);
    } else if (strcmp(text, "mount") == 0) {
        result(self, mount("none", "/tmp", "tmpfs", 0, NULL) != 0);
    } else if (strcmp(text, "env") == 0) {
        value = getenv(argument);
        say(self, value == NULL ? "" : value);
    } else {
        return 1;
    }
    return 0;
}
