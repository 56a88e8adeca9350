/* tools/pull_http.c - see pull_http.h. */
#if defined HAVE_LIBCURL && defined HAVE_LIBCRYPTO
#include "tools/pull_http.h"

#include "mosld/io/file.h"
#include "tools/session.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRIES = 5, MOST_TRIES = 500, REDIRECTS = 5, CONNECT_SECONDS = 20, STALL_SECONDS = 60, MOST_JSON = 32 << 20 };

struct http {
    CURL *curl;
    char *endpoint, *token;
    char wrong[CURL_ERROR_SIZE];
    /* of the request under way */
    const char *what;
    char *body;
    size_t n;
    int fd;
    uint64_t at, size; /* of the file: what is there, and the whole */
    bool checked;      /* the status of the download has been looked at */
    int write_errno;
    char etag[HTTP_ETAG_BYTES], linked_etag[HTTP_ETAG_BYTES];
    uint64_t length, linked_length;
    char location[2000];
};

/* ---- opening ---- */

static char *read_token(void)
{
    const char *token = getenv("HF_TOKEN"), *file = getenv("HF_TOKEN_PATH"), *home = getenv("HF_HOME"), *user = getenv("HOME");
    char *path = NULL, *text = NULL;
    size_t n;
    if (token)
        return *token ? strdup(token) : NULL;
    if (file && *file)
        path = strdup(file);
    else if (home && *home)
        path = file_join(home, "token");
    else if (user && *user)
        path = file_join(user, ".cache/huggingface/token");
    if (path && file_read(path, 4096, &text, &n, NULL) == RT_OK)
        text[strcspn(text, " \r\n\t")] = 0;
    free(path);
    if (text && *text)
        return text;
    free(text);
    return NULL;
}

enum rt_status http_open(struct http **out, struct rt_error *err)
{
    const char *endpoint = getenv("HF_ENDPOINT"), *offline = getenv("HF_HUB_OFFLINE");
    struct http *h = *out = calloc(1, sizeof *h);
    if (offline && (strcmp(offline, "1") == 0 || strcasecmp(offline, "true") == 0))
        return rt_fail(err, RT_USAGE, "HF_HUB_OFFLINE is set: nothing is fetched");
    if (!endpoint || !*endpoint)
        endpoint = "https://huggingface.co";
    if (strncmp(endpoint, "https://", 8) != 0 && strncmp(endpoint, "http://", 7) != 0)
        return rt_fail(err, RT_USAGE, "HF_ENDPOINT: '%.100s' is no http or https address", endpoint);
    if (!h || curl_global_init(CURL_GLOBAL_DEFAULT) || !(h->curl = curl_easy_init()) || !(h->endpoint = strdup(endpoint)))
        return rt_fail(err, RT_NO_MEMORY, "no memory for a connection");
    for (size_t n = strlen(h->endpoint); n > 8 && h->endpoint[n - 1] == '/'; n--)
        h->endpoint[n - 1] = 0;
    h->token = read_token();
    h->fd = -1;
    return RT_OK;
}

void http_close(struct http **http)
{
    struct http *h = *http;
    if (!h)
        return;
    if (h->curl)
        curl_easy_cleanup(h->curl);
    free(h->endpoint);
    free(h->token);
    free(h);
    *http = NULL;
}

/* ---- a request ---- */

static int on_progress(void *user, curl_off_t total, curl_off_t now, curl_off_t up_total, curl_off_t up)
{
    struct http *h = user;
    (void)total;
    (void)up_total;
    (void)up;
    if (session_interrupted)
        return 1;
    if (h->fd >= 0 && h->size != UINT64_MAX && h->size > 0) {
        double mib = 1 << 20;
        curl_off_t rate = 0;
        curl_easy_getinfo(h->curl, CURLINFO_SPEED_DOWNLOAD_T, &rate);
        progress_line("%.40s  %.1f of %.1f MiB, %d %%, %.1f MiB/s", h->what, (double)h->at / mib, (double)h->size / mib,
                      (int)(100 * (double)h->at / (double)h->size), now ? (double)rate / mib : 0.0);
    }
    return 0;
}

