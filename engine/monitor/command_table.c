/* SPDX-License-Identifier: MIT */
/*
 * The one table of commands with their arguments: QMP, exec-oob, query-commands, HMP and its help
 * read it. Constant; what the commands do is in the files that monitor.h names.
 */
#include "engine/monitor/monitor.h"

static const Argument arguments_negotiate[] = {{"enable", ARGUMENT_ARRAY, true}, {NULL, 0, false}};

static const Argument arguments_migrate[] = {
    {"uri", ARGUMENT_STRING, true},
    {"channels", ARGUMENT_ARRAY, true},
    {"resume", ARGUMENT_BOOLEAN, true},
    {"detach", ARGUMENT_BOOLEAN, true},
    {NULL, 0, false},
};

static const Argument arguments_migrate_incoming[] = {
    {"uri", ARGUMENT_STRING, true},
    {"channels", ARGUMENT_ARRAY, true},
    {"exit-on-error", ARGUMENT_BOOLEAN, true},
    {NULL, 0, false},
};

static const Argument arguments_migrate_recover[] = {
    {"uri", ARGUMENT_STRING, false},
    {NULL, 0, false},
};

static const Argument arguments_migrate_continue[] = {
    {"state", ARGUMENT_STRING, false},
    {NULL, 0, false},
};

static const Argument arguments_calc_dirty_rate[] = {
    {"calc-time", ARGUMENT_INTEGER, false},
    {"calc-time-unit", ARGUMENT_STRING, true},
    {"sample-pages", ARGUMENT_INTEGER, true},
    {"mode", ARGUMENT_STRING, true},
    {NULL, 0, false},
};

static const Argument arguments_query_dirty_rate[] = {
    {"calc-time-unit", ARGUMENT_STRING, true},
    {NULL, 0, false},
};

static const Argument arguments_pmemsave[] = {
    {"val", ARGUMENT_INTEGER, false},
    {"size", ARGUMENT_INTEGER, false},
    {"filename", ARGUMENT_STRING, false},
    {NULL, 0, false},
};

static const Argument arguments_fd_name[] = {
    {"fdname", ARGUMENT_STRING, false},
    {NULL, 0, false},
};

static const Argument arguments_add_fd[] = {
    {"fdset-id", ARGUMENT_INTEGER, true},
    {"opaque", ARGUMENT_STRING, true},
    {NULL, 0, false},
};

static const Argument arguments_remove_fd[] = {
    {"fdset-id", ARGUMENT_INTEGER, false},
    {"fd", ARGUMENT_INTEGER, true},
    {NULL, 0, false},
};

static const Argument arguments_set_capabilities[] = {
    {"capabilities", ARGUMENT_ARRAY, false},
    {NULL, 0, false},
};

static const Argument arguments_object_del[] = {
    {"id", ARGUMENT_STRING, false},
    {NULL, 0, false},
};

static const Argument arguments_human_monitor_command[] = {
    {"command-line", ARGUMENT_STRING, false},
    {"cpu-index", ARGUMENT_INTEGER, true},
    {NULL, 0, false},
};

static const Argument arguments_take_back[] = {
    {"directory", ARGUMENT_STRING, false},
    {"ended", ARGUMENT_BOOLEAN, true},
    {NULL, 0, false},
};

static const Argument arguments_memory_map[] = {
    {"cells", ARGUMENT_INTEGER, true},
    {NULL, 0, false},
};

