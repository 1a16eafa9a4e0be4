/* SPDX-License-Identifier: MIT */
/*
 * Serves the metrics over HTTP by libmicrohttpd, which runs inside the main loop: its epoll
 * descriptor is one more source there, and a timer lets go of clients that say nothing. It has no
 * thread, its sockets never block, and the number of clients and their memory are bounded.
 */
#include "kvm/metrics.h"

#include <fcntl.h>
#include <glib-unix.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS_MAX        16u
#define CLIENT_TIMEOUT_S   10u
#define CLIENT_BYTES       (16u << 10)
#define TURNS_MAX          32u /* before others have the main loop again */
#define CONTENT_TYPE_TEXT  "text/plain; version=0.0.4; charset=utf-8"
#define CONTENT_TYPE_OTHER "text/plain; charset=utf-8"

struct MetricsServer {
    const Faultline *faultline;
    char *guest_name;
    char *name; /* address with the real port; NULL: unix */
    MonitorSocket socket;
    struct MHD_Daemon *daemon;
    guint ready_source, timer_source; /* 0: none */
};

/* ---- The address ----------------------------------------------------------------------------- */

bool
metrics_address_parse(const char *text, MonitorSocket *ret_socket, GError **error)
{
    bool is_good = monitor_socket_parse(text, ret_socket, NULL) && !ret_socket->connects;

    if (is_good && (ret_socket->path || *ret_socket->host) && monitor_socket_is_local(ret_socket))
        return true;
    monitor_socket_clear(ret_socket);
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                "--metrics %s: %s; give unix:PATH, tcp:127.0.0.1:PORT or tcp:[::1]:PORT", text,
                is_good ? "others than this host could read it there, and nothing asks who they are"
                        : "that is no address to listen at");
    return false;
}

/* ---- Answers --------------------------------------------------------------------------------- */

static enum MHD_Result
answer(struct MHD_Connection *connection, unsigned status, const char *type, const GString *text)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(text->len, text->str, MHD_RESPMEM_MUST_COPY);
    if (!response)
        return MHD_NO;
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    enum MHD_Result result = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result
request_came(void *opaque, struct MHD_Connection *connection, const char *path, const char *method,
             const char *version, const char *upload, size_t *upload_length, void **request)
{
    const MetricsServer *server = opaque;
    g_autoptr(GString) text = g_string_new(NULL);
    (void)version, (void)upload, (void)upload_length, (void)request;

    if (!g_str_equal(method, MHD_HTTP_METHOD_GET) && !g_str_equal(method, MHD_HTTP_METHOD_HEAD)) {
        g_string_assign(text, "only GET and HEAD\n");
        return answer(connection, MHD_HTTP_METHOD_NOT_ALLOWED, CONTENT_TYPE_OTHER, text);
    }
    if (!g_str_equal(path, "/metrics")) {
        g_string_assign(text, "the metrics are at /metrics\n");
        return answer(connection, MHD_HTTP_NOT_FOUND, CONTENT_TYPE_OTHER, text);
    }
    g_autofree FaultlineInfo *info = g_new0(FaultlineInfo, 1);
    faultline_query(server->faultline, info);
    metrics_render(info, server->guest_name, text);
    return answer(connection, MHD_HTTP_OK, CONTENT_TYPE_TEXT, text);
}

/* ---- In the main loop ------------------------------------------------------------------------ */

static gboolean timer_came(gpointer data);

static unsigned
count_clients(MetricsServer *server)
{
    return MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS)
        ->num_connections;
}

/* Runs the library as long as it has something to do, and is woken when it says. It listens again
 * after CLIENTS_MAX were there only in the turn behind the one in which some of them left. */
static void
run_daemon(MetricsServer *server)
{
    MHD_UNSIGNED_LONG_LONG wait_ms = 0;
    unsigned turns = 0, count_before;
    bool has_limit;

    do {
        count_before = count_clients(server);
        MHD_run(server->daemon);
        has_limit = MHD_get_timeout(server->daemon, &wait_ms) == MHD_YES;
    } while (((has_limit && wait_ms == 0) || count_clients(server) < count_before) &&
             ++turns < TURNS_MAX);
    if (server->timer_source)
        g_source_remove(server->timer_source);
    server->timer_source =
        has_limit ? g_timeout_add((guint)MIN(wait_ms, 1000 * CLIENT_TIMEOUT_S), timer_came, server)
                  : 0;
}

static gboolean
timer_came(gpointer data)
{
    MetricsServer *server = data;
    server->timer_source = 0;
    run_daemon(server);
    return G_SOURCE_REMOVE;
}

static gboolean
ready_came(gint fd, GIOCondition condition, gpointer data)
{
    (void)fd, (void)condition;
    run_daemon(data);
    return G_SOURCE_CONTINUE;
}

/* ---- Life ------------------------------------------------------------------------------------ */

static bool
start_daemon(MetricsServer *server, GError **error)
{
    /* The library closes its listening socket; the other one knows the file to be removed. */
    int fd = fcntl(server->socket.fd, F_DUPFD_CLOEXEC, 0);

    if (fd >= 0)
        server->daemon = MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, request_came, server,
                                          MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT,
                                          CLIENTS_MAX, MHD_OPTION_CONNECTION_TIMEOUT,
                                          CLIENT_TIMEOUT_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                                          (size_t)CLIENT_BYTES, MHD_OPTION_END);
    if (!server->daemon) {
        if (fd >= 0)
            close(fd);
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                    "serve metrics: the HTTP library does not start; raise the limit of open files "
                    "(ulimit -n)");
        return false;
    }
    const union MHD_DaemonInfo *epoll =
        MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    server->ready_source = g_unix_fd_add(epoll->epoll_fd, G_IO_IN, ready_came, server);
    return true;
}

MetricsServer *
metrics_server_new(const Faultline *faultline, const char *guest_name, const char *address,
                   GError **error)
{
    MetricsServer *server = g_new0(MetricsServer, 1);

    server->faultline = faultline;
    server->guest_name = g_strdup(guest_name);
    if (!metrics_address_parse(address, &server->socket, error) ||
        !monitor_socket_open(&server->socket, error) || !start_daemon(server, error)) {
        metrics_server_free(server);
        return NULL;
    }
    server->name = monitor_socket_name(&server->socket);
    return server;
}

void
metrics_server_free(MetricsServer *server)
{
    if (server->ready_source)
        g_source_remove(server->ready_source);
    if (server->timer_source)
        g_source_remove(server->timer_source);
    if (server->daemon)
        MHD_stop_daemon(server->daemon);
    monitor_socket_clear(&server->socket);
    g_free(server->guest_name);
    g_free(server->name);
    g_free(server);
}

char *
metrics_server_name(const MetricsServer *server)
{
    return g_strdup(server->name);
}
