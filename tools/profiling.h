/* tools/profiling.h - --profile, --trace, --capture and --labels of the commands that run a model: docs/profiling.md. */
#ifndef MOSLD_PROFILING_H
#define MOSLD_PROFILING_H

#include "mosld/bench/peaks.h"
#include "mosld/profile/chrome.h"
#include "mosld/profile/profile.h"
#include "tools/options.h"

enum profiling_mode { PROFILING_OFF, PROFILING_ON, PROFILING_SERIAL };
extern const char *const profiling_modes[]; /* "off", "on", "serial" */

struct rt_device_params;
struct cJSON;

struct profiling_options {
    int mode;
    char *trace, *capture;
    bool labels;
};

#define PROFILING_OPTIONS(type, field) \
    {.name = "profile", \
     OPTION_CHOICE(type, field.mode, profiling_modes), \
     .bare = "on", \
     .command_line_only = true, \
     .section = "Profiling", \
     .help = "print where the time went; --profile=serial times every kernel alone"}, \
        {.name = "trace", \
         OPTION_STRING(type, field.trace), \
         .value = "FILE", \
         .command_line_only = true, \
         .help = "write a trace that ui.perfetto.dev and chrome://tracing open"}, \
        {.name = "capture", \
         OPTION_STRING(type, field.capture), \
         .value = "N[-M]", \
         .command_line_only = true, \
         .help = "delimit these steps, tokens or batches for the capture tool that is attached"}, \
    { \
        .name = "labels", OPTION_BOOL(type, field.labels), .command_line_only = true, \
        .help = "name everything for debuggers, also where none says that it is attached" \
    }

#define PROFILING_PHASES 16

struct profiling {
    struct rt_device *dev;      /* NULL: not started */
    const char *scope;          /* outermost scopes that --capture means; NULL: all. Set before the start */
    enum profiling_mode mode;
    struct mosld_profile profile;
    struct mosld_chrome *chrome;
    struct mosld_peaks peaks;
    bool has_peaks, ended, reported;
    char clock[64];
    struct profiling_phase {
        const char *name;
        double begin, end; /* seconds of CLOCK_MONOTONIC; end 0: it runs */
    } phase[PROFILING_PHASES];
    uint32_t n_phases;
    double origin;        /* the start of the trace, on the same clock */
    bool begun;           /* the first step has begun: the start is over */
    double start_build;   /* seconds of the last phase in which pipelines were built */
    struct {
        char purpose[48];
        uint64_t peak;
    } memory[16];
    uint32_t n_memory;
};

/* The start has come to something else, which `name`, a literal, says; NULL: to nothing that is named. Costs a look at the clock, also without a profile. */
void profiling_phase(struct profiling *p, const char *name);
/* What the device has to be opened with. RT_USAGE: --capture is no range. */
enum rt_status profiling_params(const struct profiling_options *o, struct rt_device_params *params, struct rt_error *err);
/* Begins, on a device that was just opened. Nothing where nothing was asked for. */
enum rt_status profiling_start(struct profiling *p, const struct profiling_options *o, struct rt_device *dev, struct rt_error *err);
/* The work is done: ends the trace and measures the device's peaks for the table. May be called again. */
enum rt_status profiling_end(struct profiling *p, struct rt_error *err);
/* Ends it if need be, and prints a table that was not reported; before the device is closed. A zeroed one is fine. */
void profiling_finish(struct profiling *p);

/* After profiling_end. Text goes to standard error, being no result of the command; nothing without --profile. */
void profiling_print(struct profiling *p);
struct cJSON *profiling_json(struct profiling *p); /* seconds, bytes, FLOPs of a step; NULL without --profile */

/* Ends, and prints the table, or adds it to `json` as "profile" where that is not NULL. */
enum rt_status profiling_report(struct profiling *p, struct cJSON *json, struct rt_error *err);

#endif
