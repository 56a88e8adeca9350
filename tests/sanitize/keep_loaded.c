/* tests/sanitize/keep_loaded.c - for sanitized builds: no library is unloaded.
 *
 * LeakSanitizer looks at the end of the process, when the Vulkan loader would have closed its drivers and layers: their leaks would
 * then have no library to be suppressed by. This dlclose takes the C library's place for the loader. */
int dlclose(void *handle);
int dlclose(void *handle)
{
    (void)handle;
    return 0;
}
