/* tools/kernels_mix.c - see kernels_mix.h. */
#include "tools/kernels_mix.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_LABELS 16384 /* basic blocks; a kernel of mosld has some hundreds */

/* ---- what one instruction is ---- */

static bool begins(const char *text, const char *with) { return strncmp(text, with, strlen(with)) == 0; }

static bool begins_one_of(const char *text, const char *const *list)
{
    for (; *list; list++)
        if (begins(text, *list))
            return true;
    return false;
}

/* Where `what` stands in the line that `text` begins; NULL where it does not. */
static const char *in_line(const char *text, const char *what)
{
    return memmem(text, strcspn(text, "\n"), what, strlen(what));
}

static bool has_before_space(const char *text, const char *what)
{
    return memmem(text, strcspn(text, " \t\n"), what, strlen(what)) != NULL;
}

/* Words that a memory instruction moves for a lane, from the end of its name: _b128 or _dwordx4 is four. ds_read2 moves two of each. */
static unsigned words(const char *text)
{
    static const struct {
        const char *part;
        unsigned words;
    } sizes[] = {{"b128", 4}, {"dwordx4", 4}, {"b96", 3}, {"dwordx3", 3}, {"b64", 2}, {"dwordx2", 2}};
    unsigned n = 1;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && n == 1; i++)
        if (has_before_space(text, sizes[i].part))
            n = sizes[i].words;
    bool two = begins(text, "ds_read2") || begins(text, "ds_write2") || has_before_space(text, "load_2addr") || has_before_space(text, "store_2addr");
    return two ? 2 * n : n;
}

static void count_vector(const char *text, struct kernels_mix *m)
{
    static const char *const multiply_adds[] = {"v_fma", "v_mac_", "v_mad_f", "v_mad_legacy", "v_mad_mix", "v_pk_fma", "v_dot", "v_dual_fmac",
                                                "v_dual_fma", "v_dual_dot", "v_madak", "v_madmk", "v_wmma", "v_mfma", "v_smfma", "v_swmma", NULL};
    static const char *const matrices[] = {"v_wmma", "v_mfma", "v_smfma", "v_swmma", NULL};
    m->vector++;
    m->multiply_add += begins_one_of(text, multiply_adds);
    m->matrix += begins_one_of(text, matrices);
}

/* `text` begins with the instruction's name. Waits, hints and padding count for nothing. */
static void count(const char *text, struct kernels_mix *m)
{
    static const char *const memory[] = {"buffer_", "global_", "flat_", "scratch_", "tbuffer_", "image_", NULL};
    static const char *const free_of_charge[] = {"s_waitcnt", "s_wait_", "s_nop", "s_delay_alu", "s_clause", "s_code_end", "s_inst_prefetch", NULL};
    if (begins(text, "v_")) {
        count_vector(text, m);
        const char *dual = in_line(text, ":: v_"); /* two operations in one */
        if (dual)
            count_vector(dual + 3, m);
    } else if (begins(text, "ds_")) {
        m->shared++;
        m->shared_words += words(text);
    } else if (begins_one_of(text, memory)) {
        m->global++;
        m->global_words += words(text);
    } else if (begins(text, "s_") && !begins_one_of(text, free_of_charge)) {
        m->scalar++;
    }
}

/* ---- loops: from a label to the last branch back to it ---- */

struct span {
    size_t begin, end; /* line numbers; end is the branch */
};

struct program {
    size_t n_lines;
    const char **lines; /* each begins with its first letter */
    size_t n_loops;
    struct span *loops;
};

/* The number of block BBn, or -1. */
static long block_number(const char *text)
{
    if (!begins(text, "BB") || !isdigit((unsigned char)text[2]))
        return -1;
    long n = strtol(text + 2, NULL, 10);
    return n < MAX_LABELS ? n : -1;
}

static bool split_lines(const char *assembly, struct program *p)
{
    size_t n = 1;
    for (const char *c = assembly; *c; c++)
        n += *c == '\n';
    p->lines = malloc(n * sizeof *p->lines);
    p->loops = malloc(n * sizeof *p->loops);
    for (const char *c = assembly; p->lines && *c;) {
        while (*c == ' ' || *c == '\t')
            c++;
        p->lines[p->n_lines++] = c;
        c += strcspn(c, "\n");
        c += *c == '\n';
    }
    return p->lines && p->loops;
}

static void find_loops(struct program *p, size_t *label_line)
{
    for (size_t i = 0; i < MAX_LABELS; i++)
        label_line[i] = SIZE_MAX;
    for (size_t i = 0; i < p->n_lines; i++) {
        long own = block_number(p->lines[i]);
        if (own >= 0)
            label_line[own] = i;
        if (!begins(p->lines[i], "s_branch") && !begins(p->lines[i], "s_cbranch"))
            continue;
        const char *target = in_line(p->lines[i], "BB");
        long to = target ? block_number(target) : -1;
        if (to < 0 || label_line[to] == SIZE_MAX) /* forward: its label has not come yet */
            continue;
        size_t k = 0;
        while (k < p->n_loops && p->loops[k].begin != label_line[to])
            k++;
        if (k == p->n_loops)
            p->loops[p->n_loops++].begin = label_line[to];
        p->loops[k].end = i;
    }
}

