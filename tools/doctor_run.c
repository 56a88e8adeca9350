/* tools/doctor_run.c - see doctor_run.h.
 *
 * A child opens the device, makes the trials and sends what it does through a pipe. When it dies, or is silent for too long, the trial that it
 * had begun is to blame, and another child goes on behind it. */
#include "tools/doctor_run.h"

#include "mosld/ops/choice.h"
#include "mosld/tune/tuning_file.h"
#include "tools/session.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MOST_CHILDREN 200
#define SILENCE 300 /* seconds: a compiler may take minutes over a large shader on a phone, but no longer */

struct message {
    enum { MESSAGE_BEGIN, MESSAGE_END, MESSAGE_DONE } kind;
    uint32_t index;
    enum rt_status st; /* done: how it ended */
    struct mosld_trial trial;
    char text[300];
};
_Static_assert(sizeof(struct message) <= 4096, "a pipe takes it in one piece");

/* ---- the child ---- */

struct child {
    const struct doctor_run *run;
    int pipe;
};

static void send_message(int fd, const struct message *m)
{
    if (write(fd, m, sizeof *m) != (ssize_t)sizeof *m)
        _exit(1); /* nobody listens */
}

static void on_begin(void *user, uint32_t index, const struct mosld_trial *trial)
{
    send_message(((struct child *)user)->pipe, &(struct message){.kind = MESSAGE_BEGIN, .index = index, .trial = *trial});
}

static void on_end(void *user, uint32_t index, const struct mosld_trial *trial)
{
    send_message(((struct child *)user)->pipe, &(struct message){.kind = MESSAGE_END, .index = index, .trial = *trial});
}

/* What failed a check is not timed. */
static bool skip(void *user, const struct mosld_trial *trial)
{
    const struct doctor_run *run = ((struct child *)user)->run;
    for (size_t i = 0; i < run->n && trial->timed; i++)
        if (run->trials[i].verdict != MOSLD_PASSED && strcmp(run->trials[i].op, trial->op) == 0 &&
            strcmp(run->trials[i].variant, trial->variant) == 0)
            return true;
    return false;
}

static enum rt_status open_device(const struct doctor_run *run, struct rt_device **dev, struct rt_error *err)
{
    return rt_device_open(&(struct rt_device_params){.name = run->device, .threads = run->threads}, dev, err);
}

static void child_main(const struct doctor_run *run, uint32_t first, int fd)
{
    struct rt_device *dev = NULL;
    struct rt_error err = {0};
    struct child child = {run, fd};
    const char *last;
    struct message done = {.kind = MESSAGE_DONE};
    done.st = open_device(run, &dev, &err);
    if (!done.st)
        done.st = mosld_doctor(&(struct mosld_doctor_params){.dev = dev, .seconds = run->seconds, .wtypes = run->wtypes, .only = run->only, .time = run->time,
                                                             .first = first, .stop = &session_interrupted, .user = &child, .skip = skip,
                                                             .begin = on_begin, .end = on_end},
                               &err);
    if (!done.st && rt_validation_messages(dev, &last))
        done.st = rt_fail(&err, RT_FAILED, "the validation layer spoke: %.200s", last);
    snprintf(done.text, sizeof done.text, "%.299s", err.text);
    send_message(fd, &done);
    rt_device_close(&dev);
    _exit(0);
}

/* ---- the parent ---- */

static enum rt_status append(struct doctor_run *run, size_t *room, const struct mosld_trial *t, struct rt_error *err)
{
    if (run->n == *room) {
        size_t grown_room = *room ? 2 * *room : 256;
        struct mosld_trial *grown = realloc(run->trials, grown_room * sizeof *grown);
        if (!grown)
            return rt_fail(err, RT_NO_MEMORY, "no memory for the trials");
        run->trials = grown;
        *room = grown_room;
    }
    run->trials[run->n++] = *t;
    return RT_OK;
}

