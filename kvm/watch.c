/* SPDX-License-Identifier: MIT */
/*
 * Asks a machine every second and shows what watch_view.c makes of the answers: by ncurses at a
 * terminal, as lines elsewhere. The only file that knows ncurses. One thread.
 */
#include "kvm/watch.h"
#include "kvm/command.h"

#include <ncurses.h>
#include <stdio.h>
#include <unistd.h>

#define PERIOD_TENTHS 10 /* of a second */

static JsonObject *
ask(QmpClient *client, const char *command, JsonObject *arguments, GError **error)
{
    g_autoptr(JsonNode) reply = qmp_client_execute(client, command, arguments, error);
    if (!reply)
        return NULL;
    return JSON_NODE_HOLDS_OBJECT(reply) ? json_node_dup_object(reply) : json_object_new();
}

static GPtrArray *
take_picture(QmpClient *client, const char *name, unsigned rows, unsigned columns, GError **error)
{
    g_autoptr(JsonObject) migrate = ask(client, "query-migrate", NULL, error);
    if (!migrate)
        return NULL;
    JsonObject *arguments = json_object_new();
    json_object_set_int_member(arguments, "cells", watch_count_cells(rows));
    g_autoptr(JsonObject) map = ask(client, "x-query-memory-map", arguments, error);
    return map ? watch_render(name, migrate, map, columns) : NULL;
}

static int
fail(const GError *error)
{
    fprintf(stderr, "faultline monitor: watch: %s\n", error->message);
    return EXIT_FAILED;
}

static int
print_once(QmpClient *client, const char *name)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GPtrArray) lines = take_picture(client, name, WATCH_ROWS, WATCH_COLUMNS, &error);
    if (!lines)
        return fail(error);
    for (guint i = 0; i < lines->len; i++)
        puts(((WatchLine *)g_ptr_array_index(lines, i))->text);
    return fflush(stdout) == 0 ? EXIT_OK : EXIT_FAILED;
}

/* ---- The terminal ---------------------------------------------------------------------------- */

static const struct {
    char mark;
    short color;
} marks[] = {{'.', COLOR_GREEN}, {'o', COLOR_CYAN}, {'x', COLOR_YELLOW}, {'!', COLOR_RED}};

static attr_t
attribute_of(char mark)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(marks); i++)
        if (marks[i].mark == mark)
            return (attr_t)(has_colors() ? COLOR_PAIR(i + 1) : 0) | (mark == '!' ? A_BOLD : 0);
    return A_NORMAL;
}

static void
draw_line(int row, const WatchLine *line)
{
    if (!line->is_map) {
        mvaddstr(row, 0, line->text);
        return;
    }
    move(row, 0);
    for (const char *at = line->text; *at; at++)
        addch((chtype)(unsigned char)*at | attribute_of(*at));
}

static void
draw(const GPtrArray *lines)
{
    erase();
    for (guint i = 0; i < lines->len && (int)i < LINES; i++)
        draw_line((int)i, g_ptr_array_index(lines, i));
    move(LINES - 1, COLS - 1);
    refresh();
}

/* false: the terminal is of no kind that ncurses knows. */
static bool
open_screen(void)
{
    if (!newterm(NULL, stdout, stdin))
        return false;
    cbreak();
    noecho();
    curs_set(0);
    halfdelay(PERIOD_TENTHS);
    if (!has_colors())
        return true;
    start_color();
    use_default_colors();
    for (unsigned i = 0; i < G_N_ELEMENTS(marks); i++)
        init_pair((short)(i + 1), marks[i].color, -1);
    return true;
}

static int
show(QmpClient *client, const char *name)
{
    g_autoptr(GError) error = NULL;
    int key = ERR;

    while (key != 'q' && key != 'Q' && !error) {
        g_autoptr(GPtrArray) lines =
            take_picture(client, name, (unsigned)LINES, (unsigned)COLS, &error);
        if (!lines)
            break;
        draw(lines);
        key = getch();
    }
    endwin();
    return error ? fail(error) : EXIT_OK;
}

int
watch_run(QmpClient *client, const char *name)
{
    if (!isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO) || !open_screen())
        return print_once(client, name);
    return show(client, name);
}
