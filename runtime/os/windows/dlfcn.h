/* Libraries that are already in the process, by the name that they have on Linux: libNAME.so is NAME.dll here. */
#ifndef RT_WINDOWS_DLFCN_H
#define RT_WINDOWS_DLFCN_H

#define RTLD_NOW 2
#define RTLD_NOLOAD 4
void *dlopen(const char *name, int flags); /* flags: RTLD_NOW | RTLD_NOLOAD */
void *dlsym(void *library, const char *name);
static inline int dlclose(void *library) { return (void)library, 0; } /* nothing was loaded */

#endif
