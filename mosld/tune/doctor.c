/* mosld/tune/doctor.c - see doctor.h. */
#include "mosld/tune/doctor.h"

#include "mosld/ops/choice.h"
#include "mosld/tune/cases.h"
#include "shaders/step.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct work {
    const struct mosld_doctor_params *params;
    struct rt_error *err;
    uint32_t index;
    enum rt_status st; /* what ends it all */
};

/* A case with its memory on the device and, for a check, what is wanted. */
struct setup {
    const struct tune_case *c;
    struct rt_device *dev;
    struct tune_content content[OP_MAX_BINDINGS];
    struct rt_arena *arena;
    struct rt_span spans[OP_MAX_BINDINGS];
};

/* ---- setting up ---- */

static enum rt_status set_up(struct setup *s, struct rt_device *dev, const struct tune_case *c, bool check, struct rt_error *err)
{
    *s = (struct setup){.c = c, .dev = dev};
    void *ref[OP_MAX_BINDINGS];
    RT_TRY(rt_arena_create(dev, "doctor", &s->arena, err));
    for (uint32_t i = 0; i < c->op->n_bindings; i++) {
        if (!tune_content_make(c, i, check, &s->content[i]))
            return rt_fail(err, RT_NO_MEMORY, "no memory for a case of %s", c->op->name);
        ref[i] = s->content[i].ref;
        RT_TRY(rt_arena_add(s->arena, s->content[i].bytes ? (s->content[i].bytes + 3) & ~3ull : 4, c->op->bindings[i].name, &s->spans[i], err));
    }
    RT_TRY(rt_arena_commit(s->arena, err));
    if (check)
        c->op->ref(ref, c->push.bytes);
    return RT_OK;
}

static enum rt_status load(struct setup *s, struct rt_error *err)
{
    for (uint32_t i = 0; i < s->c->op->n_bindings; i++)
        RT_TRY(rt_upload(s->dev, s->spans[i], 0, s->content[i].device, s->content[i].bytes, err));
    return RT_OK;
}

static void tear_down(struct setup *s)
{
    for (uint32_t i = 0; i < OP_MAX_BINDINGS; i++)
        tune_content_finish(&s->content[i]);
    rt_arena_destroy(&s->arena);
}

/* ---- comparing ---- */

static void blame(struct mosld_trial *t, const char *binding, uint64_t at, double want, double got)
{
    t->verdict = MOSLD_WRONG;
    snprintf(t->why, sizeof t->why, "%s[%llu]: want %.6g, got %.6g", binding, (unsigned long long)at, want, got);
}

static void compare_floats(struct mosld_trial *t, const char *name, const float *got, const double *want, uint64_t n)
{
    double most = 0, worst = 0;
    uint64_t at = 0;
    for (uint64_t i = 0; i < n; i++)
        most = fmax(most, fabs(want[i]));
    for (uint64_t i = 0; i < n; i++) {
        double difference = isfinite(got[i]) ? fabs(got[i] - want[i]) : INFINITY;
        if (difference > worst)
            worst = difference, at = i;
    }
    double error = worst == 0 ? 0 : most > 0 ? worst / most : INFINITY;
    t->error = isfinite(error) ? fmax(t->error, error) : 1e30;
    if (error > MOSLD_WRONG_ABOVE)
        blame(t, name, at, want[at], got[at]);
}

static void compare_binding(struct mosld_trial *t, const struct setup *s, uint32_t i, const void *got)
{
    const struct tune_binding *b = &s->c->b[i];
    const char *name = s->c->op->bindings[i].name;
    if (s->c->op->bindings[i].data != OP_U32) {
        compare_floats(t, name, got, s->content[i].ref, b->n);
        return;
    }
    const uint32_t *g = got, *w = s->content[i].ref;
    if (b->compare == TUNE_STEP) {
        float numbers[2];
        double want[2];
        for (int k = 0; k < 2; k++) {
            float f;
            memcpy(&numbers[k], &g[STEP_GRAD_NORM + k], 4);
            memcpy(&f, &w[STEP_GRAD_NORM + k], 4);
            want[k] = f;
        }
        compare_floats(t, name, numbers, want, 2);
        return;
    }
    for (uint64_t k = 0; k < b->n; k++)
        if (g[k] != w[k]) {
            blame(t, name, k, w[k], g[k]);
            return;
        }
}

