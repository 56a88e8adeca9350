/* tools/bench_report.c - see bench_report.h. */
#include "tools/bench_report.h"

#include "tools/profiling.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- for people ---- */

static void print_peaks(const struct mosld_peaks *p)
{
    printf("\npeaks\n");
    if (p->registers > 0)
        printf("  multiply-adds on registers %10.1f GFLOP/s\n", p->registers / 1e9);
    if (p->blas > 0)
        printf("  BLAS, a cube a thread      %10.1f GFLOP/s\n", p->blas / 1e9);
    printf("  product, %4u x %4u x %4u %10.1f GFLOP/s\n", p->cube, p->cube, p->cube, p->product / 1e9);
    printf("  copy, read and written     %10.1f GB/s (%llu MiB)\n", p->copy_bytes / 1e9,
           (unsigned long long)(p->copy_size >> 20));
    printf("  a launch among many        %10.2f us\n", p->launch_seconds * 1e6);
    printf("  a launch waited for        %10.2f us\n", p->submit_seconds * 1e6);
}

static void print_ops(const struct bench_report *r)
{
    double all = 0;
    for (uint32_t i = 0; i < r->n_ops; i++)
        all += r->ops[i].times.median * r->ops[i].calls;
    printf("\nops, %u x %u tokens, MoSLD on q and v          best      median    GFLOP/s     GB/s   of peak      "
           "calls  of a step\n",
           r->batch.rows, r->batch.length);
    for (uint32_t i = 0; i < r->n_ops; i++) {
        const struct mosld_bench_op *op = &r->ops[i];
        printf("  %-17s %-22s %9.1f us %9.1f us ", op->name, op->shape, op->times.best * 1e6, op->times.median * 1e6);
        if (op->flops > 0)
            printf("%8.1f", op->flops / op->times.best / 1e9);
        else
            printf("%8s", "");
        printf(" %8.2f %6.1f %% %s %5u %8.2f %%\n", op->bytes / op->times.best / 1e9, 100 * op->share,
               op->memory_bound ? "mem " : "flop", op->calls, 100 * op->times.median * op->calls / all);
    }
    printf("  together %.1f ms a step: %.1f tokens/s\n", all * 1e3, (double)r->batch.rows * r->batch.length / all);
}

static void print_steps(const struct bench_report *r)
{
    const double mib = 1 << 20;
    printf("\na training step, %u x %u tokens   median      best   tokens/s   x none  processor   "
           "x none    trainable     memory: plan     taken   process peak\n",
           r->batch.rows, r->batch.length);
    for (uint32_t i = 0; i < r->n_variants; i++) {
        const struct mosld_bench_variant *v = &r->variants[i];
        printf("  %-26s %9.1f ms %7.1f ms %8.1f %8.3f %8.1f ms %8.3f %12llu %9.1f MiB %9.1f %9.1f MiB\n", v->name,
               v->median * 1e3, v->best * 1e3, v->tokens_per_second, v->ratio, v->cpu_seconds * 1e3, v->cpu_ratio,
               (unsigned long long)v->parameters, (double)v->planned / mib, (double)v->arenas / mib,
               (double)v->process_peak / mib);
    }
    printf("  medians of %u steps; x none: against no adapter in the same round; processor: seconds of all threads; "
           "memory: adapter, pass and\n"
           "  optimizer, beside the %.1f MiB of the model\n",
           r->variants[0].n, (double)r->variants[0].weights / mib);
}

static void print_decode(const struct bench_report *r)
{
    printf("decode  %u tokens of prompt, then one at a time%s\n", r->batch.rows * r->batch.length, r->read_rate > 0 ? "" : "; reading memory: not measured");
    if (r->read_rate > 0)
        printf("  memory is read at %.1f GB/s\n", r->read_rate / 1e9);
    printf("  %-24s %12s %12s %8s %14s %8s %10s %8s\n", "", "prompt tok/s", "decode tok/s", "x none", "processor ms", "x none", "MB a token", "of read");
    for (uint32_t i = 0; i < r->n_decode; i++) {
        const struct mosld_bench_decode *v = &r->decode[i];
        printf("  %-24s %12.1f %12.1f %8.3f %14.2f %8.3f %10.1f", v->name, r->batch.rows * r->batch.length / v->prefill_seconds, 1 / v->decode_seconds,
               v->ratio, 1e3 * v->processor_seconds, v->processor_ratio, (double)v->bytes / 1e6);
        if (v->dispatches > 0)
            printf("  %.0f dispatches a token", v->dispatches);
        if (r->read_rate > 0)
            printf(" %7.0f%%", 100 * (double)v->bytes / v->decode_seconds / r->read_rate);
        printf("\n");
    }
}

enum rt_status bench_report_text(const struct bench_report *r)
{
    printf("device  %s (%s)\n", r->device->name, r->device->driver);
    if (r->model)
        printf("model   %s, %.1f M parameters, weights %s\n", r->model_name, (double)r->model->parameters / 1e6,
               op_wtype_name(r->model->layers[0].linear[0].type));
    if (r->has_peaks)
        print_peaks(&r->peaks);
    if (r->ops)
        print_ops(r);
    if (r->ops && r->counters.n_chosen)
        bench_counters_print(&r->counters, r->ops, r->n_ops);
    if (r->variants)
        print_steps(r);
    if (r->decode)
        print_decode(r);
    return RT_OK;
}