/* Where the branch in line i leads, when forward; 0 else. A branch that is taken only when no lane is left counts as not taken. */
static size_t jump_of(const struct program *p, const size_t *label_line, size_t i)
{
    const char *text = p->lines[i];
    bool branch = begins(text, "s_branch") || (begins(text, "s_cbranch") && !begins(text, "s_cbranch_exec"));
    const char *target = branch ? in_line(text, "BB") : NULL;
    long to = target ? block_number(target) : -1;
    return to >= 0 && label_line[to] != SIZE_MAX && label_line[to] > i ? label_line[to] : 0;
}

/* Whether line i belongs to a loop inside of `outer`. */
static bool is_deeper(const struct program *p, const struct span *outer, size_t i)
{
    for (size_t k = 0; k < p->n_loops; k++) {
        const struct span *s = &p->loops[k];
        bool inside = s->begin >= outer->begin && s->end <= outer->end && s->end - s->begin < outer->end - outer->begin;
        if (inside && i >= s->begin && i <= s->end)
            return true;
    }
    return false;
}

static unsigned depth_of(const struct program *p, const struct span *inner)
{
    unsigned depth = 0;
    for (size_t k = 0; k < p->n_loops; k++)
        depth += p->loops[k].begin <= inner->begin && p->loops[k].end >= inner->end;
    return depth;
}

/* Which of two ways through a loop is the one that was meant: it computes more, or moves more, or wastes less on the way. */
static bool preferable(const struct kernels_mix *a, const struct kernels_mix *b)
{
    if (a->multiply_add != b->multiply_add)
        return a->multiply_add > b->multiply_add;
    unsigned moved_a = a->shared_words + a->global_words, moved_b = b->shared_words + b->global_words;
    return moved_a != moved_b ? moved_a > moved_b : a->vector < b->vector;
}

struct way {
    bool reached;
    struct kernels_mix mix;
};

static void relax(struct way *to, const struct kernels_mix *mix)
{
    if (!to->reached || preferable(mix, &to->mix))
        *to = (struct way){true, *mix};
}

/* The preferable way from the loop's begin to its end, loops inside left out. `ways`: [n_lines + 1], scratch. */
static struct kernels_mix mix_of(const struct program *p, const size_t *label_line, const struct span *loop, struct way *ways)
{
    memset(ways + loop->begin, 0, (loop->end - loop->begin + 2) * sizeof *ways);
    ways[loop->begin].reached = true;
    for (size_t i = loop->begin; i <= loop->end; i++) {
        struct way here = ways[i];
        if (!here.reached)
            continue;
        if (!is_deeper(p, loop, i))
            count(p->lines[i], &here.mix);
        size_t jump = jump_of(p, label_line, i);
        if (jump && jump <= loop->end)
            relax(&ways[jump], &here.mix);
        if (!begins(p->lines[i], "s_branch") || i == loop->end)
            relax(&ways[i + 1], &here.mix);
    }
    return ways[loop->end + 1].mix;
}

/* A loop inside another turns more often: eight times, say. */
static double heat(const struct kernels_mix *m, unsigned depth)
{
    double turns = 1;
    for (unsigned i = 0; i < depth && i < 20; i++)
        turns *= 8;
    return turns * (1e6 * m->multiply_add + m->vector);
}

/* In units of one vector instruction of a subgroup. Shared memory gives a word to 32 lanes a cycle and the first cache to 16, for all SIMDs of
 * a compute unit together; a SIMD starts a vector instruction of 64 lanes in 4 cycles where there are four of them, in 2 where
 * there are two: so a word of shared memory costs what 2 vector instructions do, a word of the cache what 4 do, and a matrix
 * instruction of 16 x 16 x 16 what 16 do (RDNA3: 128 multiply-adds of f16 a cycle and SIMD). With matrix instructions, the peak is theirs. */
static double share_of_peak(const struct kernels_mix *m)
{
    double slots = m->vector + 15.0 * m->matrix;
    if (2.0 * m->shared_words > slots)
        slots = 2.0 * m->shared_words;
    if (4.0 * m->global_words > slots)
        slots = 4.0 * m->global_words;
    double useful = m->matrix ? 16.0 * m->matrix : m->multiply_add;
    return slots > 0 ? useful / slots : 0;
}

static void find_hottest(const struct program *p, const size_t *label_line, struct way *ways, struct kernels_mix *out)
{
    double hottest = -1;
    for (size_t k = 0; k < p->n_loops; k++) {
        struct kernels_mix m = mix_of(p, label_line, &p->loops[k], ways);
        double h = heat(&m, depth_of(p, &p->loops[k]));
        if (h > hottest) {
            hottest = h;
            *out = m;
        }
    }
    if (p->n_loops == 0)
        *out = mix_of(p, label_line, &(struct span){0, p->n_lines - 1}, ways);
    out->loop = p->n_loops > 0;
    out->share_of_peak = share_of_peak(out);
}

bool kernels_mix_read(const char *assembly, struct kernels_mix *out)
{
    *out = (struct kernels_mix){0};
    if (!strstr(assembly, "s_endpgm"))
        return false;
    struct program p = {0};
    size_t *label_line = malloc(MAX_LABELS * sizeof *label_line);
    bool good = split_lines(assembly, &p) && label_line;
    struct way *ways = good ? malloc((p.n_lines + 1) * sizeof *ways) : NULL;
    if (ways) {
        find_loops(&p, label_line);
        find_hottest(&p, label_line, ways, out);
    }
    free(ways);
    free(label_line);
    free(p.loops);
    free(p.lines);
    return good && ways && out->vector; /* RADV prints bare words where it has no disassembler for a family */
}
