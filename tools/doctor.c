/* tools/doctor.c - mosld doctor: whether a driver computes what it should, and the text that a user can send in. */
#include "tools/commands.h"

#include "mosld/ops/choice.h"
#include "mosld/ops/weight.h"
#include "tools/doctor_report.h"
#include "tools/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct doctor_options {
    char *device, *report, *op;
    int64_t threads;
    double seconds;
    struct option_list weights;
    bool json, timing, save;
};

#define FIELD struct doctor_options
static const struct option table[] = {
    {.name = "device",
     OPTION_STRING(FIELD, device),
     .value = "NAME",
     .section = "Device",
     .help = "an index or a part of a name of `mosld devices`, or host; auto: the best GPU, else the host"},
    {.name = "threads", OPTION_INT(FIELD, threads, 0, 1024), .help = "of the host device; 0: one a processor"},
    {.name = "op", OPTION_STRING(FIELD, op), .value = "NAME", .section = "What is tried", .help = "one op alone, such as matmul_nt"},
    {.name = "timing", OPTION_BOOL(FIELD, timing), .help = "time the variants too, and take the fastest"},
    {.name = "weights",
     OPTION_STRINGS(FIELD, weights),
     .commas = true,
     .value = "LIST",
     .help = "types of frozen weights that are timed; f32,f16,q8_0,q4_0,q4_1 unless given; all are checked"},
    {.name = "seconds", OPTION_REAL(FIELD, seconds, 0, 60), .help = "for each time, about"},
    {.name = "save", OPTION_BOOL(FIELD, save), .section = "Output", .help = "write what was found to the tuning file, which other commands heed"},
    {.name = "report",
     OPTION_STRING(FIELD, report),
     .value = "FILE",
     .help = "write a text to send in, without names of people, hosts or paths; - is standard output"},
    {.name = "json", OPTION_BOOL(FIELD, json), .help = "print one JSON document"},
};

uint32_t doctor_wtypes_default(void)
{
    return 1u << OP_W_F32 | 1u << OP_W_F16 | 1u << OP_W_Q8_0 | 1u << OP_W_Q4_0 | 1u << OP_W_Q4_1;
}

static enum rt_status parse_types(const struct option_list *list, uint32_t *out, struct rt_error *err)
{
    *out = list->n ? 0 : doctor_wtypes_default();
    for (size_t i = 0; i < list->n; i++) {
        int type = 0;
        while (type < OP_W_TYPES && strcmp(list->item[i], op_wtype_name((enum op_wtype)type)) != 0)
            type++;
        if (type == OP_W_TYPES)
            return rt_fail(err, RT_USAGE, "--weights: there is no type '%s': f32, f16, q8_0, q4_0 and q4_1 are some", list->item[i]);
        *out |= 1u << type;
    }
    return RT_OK;
}

struct doctor_command {
    struct doctor_options o;
    struct doctor_run r;
};

static enum rt_status write_report(const struct doctor_run *r, const char *path, struct rt_error *err)
{
    FILE *to = strcmp(path, "-") == 0 ? stdout : fopen(path, "w");
    if (!to)
        return rt_fail(err, RT_FAILED, "%s: cannot be written: %s", path, strerror(errno));
    doctor_report_text(r, to);
    if (to != stdout && fclose(to) != 0)
        return rt_fail(err, RT_FAILED, "%s: cannot be written: %s", path, strerror(errno));
    return RT_OK;
}

static enum rt_status run(void *state, const struct options *given, struct rt_error *err)
{
    struct doctor_command *c = state;
    (void)given;
    c->r = (struct doctor_run){.device = c->o.device, .threads = (int)c->o.threads, .seconds = c->o.seconds, .only = c->o.op, .time = c->o.timing,
                               .write = c->o.save && !c->o.op}; /* what one op says is no whole file */
    if (c->o.op && !op_find(c->o.op))
        return rt_fail(err, RT_USAGE, "--op: there is no op '%s'", c->o.op);
    RT_TRY(parse_types(&c->o.weights, &c->r.wtypes, err));
    RT_TRY(doctor_run(&c->r, err));
    if (c->o.json)
        RT_TRY(doctor_report_json(&c->r, err));
    else if (!c->o.report || strcmp(c->o.report, "-") != 0)
        doctor_report_summary(&c->r, stdout);
    return c->o.report && (!c->o.json || strcmp(c->o.report, "-") != 0) ? write_report(&c->r, c->o.report, err) : RT_OK;
}

static void finish(void *state) { doctor_run_finish(&((struct doctor_command *)state)->r); }

int cmd_doctor(int argc, char **argv)
{
    struct doctor_command c = {.o = {.device = "auto", .seconds = 0.1, .timing = true, .save = true}};
    return session_main(&(struct session_command){.name = "doctor",
                                                  .usage = "mosld doctor [--device NAME] [--report FILE] [options]",
                                                  .table = table,
                                                  .n = sizeof table / sizeof *table,
                                                  .values = &c.o,
                                                  .interruptible = true,
                                                  .run = run,
                                                  .finish = finish,
                                                  .state = &c},
                        argc, argv);
}
