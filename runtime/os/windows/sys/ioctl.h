/* The size of the console. */
#ifndef RT_WINDOWS_IOCTL_H
#define RT_WINDOWS_IOCTL_H

#define TIOCGWINSZ 1
struct winsize {
    unsigned short ws_row, ws_col;
};
int ioctl(int fd, int request, struct winsize *size); /* TIOCGWINSZ alone */

#endif
