#ifndef RT_WINDOWS_UTSNAME_H
#define RT_WINDOWS_UTSNAME_H

struct utsname {
    char sysname[16], nodename[1], release[64], machine[16]; /* the node's name stays empty */
};
int uname(struct utsname *system);

#endif