static enum rt_status check(struct setup *s, const struct op_variant *v, struct mosld_trial *t, struct rt_error *err)
{
    const struct op *op = s->c->op;
    RT_TRY(load(s, err));
    RT_TRY(op_launch_variant(s->dev, op, v, s->spans, s->c->push.bytes, err));
    RT_TRY(rt_finish(s->dev, err));
    for (uint32_t i = 0; i < op->n_bindings && t->verdict == MOSLD_PASSED; i++) {
        if (!(op->bindings[i].access & RT_WRITE) || s->c->b[i].compare == TUNE_IGNORE || s->content[i].bytes == 0)
            continue;
        void *got = malloc(s->content[i].bytes);
        enum rt_status st = got ? rt_download(s->dev, s->spans[i], 0, got, s->content[i].bytes, err)
                                : rt_fail(err, RT_NO_MEMORY, "no memory to compare %s", op->name);
        if (!st)
            compare_binding(t, s, i, got);
        free(got);
        RT_TRY(st);
    }
    return RT_OK;
}

/* ---- timing ---- */

struct launch {
    struct setup *s;
    const struct op_variant *v;
};

static enum rt_status launch(void *arg, struct rt_error *err)
{
    struct launch *l = arg;
    return op_launch_variant(l->s->dev, l->s->c->op, l->v, l->s->spans, l->s->c->push.bytes, err);
}

static enum rt_status measure(const struct work *w, struct setup *s, const struct op_variant *v, struct mosld_trial *t, struct rt_error *err)
{
    struct launch l = {s, v};
    struct mosld_times times;
    const struct mosld_bench bench = {.dev = s->dev, .seconds = w->params->seconds, .stop = w->params->stop};
    RT_TRY(mosld_measure(&bench, launch, &l, &times, err));
    t->seconds = times.best;
    return RT_OK;
}

/* ---- all of them ---- */

static void try(struct work *w, struct setup *s, const struct op_variant *v, struct mosld_trial *t)
{
    const struct mosld_doctor_params *p = w->params;
    struct rt_error err = {0};
    uint32_t index = w->index++;
    snprintf(t->variant, sizeof t->variant, "%s", v->name);
    if (index < p->first || (p->skip && p->skip(p->user, t)))
        return;
    if (p->stop && *p->stop) {
        w->st = rt_fail(w->err, RT_INTERRUPTED, "interrupted");
        return;
    }
    if (p->begin)
        p->begin(p->user, index, t);
    enum rt_status st = t->timed ? measure(w, s, v, t, &err) : check(s, v, t, &err);
    if (st) {
        t->verdict = MOSLD_FAILED;
        snprintf(t->why, sizeof t->why, "%.199s", err.text);
    }
    if (st == RT_DEVICE_LOST || st == RT_INTERRUPTED)
        w->st = rt_fail(w->err, st, "%s", err.text);
    if (p->end)
        p->end(p->user, index, t);
}

static const struct op_variant *choice_of_table(const struct rt_device *dev, const struct op *op, const void *push)
{
    for (uint32_t i = 0; i < op->n_variants; i++)
        if ((!op->variants[i].applies || op->variants[i].applies(push)) && op_would_take(dev, &op->variants[i]))
            return &op->variants[i];
    return NULL;
}

static void one_case(struct work *w, const struct tune_case *c, uint32_t class_, bool timed)
{
    struct rt_device *dev = w->params->dev;
    const struct op *op = c->op;
    const struct op_variant *table = choice_of_table(dev, op, c->push.bytes);
    struct setup s = {0};
    bool ready = false;
    for (uint32_t i = 0; i < op->n_variants && !w->st; i++) {
        const struct op_variant *v = &op->variants[i];
        if (!op_can_run(dev, v) || (v->applies && !v->applies(c->push.bytes)))
            continue;
        if (!ready && w->index >= w->params->first) { /* what is passed over needs no memory */
            w->st = set_up(&s, dev, c, !timed, w->err);
            ready = true;
            if (!w->st && timed)
                w->st = load(&s, w->err);
            if (w->st)
                break;
        }
        struct mosld_trial t = {.timed = timed, .first = v == table};
        snprintf(t.op, sizeof t.op, "%s", op->name);
        snprintf(t.label, sizeof t.label, "%s", c->label);
        op_class_name(op, class_, t.class_, sizeof t.class_);
        try(w, &s, v, &t);
    }
    if (ready)
        tear_down(&s);
}

static bool is_timed(const struct work *w, const struct op *op, uint32_t class_, const struct tune_case *c)
{
    int wtype = op_class_wtype(op, class_);
    for (uint32_t i = 0; i < op->n_bindings && wtype < 0; i++)
        wtype = op->bindings[i].data == OP_WEIGHT ? (int)c->b[i].wtype : -1;
    return wtype < 0 || w->params->wtypes >> wtype & 1;
}