static void take_etag(char to[HTTP_ETAG_BYTES], const char *value, size_t n)
{
    while (n && (*value == ' ' || *value == '\t'))
        value++, n--;
    if (n > 2 && value[0] == 'W' && value[1] == '/')
        value += 2, n -= 2;
    while (n && strchr(" \r\n\t", value[n - 1]))
        n--;
    if (n >= 2 && value[0] == '"' && value[n - 1] == '"')
        value++, n -= 2;
    to[0] = 0;
    if (n < HTTP_ETAG_BYTES) {
        memcpy(to, value, n);
        to[n] = 0;
    }
    if (strspn(to, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-") != strlen(to))
        to[0] = 0; /* it would become a file's name */
}

static size_t on_header(char *data, size_t one, size_t n, void *user)
{
    struct http *h = user;
    (void)one;
    if (n > 5 && strncasecmp(data, "etag:", 5) == 0)
        take_etag(h->etag, data + 5, n - 5);
    else if (n > 14 && strncasecmp(data, "x-linked-etag:", 14) == 0)
        take_etag(h->linked_etag, data + 14, n - 14);
    else if (n > 14 && strncasecmp(data, "x-linked-size:", 14) == 0)
        h->linked_length = strtoull(data + 14, NULL, 10);
    else if (n > 15 && strncasecmp(data, "content-length:", 15) == 0)
        h->length = strtoull(data + 15, NULL, 10);
    else if (n > 9 && strncasecmp(data, "location:", 9) == 0 && n - 9 < sizeof h->location) {
        size_t skip = 9 + strspn(data + 9, " \t");
        snprintf(h->location, sizeof h->location, "%.*s", (int)(n - skip), data + skip);
        h->location[strcspn(h->location, "\r\n")] = 0;
    }
    return n;
}

static size_t on_body(char *data, size_t one, size_t n, void *user)
{
    struct http *h = user;
    (void)one;
    if (h->n + n > MOST_JSON)
        return 0;
    char *grown = realloc(h->body, h->n + n + 1);
    if (!grown)
        return 0;
    h->body = grown;
    memcpy(h->body + h->n, data, n);
    h->body[h->n += n] = 0;
    return n;
}

/* A piece of a file. What is there already counts only if the server goes on where it was asked to. */
static size_t on_file(char *data, size_t one, size_t n, void *user)
{
    struct http *h = user;
    (void)one;
    if (!h->checked) {
        long status = 0;
        curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &status);
        h->checked = true;
        if (status == 200 && h->at && (ftruncate(h->fd, 0) != 0 || lseek(h->fd, 0, SEEK_SET) != 0)) {
            h->write_errno = errno;
            return 0;
        }
        if (status == 200)
            h->at = 0;
        else if (status != 206)
            return n; /* an error's text: not for the file */
    } else {
        long status = 0;
        curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &status);
        if (status != 200 && status != 206)
            return n;
    }
    if (h->size != UINT64_MAX && n > h->size - h->at)
        return 0; /* longer than it was said to be */
    for (size_t done = 0; done < n;) {
        ssize_t m = write(h->fd, data + done, n - done);
        if (m < 0 && errno == EINTR)
            continue;
        if (m < 0) {
            h->write_errno = errno;
            return 0;
        }
        done += (size_t)m;
        h->at += (uint64_t)m;
    }
    return n;
}

/* `url` in full. `body`: where the answer goes. Returns curl's code; *status HTTP's. */
static CURLcode request(struct http *h, const char *url, bool head, bool follow, curl_write_callback body, long *status)
{
    CURL *c = h->curl;
    h->etag[0] = h->linked_etag[0] = h->location[0] = 0;
    h->length = h->linked_length = UINT64_MAX;
    curl_easy_reset(c);
    h->wrong[0] = 0;
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, h->wrong);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, follow ? 1L : 0L);
    curl_easy_setopt(c, CURLOPT_MAXREDIRS, (long)REDIRECTS);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "mosld/" MOSLD_VERSION);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)STALL_SECONDS);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, h);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, body);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, h);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, h);
    if (head)
        curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
    size_t own = strlen(h->endpoint);
    if (h->token && strncmp(url, h->endpoint, own) == 0 && url[own] == '/') { /* curl does not give it to other hosts that this leads to */
        curl_easy_setopt(c, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
        curl_easy_setopt(c, CURLOPT_XOAUTH2_BEARER, h->token);
    }
    if (h->fd >= 0 && h->at)
        curl_easy_setopt(c, CURLOPT_RESUME_FROM_LARGE, (curl_off_t)h->at);
    CURLcode code = curl_easy_perform(c);
    *status = 0;
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, status);
    return code;
}

static enum rt_status say_status(const struct http *h, long status, struct rt_error *err)
{
    if (status == 401 || status == 403)
        return rt_fail(err, RT_BAD_FILE, "%s: the hub wants %s (%ld)%s", h->what, h->token ? "more than this token allows" : "a token: set HF_TOKEN", status,
                       status == 403 ? "; a gated model's terms are accepted on its page" : ", or there is no such model");
    if (status == 404)
        return rt_fail(err, RT_BAD_FILE, "%s: is not there (404): look at the name and --revision", h->what);
    return rt_fail(err, RT_FAILED, "%s: the hub answers %ld", h->what, status);
}