/* The next message; false at the end of the child, or where it is silent for too long. */
static bool receive(int fd, struct message *m, bool *silent)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int ready;
    do
        ready = poll(&p, 1, SILENCE * 1000);
    while (ready < 0 && errno == EINTR);
    *silent = ready == 0;
    if (ready <= 0)
        return false;
    size_t got = 0;
    while (got < sizeof *m) {
        ssize_t n = read(fd, (char *)m + got, sizeof *m - got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    return true;
}

struct progress {
    size_t room;
    uint32_t first;        /* where the next child begins */
    bool open;             /* a trial was begun and has not ended */
    struct mosld_trial at; /* it */
    bool done;
};

static enum rt_status take(struct doctor_run *run, struct progress *p, const struct message *m, struct rt_error *err)
{
    if (m->kind == MESSAGE_BEGIN) {
        p->open = true;
        p->at = m->trial;
        p->first = m->index + 1;
        progress_line("%s %s %s (%s)", m->trial.timed ? "timing" : "checking", m->trial.op, m->trial.variant, m->trial.label);
        return RT_OK;
    }
    if (m->kind == MESSAGE_END) {
        p->open = false;
        return append(run, &p->room, &m->trial, err);
    }
    p->done = m->st != RT_DEVICE_LOST; /* that was a trial's verdict, and the next child goes on */
    return p->done && m->st ? rt_fail(err, m->st, "%s", m->text) : RT_OK;
}

/* One child, from its fork to its end. */
static enum rt_status one_child(struct doctor_run *run, struct progress *p, struct rt_error *err)
{
    int fds[2], status = 0;
    fflush(NULL);
    if (pipe(fds) != 0)
        return rt_fail(err, RT_FAILED, "no pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        close(fds[0]);
        child_main(run, p->first, fds[1]);
    }
    close(fds[1]);
    enum rt_status st = pid < 0 ? rt_fail(err, RT_FAILED, "no process: %s", strerror(errno)) : RT_OK;
    struct message m;
    bool silent = false;
    while (pid > 0 && !st && !p->done && receive(fds[0], &m, &silent))
        st = take(run, p, &m, err);
    close(fds[0]);
    if (pid > 0 && (silent || st))
        kill(pid, SIGKILL);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (st || p->done)
        return st;
    if (!p->open && !WIFEXITED(status))
        return rt_fail(err, RT_NO_DEVICE, "the driver ends the program (signal %d) before anything has run: choose another --device", WTERMSIG(status));
    if (p->open) {
        p->open = false;
        p->at.verdict = MOSLD_ENDED;
        if (silent)
            snprintf(p->at.why, sizeof p->at.why, "it did not come back within %d s", SILENCE);
        else
            snprintf(p->at.why, sizeof p->at.why, "it ended the program, with signal %d", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
        st = append(run, &p->room, &p->at, err);
    }
    return st;
}

/* Bans what is wrong on the open device, as a run will, and notes where nothing stands in. */
static enum rt_status judge(struct doctor_run *run, struct rt_error *err)
{
    RT_TRY(mosld_doctor_result(run->trials, run->n, &run->wrong, &run->fastest, err));
    int n = cJSON_GetArraySize(run->wrong);
    run->replaceable = calloc((size_t)n + 1, sizeof *run->replaceable);
    if (!run->replaceable)
        return rt_fail(err, RT_NO_MEMORY, "no memory for what the trials say");
    for (int i = 0; i < n; i++) {
        const cJSON *item = cJSON_GetArrayItem(run->wrong, i);
        const struct op *op = op_find(cJSON_GetObjectItem(item, "op")->valuestring);
        const struct op_variant *v = op ? op_variant_find(op, cJSON_GetObjectItem(item, "variant")->valuestring) : NULL;
        run->replaceable[i] = v && op_choice_ban(run->dev, op, v);
    }
    op_choice_reset(run->dev);
    return RT_OK;
}

enum rt_status doctor_run(struct doctor_run *run, struct rt_error *err)
{
    struct progress p = {0};
    enum rt_status st = RT_OK;
    for (int i = 0; i < MOST_CHILDREN && !p.done && !st; i++)
        st = one_child(run, &p, err);
    progress_line("%s", "");
    if (!st && !p.done)
        st = rt_fail(err, RT_NO_DEVICE, "the driver failed %d times: nothing is to be had from this device", MOST_CHILDREN);
    if (!st)
        st = open_device(run, &run->dev, err);
    if (!st)
        st = judge(run, err);
    if (!st && run->write) {
        st = mosld_tuning_write(run->dev, run->wrong, run->fastest, err);
        run->path = st ? NULL : mosld_tuning_path(run->dev);
    }
    return st;
}

void doctor_run_finish(struct doctor_run *run)
{
    rt_device_close(&run->dev);
    cJSON_Delete(run->wrong);
    cJSON_Delete(run->fastest);
    free(run->replaceable);
    free(run->trials);
    free(run->path);
    run->trials = NULL;
    run->wrong = run->fastest = NULL;
    run->replaceable = NULL;
    run->path = NULL;
    run->n = 0;
}