static void round_of(struct work *w, bool timed)
{
    for (const struct op *const *op = op_table; *op && !w->st; op++) {
        if (w->params->only && strcmp(w->params->only, (*op)->name) != 0)
            continue;
        for (uint32_t class_ = 0; class_ < op_class_count(*op) && !w->st; class_++) {
            struct tune_case c;
            for (uint32_t which = 0; !w->st && tune_case_make(*op, class_, which, timed, &c); which++) {
                if (!timed || is_timed(w, *op, class_, &c))
                    one_case(w, &c, class_, timed);
                tune_case_finish(&c);
            }
        }
    }
}

enum rt_status mosld_doctor(const struct mosld_doctor_params *params, struct rt_error *err)
{
    struct work w = {.params = params, .err = err};
    round_of(&w, false);
    if (!w.st && params->time)
        round_of(&w, true);
    return w.st;
}

/* ---- what it says ---- */

static bool is_wrong(const struct mosld_trial *trials, size_t n, const struct mosld_trial *t)
{
    for (size_t i = 0; i < n; i++)
        if (trials[i].verdict != MOSLD_PASSED && strcmp(trials[i].op, t->op) == 0 && strcmp(trials[i].variant, t->variant) == 0)
            return true;
    return false;
}

static bool same_case(const struct mosld_trial *a, const struct mosld_trial *b)
{
    return a->timed && b->timed && strcmp(a->op, b->op) == 0 && strcmp(a->class_, b->class_) == 0 && strcmp(a->label, b->label) == 0;
}

static void add_wrong(const struct mosld_trial *trials, size_t i, cJSON *wrong)
{
    if (trials[i].verdict == MOSLD_PASSED || is_wrong(trials, i, &trials[i]))
        return;
    cJSON *item = cJSON_CreateObject();
    char why[300];
    snprintf(why, sizeof why, "%s, %s: %s", trials[i].class_, trials[i].label, trials[i].why);
    cJSON_AddStringToObject(item, "op", trials[i].op);
    cJSON_AddStringToObject(item, "variant", trials[i].variant);
    cJSON_AddStringToObject(item, "why", why);
    cJSON_AddItemToArray(wrong, item);
}

static const struct mosld_trial *twin(const struct mosld_trial *trials, size_t n, const struct mosld_trial *of, const char *variant)
{
    for (size_t i = 0; i < n; i++)
        if (same_case(&trials[i], of) && (variant ? strcmp(trials[i].variant, variant) == 0 : trials[i].first))
            return &trials[i];
    return NULL;
}

/* Whether the variant is slower than the tables' choice in some case of the class. */
static bool loses(const struct mosld_trial *trials, size_t n, const struct mosld_trial *t)
{
    for (size_t i = 0; i < n; i++) {
        if (!trials[i].timed || strcmp(trials[i].variant, t->variant) != 0 || strcmp(trials[i].op, t->op) != 0 ||
            strcmp(trials[i].class_, t->class_) != 0)
            continue;
        const struct mosld_trial *first = twin(trials, n, &trials[i], NULL);
        if (first && !is_wrong(trials, n, first) && trials[i].seconds > first->seconds)
            return true;
    }
    return false;
}

/* For the tables' choice among the trials of a case: the sound variant that is clearly faster, if there is one, and that loses in no other
 * case of the class. */
static void add_fastest(const struct mosld_trial *trials, size_t n, size_t i, cJSON *fastest)
{
    const struct mosld_trial *first = &trials[i], *best = first;
    if (!first->timed || !first->first)
        return;
    bool first_is_wrong = is_wrong(trials, n, first);
    for (size_t k = 0; k < n; k++)
        if (same_case(&trials[k], first) && strcmp(trials[k].variant, first->variant) != 0 && !is_wrong(trials, n, &trials[k]) &&
            !loses(trials, n, &trials[k]) && ((first_is_wrong && best == first) || trials[k].seconds < best->seconds * (best == first ? 0.95 : 1)))
            best = &trials[k];
    cJSON *classes = cJSON_GetObjectItemCaseSensitive(fastest, first->op);
    if (best == first || cJSON_GetObjectItemCaseSensitive(classes, first->class_))
        return;
    if (!classes)
        classes = cJSON_AddObjectToObject(fastest, first->op);
    cJSON_AddStringToObject(classes, first->class_, best->variant);
}

enum rt_status mosld_doctor_result(const struct mosld_trial *trials, size_t n, cJSON **wrong, cJSON **fastest, struct rt_error *err)
{
    *wrong = cJSON_CreateArray();
    *fastest = cJSON_CreateObject();
    if (!*wrong || !*fastest) {
        cJSON_Delete(*wrong);
        cJSON_Delete(*fastest);
        *wrong = *fastest = NULL;
        return rt_fail(err, RT_NO_MEMORY, "no memory for what the trials say");
    }
    for (size_t i = 0; i < n; i++) {
        add_wrong(trials, i, *wrong);
        add_fastest(trials, n, i, *fastest);
    }
    return RT_OK;
}
