/* tests/test_gpu_compilers.c - what the compilers of real GPUs make of the kernels that mosld would take there, against
 * tests/kernels/baseline.tsv.
 *
 * For each family, mosld kernels runs in an environment made by tools/gpu_compilers.sh --run, which fetches nothing: a family whose
 * compiler is not there is skipped aloud. A kernel fails that has more spills or scratch memory than its line (none, without a line), or
 * that costs over a fifth more. What costs is RADV's inverse throughput, elsewhere cycles or instructions. Other work of an invocation, or
 * another driver, changes these figures rightly: then `sh tools/gpu_compilers.sh --update` writes the lines anew, by this very
 * program (MOSLD_TEST_UPDATE=1). MOSLD_TEST_FAMILIES: names to look at instead of all. */
#include "tests/support/skip.h"

#include <cjson/cJSON.h>
#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#define BASELINE  MOSLD_SOURCE_DIR "/tests/kernels/baseline.tsv"
#define MORE      1.2
#ifdef __SANITIZE_ADDRESS__
#define SANITIZED 1
#else
#define SANITIZED 0
#endif
#define MAX_LINES 20000

static const char *const families[] = {"polaris10", "vega10", "renoir", "navi21", "navi31", "phoenix", "gfx1151", "gfx1200", "skl",  "tgl",
                                       "dg2",       "mtl",    "lnl",    "bmg",    "a630",   "a660",    "a740",    "a750",    "gp104", "tu102", "ga102"};
#define N_FAMILIES ((int)(sizeof families / sizeof *families))

struct line {
    char family[16], kernel[64];
    int subgroup;
    double registers, spills, scratch, occupancy, instructions, cost;
    double vector, multiply_add, share; /* of the hottest loop; -1: not known. share in percent of peak. */
};

struct lines {
    size_t n;
    struct line *list;
};

/* ---- the file ---- */

static const char header[] = "# What GPU compilers make of each kernel: written by sh tools/gpu_compilers.sh [--shims] --update, compared by tests/test_gpu_compilers.c\n"
                             "# family\tkernel\tsubgroup\tregisters\tspills\tscratch\toccupancy\tinstructions\tcost\tloop_vector\tloop_multiply_add\tshare_of_peak\n";

static struct lines new_lines(void)
{
    struct lines l = {0, calloc(MAX_LINES, sizeof(struct line))};
    ck_assert(l.list != NULL);
    return l;
}

static void read_file(struct lines *out)
{
    FILE *f = fopen(BASELINE, "r");
    ck_assert_msg(f || errno == ENOENT, "%s: %s", BASELINE, strerror(errno));
    char text[512];
    for (int number = 1; f && fgets(text, sizeof text, f); number++) {
        struct line *l = &out->list[out->n];
        if (text[0] == '#')
            continue;
        ck_assert_msg(out->n < MAX_LINES && sscanf(text, "%15s %63s %d %lf %lf %lf %lf %lf %lf %lf %lf %lf", l->family, l->kernel, &l->subgroup,
                                                   &l->registers, &l->spills, &l->scratch, &l->occupancy, &l->instructions, &l->cost, &l->vector,
                                                   &l->multiply_add, &l->share) == 12, "%s:%d: not twelve fields", BASELINE, number);
        out->n++;
    }
    if (f)
        fclose(f);
}

static void print_lines(FILE *f, const struct lines *all, const char *family)
{
    for (size_t i = 0; i < all->n; i++) {
        const struct line *l = &all->list[i];
        if (strcmp(l->family, family) == 0)
            fprintf(f, "%s\t%s\t%d\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\n", l->family, l->kernel, l->subgroup, l->registers, l->spills,
                    l->scratch, l->occupancy, l->instructions, l->cost, l->vector, l->multiply_add, l->share);
    }
}

static const struct line *find(const struct lines *all, const struct line *like)
{
    for (size_t i = 0; i < all->n; i++)
        if (strcmp(all->list[i].family, like->family) == 0 && strcmp(all->list[i].kernel, like->kernel) == 0 && all->list[i].subgroup == like->subgroup)
            return &all->list[i];
    return NULL;
}

/* ---- what the compiler says today ---- */

