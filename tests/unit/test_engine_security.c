/* SPDX-License-Identifier: MIT */
/*
 * Migrations over TLS by the public API: they move the guest as others do, nobody else gets in, and
 * what cannot work is refused before anything begins.
 */
#include "tests/unit/support/certificates.h"
#include "tests/unit/support/toy_move.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static const ToyKind memfd = {"memfd", TOY_MEMFD, 1024, 2, false, false, 0, NULL};

static void
must(bool done, GError *error)
{
    if (!done)
        fail_msg("%s", error ? error->message : "no error was set");
}

static void
add(Toy *toy, const char *format, const char *dir)
{
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) parts = g_strsplit(format, "DIR", 2);
    g_autofree char *text =
        parts[1] ? g_strconcat(parts[0], dir, parts[1], NULL) : g_strdup(format);

    must(faultline_add_object_text(toy->faultline, text, &error), error);
}

static void
set(Toy *toy, const char *name, const char *value)
{
    g_autoptr(GError) error = NULL;

    must(faultline_set_text_parameter(toy->faultline, name, value, &error), error);
}

static void
use_keys(Toy *toy, const char *endpoint, const char *dir)
{
    g_autofree char *format =
        g_strdup_printf("tls-creds-psk,id=tls0,dir=DIR,endpoint=%s", endpoint);

    add(toy, format, dir);
    set(toy, "tls-creds", "tls0");
}

static void
use_certificates(Toy *toy, const char *endpoint, const char *dir)
{
    g_autofree char *format =
        g_strdup_printf("tls-creds-x509,id=tls0,dir=DIR,endpoint=%s,sanity-check=off", endpoint);

    add(toy, format, dir);
    set(toy, "tls-creds", "tls0");
    set(toy, "tls-hostname", "localhost");
}

/* ---- Moves ----------------------------------------------------------------------------------- */

typedef struct Way {
    const char *capabilities;
    ToyLinkKind link;
    bool by_certificates, in_postcopy;
} Way;

static void
move_by(const Way *way)
{
    char *dir = certificates_make();
    ToyMove move;

    print_message("  %s, link %d, %s\n", way->capabilities, way->link,
                  way->by_certificates ? "certificates" : "keys");
    toy_move_begin(&move, &memfd, way->link);
    if (*way->capabilities)
        toy_move_set(&move, way->capabilities);
    (way->by_certificates ? use_certificates : use_keys)(move.from, "client", dir);
    (way->by_certificates ? use_certificates : use_keys)(move.to, "server", dir);
    assert_true(faultline_cont(move.from->faultline, NULL));
    toy_expect_progress(move.from);
    toy_move_start(&move);
    if (way->in_postcopy)
        assert_true(faultline_start_postcopy(move.from->faultline, NULL));
    toy_move_expect_moved(&move);
    toy_move_end(&move);
    certificates_remove(dir);
}

static void
guest_moves_over_tls(void **state)
{
    static const Way ways[] = {
        {"", TOY_TCP, false, false},
        {"", TOY_UNIX, true, false},
        {"postcopy-ram", TOY_FD, false, true},
        {"postcopy-ram", TOY_TCP, true, true},
        {"postcopy-ram postcopy-preempt", TOY_UNIX, false, true},
        {"postcopy-ram postcopy-preempt", TOY_TCP, true, true},
    };
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(ways); i++)
        move_by(&ways[i]);
}

/* ---- Who does not get in --------------------------------------------------------------------- */

static void
talk_plainly(const char *uri, const char *bytes)
{
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    char answer[64];

    g_strlcpy(path.sun_path, uri + strlen("unix:"), sizeof path.sun_path);
    assert_int_equal(connect(fd, (const struct sockaddr *)&path, sizeof path), 0);
    assert_int_equal(send(fd, bytes, strlen(bytes), 0), (ssize_t)strlen(bytes));
    while (recv(fd, answer, sizeof answer, 0) > 0)
        continue;
    close(fd);
}