static bool worth_another_try(CURLcode code, long status)
{
    if (session_interrupted || code == CURLE_UNSUPPORTED_PROTOCOL || code == CURLE_URL_MALFORMAT || code == CURLE_TOO_MANY_REDIRECTS ||
        code == CURLE_PEER_FAILED_VERIFICATION || code == CURLE_WRITE_ERROR)
        return false;
    return code != CURLE_OK || status == 429 || status >= 500;
}

static enum rt_status say_code(const struct http *h, CURLcode code, struct rt_error *err)
{
    if (session_interrupted)
        return rt_fail(err, RT_INTERRUPTED, "interrupted; what is there of %s is kept, and the next pull goes on from it", h->what);
    return rt_fail(err, RT_FAILED, "%s: %s", h->what, h->wrong[0] ? h->wrong : curl_easy_strerror(code));
}

static void pause_before(int again)
{
    for (int i = 0; i < 10 * again && !session_interrupted; i++)
        usleep(50000);
}

/* The address of a path, with each character that is not plain written as %XX. */
static char *address(const struct http *h, const char *path)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t n = strlen(h->endpoint);
    char *url = malloc(n + 3 * strlen(path) + 1), *to = url + n;
    if (!url)
        return NULL;
    memcpy(url, h->endpoint, n);
    for (const unsigned char *p = (const unsigned char *)path; *p; p++)
        if (strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/", *p))
            *to++ = (char)*p;
        else
            *to++ = '%', *to++ = hex[*p >> 4], *to++ = hex[*p & 15];
    *to = 0;
    return url;
}

enum rt_status http_get(struct http *h, const char *path, const char *what, char **body, size_t *n, struct rt_error *err)
{
    char *url = address(h, path);
    long status = 0;
    CURLcode code = CURLE_OUT_OF_MEMORY;
    *body = NULL;
    h->what = what;
    for (int i = 1; url && i <= TRIES; i++) {
        free(h->body);
        h->body = NULL;
        h->n = 0;
        code = request(h, url, false, true, on_body, &status);
        if (!worth_another_try(code, status))
            break;
        pause_before(i);
    }
    free(url);
    *body = h->body;
    *n = h->n;
    h->body = NULL;
    if (code == CURLE_OK && status == 200 && *body)
        return RT_OK;
    free(*body);
    *body = NULL;
    return code == CURLE_OK ? say_status(h, status, err) : say_code(h, code, err);
}

/* Where a large file lies elsewhere the hub's own answer, a redirect, has its hash and size; a redirect without is to be followed (a model
 * that was renamed). */
enum rt_status http_head(struct http *h, const char *path, const char *what, struct http_file *file, struct rt_error *err)
{
    char *url = address(h, path);
    long status = 0;
    CURLcode code = CURLE_OUT_OF_MEMORY;
    h->what = what;
    for (int i = 1, hops = 0; url && i <= TRIES;) {
        code = request(h, url, true, false, on_body, &status);
        if (code == CURLE_OK && status >= 300 && status < 400 && !h->linked_etag[0] && h->location[0] && hops++ < REDIRECTS) {
            char *next = NULL;
            if (h->location[0] == '/' ? asprintf(&next, "%s%s", h->endpoint, h->location) < 0 : !(next = strdup(h->location)))
                next = NULL;
            free(url);
            url = next;
            continue;
        }
        if (!worth_another_try(code, status))
            break;
        pause_before(i++);
    }
    free(url);
    if (code != CURLE_OK)
        return say_code(h, code, err);
    if (status >= 400 || status < 200 || (status >= 300 && !h->linked_etag[0]))
        return say_status(h, status, err);
    const char *etag = h->linked_etag[0] ? h->linked_etag : h->etag;
    if (!etag[0])
        return rt_fail(err, RT_FAILED, "%s: the hub's answer has no usable ETag, so it could not be checked", what);
    snprintf(file->etag, sizeof file->etag, "%s", etag);
    file->size = h->linked_etag[0] ? h->linked_length : h->length;
    return RT_OK;
}

/* ---- downloads ---- */

/* SHA-256 of a file's bytes, or git's SHA-1 of it as a blob, in hexadecimal; false where it cannot be read. */
static bool hash_of(int fd, uint64_t size, bool git, char hex[65])
{
    unsigned char digest[EVP_MAX_MD_SIZE], buffer[1 << 16];
    unsigned length = 0;
    char header[40];
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    bool good = c && EVP_DigestInit_ex(c, git ? EVP_sha1() : EVP_sha256(), NULL) == 1 && lseek(fd, 0, SEEK_SET) == 0;
    int n = snprintf(header, sizeof header, "blob %llu", (unsigned long long)size);
    if (good && git)
        good = EVP_DigestUpdate(c, header, (size_t)n + 1) == 1;
    for (ssize_t m; good && (m = read(fd, buffer, sizeof buffer)) != 0;)
        good = m > 0 && EVP_DigestUpdate(c, buffer, (size_t)m) == 1;
    good = good && EVP_DigestFinal_ex(c, digest, &length) == 1 && length <= 32;
    for (unsigned i = 0; good && i < length; i++)
        sprintf(hex + 2 * i, "%02x", digest[i]);
    EVP_MD_CTX_free(c);
    return good;
}