static double number(const cJSON *object, const char *key, double otherwise)
{
    const cJSON *item = cJSON_GetObjectItem(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : otherwise;
}

static void add_executable(struct lines *out, const char *family, const char *kernel, const cJSON *e)
{
    struct line l = {.subgroup = (int)number(e, "subgroup_size", 0), .registers = number(e, "registers", -1), .spills = number(e, "spills", 0),
                     .scratch = number(e, "scratch_bytes", 0), .occupancy = number(e, "occupancy", -1), .instructions = number(e, "instructions", -1)};
    const cJSON *loop = cJSON_GetObjectItem(e, "hottest_loop");
    snprintf(l.family, sizeof l.family, "%s", family);
    snprintf(l.kernel, sizeof l.kernel, "%s", kernel);
    l.cost = number(e, "inverse_throughput", number(e, "latency", l.instructions));
    l.vector = number(loop, "vector", -1);
    l.multiply_add = number(loop, "multiply_add", -1);
    l.share = loop ? 100 * number(loop, "share_of_peak", 0) : -1;
    if (find(out, &l)) /* a kernel that two variants share */
        return;
    ck_assert(out->n < MAX_LINES);
    out->list[out->n++] = l;
}

/* False where the family's compiler is not there. */
static bool compile(const char *family, struct lines *out)
{
    static char output[8 << 20];
    char command[2048];
    snprintf(command, sizeof command, "sh '%s/tools/gpu_compilers.sh' --run %s '%s' kernels --compile-only --mix --json 2>/dev/null", MOSLD_SOURCE_DIR,
             family, MOSLD_PROGRAM);
    FILE *f = popen(command, "r");
    ck_assert(f != NULL);
    size_t n = fread(output, 1, sizeof output - 1, f);
    output[n] = 0;
    int status = pclose(f);
    if (WIFEXITED(status) && WEXITSTATUS(status) == TEST_SKIPPED_STATUS)
        return false;
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: mosld kernels ended with %d", family, WIFEXITED(status) ? WEXITSTATUS(status) : status);
    cJSON *root = cJSON_Parse(output), *k, *e;
    ck_assert_msg(root && cJSON_IsTrue(cJSON_GetObjectItem(root, "statistics")), "%s: the driver gave no statistics", family);
    cJSON_ArrayForEach(k, cJSON_GetObjectItem(root, "kernels"))
        cJSON_ArrayForEach(e, cJSON_GetObjectItem(k, "executables"))
            add_executable(out, family, cJSON_GetObjectItem(k, "kernel")->valuestring, e);
    ck_assert_msg(out->n > 40, "%s: %zu kernels only", family, out->n);
    cJSON_Delete(root);
    return true;
}

/* ---- the tests ---- */

static bool is_asked_for(const char *family)
{
    const char *names = getenv("MOSLD_TEST_FAMILIES");
    const char *at = names ? strstr(names, family) : family;
    size_t n = strlen(family);
    return !names || (at && (at == names || at[-1] == ' ') && (at[n] == 0 || at[n] == ' '));
}

static bool updating(void) { return getenv("MOSLD_TEST_UPDATE") != NULL; }

START_TEST(no_kernel_spills_or_became_slower)
{
    const char *family = families[_i];
    if (updating() || !is_asked_for(family))
        return;
    struct lines now = new_lines(), then = new_lines();
    read_file(&then);
    if (!compile(family, &now)) {
        test_skipped("%s: its compiler is not here (tools/gpu_compilers.sh fetches it)", family);
        return;
    }
    unsigned faults = 0, unknown = 0;
    for (size_t i = 0; i < now.n; i++) {
        const struct line *l = &now.list[i], *old = find(&then, l);
        double spills = old ? old->spills : 0, scratch = old ? old->scratch : 0;
        if (l->spills > spills || l->scratch > scratch) {
            fprintf(stderr, "%s, %s, subgroup %d: %.0f spills, %.0f bytes of scratch; before, %.0f and %.0f\n", family, l->kernel, l->subgroup, l->spills,
                    l->scratch, spills, scratch);
            faults++;
        }
        if (old && l->cost > MORE * old->cost) {
            fprintf(stderr, "%s, %s, subgroup %d: costs %.0f, %.0f %% more than the %.0f before\n", family, l->kernel, l->subgroup, l->cost,
                    100 * (l->cost / old->cost - 1), old->cost);
            faults++;
        }
        unknown += !old;
    }
    if (unknown)
        fprintf(stderr, "%s: %u kernels are not in the table yet\n", family, unknown);
    free(now.list);
    free(then.list);
    ck_assert_msg(faults == 0, "%s: %u kernels are worse; if that is meant: sh tools/gpu_compilers.sh --update", family, faults);
}
END_TEST

START_TEST(the_table_is_written_anew)
{
    if (!updating())
        return;
    struct lines old = new_lines();
    read_file(&old);
    FILE *f = fopen(BASELINE, "w");
    ck_assert_msg(f != NULL, "%s: %s", BASELINE, strerror(errno));
    fputs(header, f);
    for (int i = 0; i < N_FAMILIES; i++) {
        struct lines now = new_lines();
        bool compiled = is_asked_for(families[i]) && compile(families[i], &now);
        if (is_asked_for(families[i]) && !compiled)
            test_skipped("%s: its compiler is not here, so its lines stay", families[i]);
        print_lines(f, compiled ? &now : &old, families[i]);
        free(now.list);
    }
    ck_assert_int_eq(fclose(f), 0);
    free(old.list);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("gpu_compilers");
    TCase *t = tcase_create("gpu_compilers");
    tcase_set_timeout(t, 7200);
    if (SANITIZED) {
        test_skipped("built with sanitizers, whose libraries the shims and these drivers do not go with");
    } else {
        tcase_add_loop_test(t, no_kernel_spills_or_became_slower, 0, N_FAMILIES);
        tcase_add_test(t, the_table_is_written_anew);
    }
    suite_add_tcase(suite, t);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