static int
connect_silently(const char *uri)
{
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    g_strlcpy(path.sun_path, uri + strlen("unix:"), sizeof path.sun_path);
    assert_int_equal(connect(fd, (const struct sockaddr *)&path, sizeof path), 0);
    return fd;
}

static void
expect_refusal(Toy *toy, const char *part)
{
    g_autofree FaultlineInfo *info = g_new0(FaultlineInfo, 1);

    for (unsigned waited_ms = 0; waited_ms < TOY_TIMEOUT_MS; waited_ms += 10) {
        faultline_query(toy->faultline, info);
        if (info->refused_connections != 0)
            break;
        g_usleep(10000);
    }
    if (!strstr(info->refusal, part))
        fail_msg("'%s' instead of '%s'", info->refusal, part);
}

static void
strangers_do_not_keep_the_source_out(void **state)
{
    char *dir = certificates_make();
    int silent[20];
    ToyMove move;
    (void)state;

    toy_move_begin(&move, &memfd, TOY_UNIX);
    use_keys(move.from, "client", dir);
    use_keys(move.to, "server", dir);
    assert_true(faultline_incoming(move.to->faultline, move.link.incoming, NULL));
    talk_plainly(move.link.incoming, "QEVM and more");
    expect_refusal(move.to, "it speaks no TLS: its first byte is 0x51, as a plain migration's");
    for (unsigned i = 0; i < G_N_ELEMENTS(silent); i++)
        silent[i] = connect_silently(move.link.incoming);
    assert_true(faultline_cont(move.from->faultline, NULL));
    assert_true(faultline_migrate(move.from->faultline, move.link.incoming, NULL));
    toy_move_expect_moved(&move);
    for (unsigned i = 0; i < G_N_ELEMENTS(silent); i++)
        close(silent[i]);
    toy_move_end(&move);
    certificates_remove(dir);
}

static void
plain_source_is_told_that_the_destination_has_tls(void **state)
{
    char *dir = certificates_make();
    ToyMove move;
    (void)state;

    toy_move_begin(&move, &memfd, TOY_UNIX);
    use_keys(move.to, "server", dir);
    assert_true(faultline_cont(move.from->faultline, NULL));
    toy_move_start(&move);
    toy_expect_end(move.from, FAULTLINE_STATUS_FAILED);
    if (!strstr(toy_error(move.from), "the destination speaks TLS") ||
        !strstr(toy_error(move.from), "guest"))
        fail_msg("%s", toy_error(move.from));
    assert_true(toy_is_running(move.from));
    expect_refusal(move.to, "it speaks no TLS");
    /* It still waits: with TLS at the source, too, the guest moves. */
    use_keys(move.from, "client", dir);
    assert_true(faultline_migrate(move.from->faultline, move.link.incoming, NULL));
    toy_move_expect_moved(&move);
    toy_move_end(&move);
    certificates_remove(dir);
}

static void
source_with_tls_is_told_that_the_destination_has_none(void **state)
{
    char *dir = certificates_make();
    ToyMove move;
    (void)state;

    toy_move_begin(&move, &memfd, TOY_UNIX);
    use_keys(move.from, "client", dir);
    assert_true(faultline_cont(move.from->faultline, NULL));
    toy_move_start(&move);
    toy_expect_end(move.from, FAULTLINE_STATUS_FAILED);
    if (!strstr(toy_error(move.from), "'tls-creds'"))
        fail_msg("%s", toy_error(move.from));
    assert_true(toy_is_running(move.from));
    expect_refusal(move.to, "the peer speaks TLS, and this port is plain: set tls-creds here");
    /* It still waits: with TLS taken away at the source, the guest moves. */
    set(move.from, "tls-creds", "");
    assert_true(faultline_migrate(move.from->faultline, move.link.incoming, NULL));
    toy_move_expect_moved(&move);
    toy_move_end(&move);
    certificates_remove(dir);
}