static enum rt_status check_hash(struct http *h, const struct http_file *f, const char *partial, struct rt_error *err)
{
    size_t n = strlen(f->etag);
    char hex[65] = "";
    bool is_hash = (n == 64 || n == 40) && strspn(f->etag, "0123456789abcdef") == n;
    if (f->size != UINT64_MAX && h->at != f->size)
        return rt_fail(err, RT_FAILED, "%s: has %llu bytes, the hub says %llu", h->what, (unsigned long long)h->at, (unsigned long long)f->size);
    if (!is_hash)
        return RT_OK; /* a mirror's ETag: its length is all that can be checked */
    if (!hash_of(h->fd, h->at, n == 40, hex))
        return rt_fail(err, RT_FAILED, "%s: cannot be read back", partial);
    if (strcmp(hex, f->etag) == 0)
        return RT_OK;
    unlink(partial);
    return rt_fail(err, RT_FAILED, "%s: was damaged on its way (hash %.16s..., the hub says %.16s...): it is removed; pull again", h->what, hex, f->etag);
}

static enum rt_status transfer(struct http *h, const char *url, const struct http_file *f, struct rt_error *err)
{
    long status = 0;
    CURLcode code = CURLE_OK;
    for (int i = 1, all = 0; i <= TRIES && all < MOST_TRIES; i++, all++) {
        uint64_t before = h->at;
        if (f->size != UINT64_MAX && h->at == f->size)
            return RT_OK;
        h->checked = false;
        code = request(h, url, false, true, on_file, &status);
        if (h->write_errno)
            return rt_fail(err, RT_FAILED, "%s: cannot be written: %s", h->what, strerror(h->write_errno));
        if (code == CURLE_OK && (status == 200 || status == 206))
            return RT_OK;
        if (status == 416 || (code == CURLE_RANGE_ERROR)) { /* what is there is no beginning of it */
            if (ftruncate(h->fd, 0) != 0 || lseek(h->fd, 0, SEEK_SET) != 0)
                return rt_fail(err, RT_FAILED, "%s: cannot be begun anew: %s", h->what, strerror(errno));
            h->at = 0;
            continue;
        }
        if (!worth_another_try(code, status))
            break;
        if (h->at > before)
            i = 0; /* it goes on, if haltingly */
        pause_before(i + 1);
    }
    return code == CURLE_OK ? say_status(h, status, err) : say_code(h, code, err);
}

enum rt_status http_download(struct http *h, const char *path, const char *what, const struct http_file *f, const char *blob, struct rt_error *err)
{
    char *partial = NULL, *url = address(h, path);
    struct stat there;
    if (!url || asprintf(&partial, "%s.incomplete", blob) < 0) {
        free(url);
        return rt_fail(err, RT_NO_MEMORY, "no memory for a path");
    }
    enum rt_status st = RT_OK;
    h->what = what;
    h->size = f->size;
    h->write_errno = 0;
    h->fd = open(partial, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    if (h->fd < 0 || flock(h->fd, LOCK_EX) != 0 || fstat(h->fd, &there) != 0)
        st = rt_fail(err, RT_FAILED, "%s: cannot be written: %s", partial, strerror(errno));
    if (!st && file_is_regular(blob)) /* another pull was here in the meantime */
        goto done;
    if (!st) {
        h->at = f->size != UINT64_MAX && (uint64_t)there.st_size <= f->size ? (uint64_t)there.st_size : 0;
        if (ftruncate(h->fd, (off_t)h->at) != 0 || lseek(h->fd, (off_t)h->at, SEEK_SET) < 0)
            st = rt_fail(err, RT_FAILED, "%s: cannot be written: %s", partial, strerror(errno));
    }
    if (!st)
        st = transfer(h, url, f, err);
    if (!st)
        st = check_hash(h, f, partial, err);
    if (!st && (fsync(h->fd) != 0 || rename(partial, blob) != 0))
        st = rt_fail(err, RT_FAILED, "%s: cannot be put in place: %s", blob, strerror(errno));
done:
    if (h->fd >= 0)
        close(h->fd);
    h->fd = -1;
    free(url);
    free(partial);
    return st;
}
#else
extern int pull_http_not_built;
#endif