const Command command_table[] = {
    {.name = "qmp_capabilities", .arguments = arguments_negotiate, .negotiation = true},
    {.name = "query-version",
     .run = command_query_version_run,
     .typed = "info version",
     .typed_synopsis = "",
     .help = "version of this program",
     .run_typed = hmp_info_version},
    {.name = "query-commands", .run = command_query_commands_run},
    {.name = "query-name",
     .run = command_query_name_run,
     .typed = "info name",
     .typed_synopsis = "",
     .help = "name of the guest",
     .run_typed = hmp_info_name},
    {.name = "query-memory-size-summary", .run = command_query_memory_run},
    {.name = "query-status",
     .run = command_query_status_run,
     .typed = "info status",
     .typed_synopsis = "",
     .help = "whether the guest runs here",
     .run_typed = hmp_info_status},
    {.name = "query-cpus-fast",
     .run = command_query_cpus_run,
     .typed = "info cpus",
     .typed_synopsis = "",
     .help = "vCPUs and their threads",
     .run_typed = hmp_info_cpus},
    {.name = "query-migrate",
     .run = query_migrate_run,
     .out_of_band = true,
     .typed = "info migrate",
     .typed_synopsis = "",
     .help = "status and figures of the migration",
     .run_typed = hmp_info_migrate},
    {.name = "x-query-memory-blocks", .run = map_blocks_run},
    {.name = "x-query-memory-map", .arguments = arguments_memory_map, .run = map_query_run},
    {.name = "x-query-missing-pages",
     .run = missing_query_run,
     .typed = "info missing_pages",
     .typed_synopsis = "",
     .help = "which pages are not here, or at a source were not sent",
     .run_typed = hmp_info_missing},
    {.name = "x-peer-lost",
     .run = missing_peer_lost_run,
     .typed = "peer_lost",
     .typed_synopsis = "",
     .help = "the other side's process is gone for good: act as --on-source-lost says, now"},
    {.name = "x-take-back",
     .arguments = arguments_take_back,
     .run = missing_take_back_run,
     .typed = "take_back",
     .typed_synopsis = "[-e] directory",
     .help = "go on with a guest that was given away, if the destination's record in the directory "
             "proves that it never ran there; -e: its process is known to be gone",
     .run_typed = hmp_take_back},
    {.name = "query-migrate-capabilities",
     .run = migrate_query_capabilities_run,
     .typed = "info migrate_capabilities",
     .typed_synopsis = "",
     .help = "capabilities, on or off",
     .run_typed = hmp_info_capabilities},
    {.name = "query-migrate-parameters",
     .run = migrate_query_parameters_run,
     .typed = "info migrate_parameters",
     .typed_synopsis = "",
     .help = "parameters with their values",
     .run_typed = hmp_info_parameters},
    {.name = "migrate",
     .arguments = arguments_migrate,
     .run = migrate_run,
     .typed = "migrate",
     .typed_synopsis = "[-d] [-r] URI",
     .help =
         "move the guest to tcp:HOST:PORT, unix:PATH or fd:NAME; always in the background, with "
         "-d or without; -r: go on after postcopy-paused",
     .run_typed = hmp_migrate},
    {.name = "migrate-incoming",
     .arguments = arguments_migrate_incoming,
     .run = migrate_incoming_run,
     .typed = "migrate_incoming",
     .typed_synopsis = "URI",
     .help = "listen at URI and receive one guest",
     .run_typed = hmp_migrate_incoming},
    {.name = "migrate-start-postcopy",
     .run = migrate_start_postcopy_run,
     .out_of_band = true,
     .typed = "migrate_start_postcopy",
     .typed_synopsis = "",
     .help = "switch to postcopy as soon as the pass under way allows it"},
    {.name = "migrate-pause",
     .run = migrate_pause_run,
     .out_of_band = true,
     .typed = "migrate_pause",
     .typed_synopsis = "",
     .help = "break the connection of a postcopy; pages that have not come are waited for"},
    {.name = "migrate-recover",
     .arguments = arguments_migrate_recover,
     .run = migrate_recover_run,
     .out_of_band = true,
     .typed = "migrate_recover",
     .typed_synopsis = "URI",
     .help = "destination in postcopy-paused: listen again",
     .run_typed = hmp_migrate_recover},
    {.name = "migrate-continue",
     .arguments = arguments_migrate_continue,
     .run = migrate_continue_run,
     .typed = "migrate_continue",
     .typed_synopsis = "STATE",
     .help = "with pause-before-switchover: go on from STATE, which is pre-switchover",
     .run_typed = hmp_migrate_continue},
    {.name = "migrate_cancel",
     .run = migrate_cancel_run,
     .out_of_band = true,
     .typed = "migrate_cancel",
     .typed_synopsis = "",
     .help = "end a precopy; the guest stays here"},
    {.name = "migrate-set-capabilities",
     .arguments = arguments_set_capabilities,
     .run = migrate_set_capabilities_run,
     .typed = "migrate_set_capability",
     .typed_synopsis = "CAPABILITY on|off",
     .help = "switch a capability",
     .run_typed = hmp_migrate_set_capability},
    {.name = "migrate-set-parameters",
     .check = arguments_check_parameters,
     .run = migrate_set_parameters_run,
     .typed = "migrate_set_parameter",
     .typed_synopsis = "PARAMETER VALUE",
     .help = "set a parameter; sizes take K, M, G, T (max-bandwidth without a letter: MiB/s)",
     .run_typed = hmp_migrate_set_parameter},
    {.name = "object-add",
     .check = object_add_check,
     .run = object_add_run,
     .typed = "object_add",
     .typed_synopsis = "TYPE,id=ID[,NAME=VALUE...]",
     .help = "make credentials (tls-creds-x509, tls-creds-psk) or an authorization (authz-simple, "
             "authz-list)",
     .run_typed = hmp_object_add},
    {.name = "object-del",
     .arguments = arguments_object_del,
     .run = object_del_run,
     .typed = "object_del",
     .typed_synopsis = "ID",
     .help = "remove an object; a migration under way keeps what it has of it",
     .run_typed = hmp_object_del},
    {.name = "stop",
     .run = command_stop_run,
     .typed = "stop|s",
     .typed_synopsis = "",
     .help = "pause the guest"},
    {.name = "cont",
     .run = command_cont_run,
     .typed = "cont|c",
     .typed_synopsis = "",
     .help = "run the guest"},
    {.name = "quit",
     .run = command_quit_run,
     .typed = "quit|q",
     .typed_synopsis = "",
     .help = "end this program; a guest that is only partly here is lost"},
    {.name = "calc-dirty-rate",
     .arguments = arguments_calc_dirty_rate,
     .run = rate_calc_run,
     .typed = "calc_dirty_rate",
     .typed_synopsis = "SECONDS",
     .help = "measure how fast the guest writes; 'info dirty_rate' has the outcome",
     .run_typed = hmp_calc_dirty_rate},
    {.name = "query-dirty-rate",
     .arguments = arguments_query_dirty_rate,
     .run = rate_query_run,
     .typed = "info dirty_rate",
     .typed_synopsis = "",
     .help = "what calc_dirty_rate found",
     .run_typed = hmp_info_dirty_rate},
    {.name = "pmemsave",
     .arguments = arguments_pmemsave,
     .run = command_pmemsave_run,
     .typed = "pmemsave",
     .typed_synopsis = "ADDRESS SIZE FILE",
     .help = "write guest physical memory to a file",
     .run_typed = hmp_pmemsave},
    {.name = "getfd",
     .arguments = arguments_fd_name,
     .run = fds_get_run,
     .typed = "getfd",
     .typed_synopsis = "NAME",
     .help = "keep the descriptor that came by SCM_RIGHTS, for fd:NAME",
     .run_typed = hmp_fd_name},
    {.name = "closefd",
     .arguments = arguments_fd_name,
     .run = fds_close_run,
     .typed = "closefd",
     .typed_synopsis = "NAME",
     .help = "close a descriptor of getfd",
     .run_typed = hmp_fd_name},
    {.name = "add-fd", .arguments = arguments_add_fd, .run = fds_add_run},
    {.name = "remove-fd", .arguments = arguments_remove_fd, .run = fds_remove_run},
    {.name = "query-fdsets", .run = fds_query_run},
    {.name = "human-monitor-command",
     .arguments = arguments_human_monitor_command,
     .run = command_human_monitor_command_run},
    {.typed = "help|?", .typed_synopsis = "[COMMAND]", .help = "this list", .run_typed = hmp_help},
    {.name = NULL, .typed = NULL},
};