static void
source_that_is_refused_says_why_and_keeps_the_guest(void **state)
{
    char *dir = certificates_make(), *other = certificates_make();
    ToyMove move;
    (void)state;

    certificates_replace(other, "server", &(CertificateWish){0});
    toy_move_begin(&move, &memfd, TOY_UNIX);
    use_certificates(move.to, "server", dir);
    add(move.to, "authz-simple,id=who,identity=CN=nobody", NULL);
    set(move.to, "tls-authz", "who");
    use_certificates(move.from, "client", dir);
    assert_true(faultline_cont(move.from->faultline, NULL));
    toy_move_start(&move);
    toy_expect_end(move.from, FAULTLINE_STATUS_FAILED);
    if (!strstr(toy_error(move.from), "it does not let us in") ||
        !strstr(toy_error(move.from), "guest"))
        fail_msg("%s", toy_error(move.from));
    assert_true(toy_is_running(move.from));
    expect_refusal(move.to, "'tls-authz' does not let 'CN=source' in");
    toy_move_end(&move);
    certificates_remove(dir);
    certificates_remove(other);
}

/* ---- Recovery -------------------------------------------------------------------------------- */

static void
wait_for(Toy *toy, FaultlineStatus status)
{
    g_autofree FaultlineInfo *info = g_new0(FaultlineInfo, 1);

    for (unsigned i = 0; i < TOY_TIMEOUT_MS; i++) {
        faultline_query(toy->faultline, info);
        if (info->status == status)
            return;
        g_usleep(1000);
    }
    fail_msg("status %s, not %s: %s", faultline_status_name(info->status),
             faultline_status_name(status), info->error);
}

