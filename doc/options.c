/* SPDX-License-Identifier: MIT */
/*
 * Writes a manual page: copies it from standard input, and puts the library's own tables of
 * capabilities and parameters where it asks for them. Run by the build.
 */
#include "engine/faultline.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LINE_BYTES 4096

static void
print_capabilities(void)
{
    for (const FaultlineCapabilityRow *row = faultline_capability_table(); row->name; row++)
        printf(".It Cm %s\n%s.\nPreset: %s%s.\n", row->name, row->help, row->preset ? "on" : "off",
               row->both_sides ? "; both sides" : "");
}

static void
print_limit(uint64_t value)
{
    if (value >= INT64_MAX)
        printf("any");
    else
        printf("%" PRIu64, value);
}

static void
print_parameters(void)
{
    for (const FaultlineParameterRow *row = faultline_parameter_table(); row->name; row++) {
        if (row->type == FAULTLINE_TYPE_TEXT) {
            printf(".It Cm %s\n%s.\nPreset: empty; a text.\n", row->name, row->help);
            continue;
        }
        if (row->type == FAULTLINE_TYPE_BOOLEAN) {
            printf(".It Cm %s\n%s.\nPreset: %s; on or off.\n", row->name, row->help,
                   row->preset ? "on" : "off");
            continue;
        }
        printf(".It Cm %s\n%s.\nPreset: %" PRIu64 "; range: %" PRIu64 " to ", row->name, row->help,
               row->preset, row->least);
        print_limit(row->greatest);
        printf("%s%s.\n", *row->unit ? ", in " : "", row->unit);
    }
}

int
main(void)
{
    char line[LINE_BYTES];

    while (fgets(line, sizeof line, stdin)) {
        if (strstr(line, "@CAPABILITIES@"))
            print_capabilities();
        else if (strstr(line, "@PARAMETERS@"))
            print_parameters();
        else
            fputs(line, stdout);
    }
    return fflush(stdout) == 0 ? 0 : 1;
}