/* ---- for programs ---- */

/* Numbers that were not measured are left out. */
static void put(cJSON *to, const char *key, double value)
{
    if (value > 0)
        cJSON_AddNumberToObject(to, key, value);
}

static void put_peaks(cJSON *to, const struct mosld_peaks *p)
{
    put(to, "registers_flops", p->registers);
    put(to, "blas_flops", p->blas);
    put(to, "product_flops", p->product);
    put(to, "product_cube", p->cube);
    put(to, "flops", p->flops);
    put(to, "copy_bytes_per_second", p->copy_bytes);
    put(to, "copy_size", (double)p->copy_size);
    put(to, "launch_seconds", p->launch_seconds);
    put(to, "submit_seconds", p->submit_seconds);
}

static void put_op(cJSON *to, const struct mosld_bench_op *op, const struct bench_counters *counters)
{
    cJSON_AddStringToObject(to, "name", op->name);
    cJSON_AddStringToObject(to, "shape", op->shape);
    put(to, "best_seconds", op->times.best);
    put(to, "median_seconds", op->times.median);
    put(to, "flops", op->flops / op->times.best);
    put(to, "bytes_per_second", op->bytes / op->times.best);
    put(to, "bound_seconds", op->bound);
    cJSON_AddStringToObject(to, "bound", op->memory_bound ? "memory" : "arithmetic");
    put(to, "share", op->share);
    put(to, "calls", op->calls);
    bench_counters_put(counters, op, to);
}

static void put_variant(cJSON *to, const struct mosld_bench_variant *v)
{
    cJSON_AddStringToObject(to, "name", v->name);
    if (!v->none) {
        cJSON_AddStringToObject(to, "method", mosld_method_names[v->adapter.method]);
        put(to, "r", v->adapter.r);
        put(to, "num_experts", v->adapter.num_experts[0]);
        put(to, "top_k", v->adapter.top_k);
    }
    put(to, "median_seconds", v->median);
    put(to, "best_seconds", v->best);
    put(to, "timed_steps", v->n);
    put(to, "tokens_per_second", v->tokens_per_second);
    put(to, "ratio", v->ratio);
    put(to, "cpu_seconds", v->cpu_seconds);
    put(to, "cpu_ratio", v->cpu_ratio);
    put(to, "parameters", (double)v->parameters);
    put(to, "weights_bytes", (double)v->weights);
    put(to, "planned_bytes", (double)v->planned);
    put(to, "allocated_bytes", (double)v->arenas);
    put(to, "process_peak_bytes", (double)v->process_peak);
}

static cJSON *object_in(cJSON *array)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddItemToArray(array, object);
    return object;
}

static void put_decode(cJSON *to, const struct mosld_bench_decode *v)
{
    cJSON_AddStringToObject(to, "name", v->name);
    put(to, "prefill_seconds", v->prefill_seconds);
    put(to, "decode_seconds", v->decode_seconds);
    put(to, "processor_seconds", v->processor_seconds);
    put(to, "ratio", v->ratio);
    put(to, "processor_ratio", v->processor_ratio);
    put(to, "weight_bytes", (double)v->bytes);
    put(to, "dispatches", v->dispatches);
}

static cJSON *document(const struct bench_report *r)
{
    cJSON *json = cJSON_CreateObject(), *device = cJSON_AddObjectToObject(json, "device");
    cJSON_AddStringToObject(device, "name", r->device->name);
    cJSON_AddStringToObject(device, "driver", r->device->driver);
    if (r->model) {
        cJSON *model = cJSON_AddObjectToObject(json, "model");
        cJSON_AddStringToObject(model, "name", r->model_name);
        cJSON_AddStringToObject(model, "weights", op_wtype_name(r->model->layers[0].linear[0].type));
        put(model, "parameters", (double)r->model->parameters);
    }
    if (r->has_peaks)
        put_peaks(cJSON_AddObjectToObject(json, "peaks"), &r->peaks);
    put(json, "rows", r->batch.rows);
    put(json, "length", r->batch.length);
    cJSON *ops = r->ops ? cJSON_AddArrayToObject(json, "ops") : NULL,
          *steps = r->variants ? cJSON_AddArrayToObject(json, "steps") : NULL;
    for (uint32_t i = 0; i < r->n_ops; i++)
        put_op(object_in(ops), &r->ops[i], &r->counters);
    for (uint32_t i = 0; i < r->n_variants; i++)
        put_variant(object_in(steps), &r->variants[i]);
    if (r->counters.n_chosen)
        cJSON_AddItemToObject(json, "counters", bench_counters_json(&r->counters));
    if (r->profiling && r->profiling->mode)
        cJSON_AddItemToObject(json, "profile", profiling_json(r->profiling));
    put(json, "read_bytes_per_second", r->read_rate);
    cJSON *decode = r->decode ? cJSON_AddArrayToObject(json, "decode") : NULL;
    for (uint32_t i = 0; i < r->n_decode; i++)
        put_decode(object_in(decode), &r->decode[i]);
    return json;
}

enum rt_status bench_report_json(const struct bench_report *r, struct rt_error *err)
{
    cJSON *json = document(r);
    char *text = json ? cJSON_Print(json) : NULL;
    if (text)
        printf("%s\n", text);
    cJSON_Delete(json);
    free(text);
    return text ? RT_OK : rt_fail(err, RT_NO_MEMORY, "no memory for the JSON document");
}