static void
recovery_is_tls_again_and_no_stranger_is_taken_for_the_source(void **state)
{
    static const ToyKind slow = {.name = "slow", .pages = 8192, .count_vcpus = 2, .rest_us = 20000};
    char *dir = certificates_make();
    ToyMove move;
    (void)state;

    toy_move_begin(&move, &slow, TOY_UNIX);
    toy_move_set(&move, "postcopy-ram postcopy-preempt");
    use_keys(move.from, "client", dir);
    use_keys(move.to, "server", dir);
    Faultline *source = move.from->faultline, *destination = move.to->faultline;
    assert_true(faultline_set_capability(source, "auto-recover", false, NULL));
    assert_true(faultline_set_capability(destination, "auto-recover", false, NULL));
    assert_true(faultline_set_parameter(source, "max-postcopy-bandwidth", 2 << 20, NULL));
    assert_true(faultline_cont(source, NULL));
    toy_move_start(&move);
    assert_true(faultline_start_postcopy(source, NULL));
    wait_for(move.to, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    wait_for(move.from, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    assert_true(faultline_pause(destination, NULL));
    wait_for(move.from, FAULTLINE_STATUS_POSTCOPY_PAUSED);
    wait_for(move.to, FAULTLINE_STATUS_POSTCOPY_PAUSED);
    assert_true(faultline_recover(destination, move.link.incoming, NULL));
    talk_plainly(move.link.incoming, "\x08 stranger");
    expect_refusal(move.to, "it speaks no TLS: its first byte is 0x08");
    wait_for(move.to, FAULTLINE_STATUS_POSTCOPY_PAUSED);
    assert_true(faultline_migrate_resume(source, move.link.incoming, NULL));
    wait_for(move.from, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    assert_true(faultline_set_parameter(source, "max-postcopy-bandwidth", 0, NULL));
    toy_move_expect_moved(&move);
    toy_move_end(&move);
    certificates_remove(dir);
}

/* ---- What cannot work ------------------------------------------------------------------------ */

static const struct {
    const char *text, *says;
} bad_objects[] = {
    {"tls-creds-x509,id=a,dir=/nowhere", "ca-cert.pem"},
    {"tls-creds-x509,id=a", "'dir' is missing"},
    {"tls-creds-x509,dir=DIR", "give TYPE,id=ID"},
    {"tls-creds-x509,id=a,dir=DIR,endpoint=both", "'client' or 'server', not 'both'"},
    {"tls-creds-x509,id=a,dir=DIR,verify-peer=maybe", "'verify-peer' takes on or off"},
    {"tls-creds-x509,id=a,dir=DIR,username=b", "has no property 'username'"},
    {"tls-creds-x509,id=a,dir=DIR,priority=FAST", "priority 'FAST'"},
    {"tls-creds-x509,id=a,dir=DIR,dir", "'dir' is not NAME=VALUE"},
    {"tls-creds-psk,id=a,dir=/nowhere", "keys.psk"},
    {"tls-creds-psk,id=a,dir=DIR,username=eve", "no key of user 'eve'"},
    {"tls-creds-psk,id=a,dir=DIR,endpoint=server,username=bob",
     "'username' does not go with 'endpoint' server"},
    {"tls-creds-psk,id=0a,dir=DIR", "'0a' is no id"},
    {"tls-creds-anon,id=a,dir=DIR", "there is no type 'tls-creds-anon'"},
    {"authz-simple,id=a", "'identity' is missing"},
    {"authz-list,id=a,policy=perhaps", "'deny' or 'allow', not 'perhaps'"},
    {"authz-list,id=a,rules.0.match=x", "'rules.0.policy' is missing"},
    {"authz-list,id=a,rules.x.match=x", "no property 'rules.x.match'"},
    {"tls-creds-psk,id=keys,dir=DIR", "there is one of this id"},
};

static void
object_that_cannot_work_is_refused_with_the_reason(void **state)
{
    char *dir = certificates_make();
    Toy *toy = toy_new(&memfd);
    (void)state;

    add(toy, "tls-creds-psk,id=keys,dir=DIR", dir);
    for (unsigned i = 0; i < G_N_ELEMENTS(bad_objects); i++) {
        g_autoptr(GError) error = NULL;
        g_auto(GStrv) parts = g_strsplit(bad_objects[i].text, "DIR", 2);
        g_autofree char *text =
            parts[1] ? g_strconcat(parts[0], dir, parts[1], NULL) : g_strdup(bad_objects[i].text);
        assert_false(faultline_add_object_text(toy->faultline, text, &error));
        assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT));
        if (!strstr(error->message, bad_objects[i].says))
            fail_msg("%s: %s", text, error->message);
    }
    toy_free(toy);
    certificates_remove(dir);
}

static const struct {
    const char *name;
    CertificateWish wish;
    const char *says;
} bad_own[] = {
    {"expired", {.from_s = -7200, .until_s = -3600}, "has expired"},
    {"not yet", {.from_s = 3600, .until_s = 7200}, "is not valid yet"},
    {"purpose", {.has_wrong_purpose = true}, "is not made for this side of TLS"},
    {"usage", {.cannot_sign = true}, "no digital signature"},
};

static void
own_certificate_that_the_peer_would_refuse_is_refused_at_once(void **state)
{
    static const char *const sides[] = {"server", "client"};
    Toy *toy = toy_new(&memfd);
    (void)state;

    for (unsigned i = 0; i < 2 * G_N_ELEMENTS(bad_own); i++) {
        g_autoptr(GError) error = NULL;
        char *dir = certificates_make();
        g_autofree char *text =
            g_strdup_printf("tls-creds-x509,id=own,dir=%s,endpoint=%s", dir, sides[i % 2]);
        certificates_replace(dir, sides[i % 2], &bad_own[i / 2].wish);
        assert_false(faultline_add_object_text(toy->faultline, text, &error));
        if (!strstr(error->message, bad_own[i / 2].says))
            fail_msg("%s, %s: %s", sides[i % 2], bad_own[i / 2].name, error->message);
        certificates_remove(dir);
    }
    toy_free(toy);
}

static void
expect_unset(Toy *toy, const char *name, const char *value, const char *says, const char *both)
{
    g_autoptr(GError) error = NULL;

    assert_false(faultline_set_text_parameter(toy->faultline, name, value, &error));
    assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT));
    if (!strstr(error->message, says) || !strstr(error->message, both))
        fail_msg("%s=%s: %s", name, value, error->message);
    assert_string_equal(faultline_get_text_parameter(toy->faultline, name), "");
}

static void
parameters_that_do_not_go_together_are_refused_by_both_names(void **state)
{
    char *dir = certificates_make();
    Toy *toy = toy_new(&memfd);
    (void)state;

    expect_unset(toy, "tls-creds", "none", "no object 'none'", "tls-creds");
    expect_unset(toy, "tls-authz", "none", "no object 'none'", "tls-authz");
    add(toy, "tls-creds-psk,id=keys,dir=DIR,endpoint=server", dir);
    add(toy, "tls-creds-x509,id=any,dir=DIR,endpoint=server,verify-peer=off", dir);
    add(toy,
        "authz-list,id=who,policy=deny,rules.0.match=CN=*,rules.0.policy=allow,rules.0.format="
        "glob",
        NULL);
    expect_unset(toy, "tls-creds", "who", "'who' has no credentials", "tls-creds");
    expect_unset(toy, "tls-authz", "keys", "'keys' authorizes nobody", "tls-authz");
    set(toy, "tls-authz", "who");
    expect_unset(toy, "tls-creds", "keys", "'tls-authz'", "'tls-creds' is 'keys'");
    expect_unset(toy, "tls-creds", "any", "'tls-authz'", "'tls-creds' is 'any'");
    assert_false(faultline_set_parameter(toy->faultline, "tls-creds", 1, NULL));
    assert_false(faultline_set_text_parameter(toy->faultline, "spin-limit", "1", NULL));
    toy_free(toy);
    certificates_remove(dir);
}

static void
expect_refused_start(bool started, GError **error, const char *says)
{
    assert_false(started);
    assert_true(g_error_matches(*error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT));
    if (!strstr((*error)->message, says))
        fail_msg("%s", (*error)->message);
    g_clear_error(error);
}

static void
migration_that_cannot_be_secure_does_not_begin(void **state)
{
    char *dir = certificates_make();
    g_autoptr(GError) error = NULL;
    Toy *toy = toy_new(&memfd);
    Faultline *faultline = toy->faultline;
    (void)state;

    add(toy, "tls-creds-x509,id=client,dir=DIR,endpoint=client", dir);
    add(toy, "tls-creds-x509,id=server,dir=DIR,endpoint=server", dir);
    set(toy, "tls-creds", "client");
    expect_refused_start(faultline_migrate(faultline, "unix:/tmp/nowhere", &error), &error,
                         "No hostname for certificate validation");
    expect_refused_start(faultline_incoming(faultline, "tcp:127.0.0.1:0", &error), &error,
                         "'endpoint' client");
    set(toy, "tls-creds", "server");
    expect_refused_start(faultline_migrate(faultline, "tcp:127.0.0.1:1", &error), &error,
                         "'endpoint' server");
    assert_true(faultline_remove_object(faultline, "server", NULL));
    expect_refused_start(faultline_incoming(faultline, "tcp:127.0.0.1:0", &error), &error,
                         "no object 'server'");
    assert_false(faultline_remove_object(faultline, "server", &error));
    assert_int_equal(faultline_run_state(faultline), FAULTLINE_RUN_PRELAUNCH);
    toy_free(toy);
    certificates_remove(dir);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guest_moves_over_tls),
        cmocka_unit_test(strangers_do_not_keep_the_source_out),
        cmocka_unit_test(plain_source_is_told_that_the_destination_has_tls),
        cmocka_unit_test(source_with_tls_is_told_that_the_destination_has_none),
        cmocka_unit_test(source_that_is_refused_says_why_and_keeps_the_guest),
        cmocka_unit_test(recovery_is_tls_again_and_no_stranger_is_taken_for_the_source),
        cmocka_unit_test(object_that_cannot_work_is_refused_with_the_reason),
        cmocka_unit_test(own_certificate_that_the_peer_would_refuse_is_refused_at_once),
        cmocka_unit_test(parameters_that_do_not_go_together_are_refused_by_both_names),
        cmocka_unit_test(migration_that_cannot_be_secure_does_not_begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
