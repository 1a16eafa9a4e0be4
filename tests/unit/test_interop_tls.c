/* SPDX-License-Identifier: MIT */
/*
 * TLS with a QEMU as it is installed, in both roles: the handshake, and the stream as far as the
 * two machines let it go, which is to their names. Skips where there is no QEMU.
 */
#include "tests/unit/support/certificates.h"
#include "tests/unit/support/qemu.h"
#include "tests/unit/support/toy_move.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

#define REFUSAL "machine type received is '" QEMU_MACHINE "' and local is 'toy-1.0'"
#define BY_QEMU "Machine type received is 'toy-1.0' and local is '" QEMU_MACHINE "'"

static const ToyKind memfd = {"memfd", TOY_MEMFD, 1024, 2, false, false, 0, NULL};

/* How QEMU is told to prove itself, and we. */
typedef struct Way {
    const char *name, *qemu, *own;
} Way;

static const Way ways[] = {
    {"keys", "tls-creds-psk,id=tls0,dir=%s,endpoint=%s",
     "tls-creds-psk,id=tls0,dir=%s,endpoint=%s"},
    {"certificates", "tls-creds-x509,id=tls0,dir=%s,endpoint=%s,verify-peer=on",
     "tls-creds-x509,id=tls0,dir=%s,endpoint=%s"},
};

static Qemu *
start(const Way *way, const char *dir, const char *endpoint, bool is_incoming)
{
    g_autofree char *object = g_strdup_printf(way->qemu, dir, endpoint);
    const char *const options[] = {"-object", object, is_incoming ? "-incoming" : NULL, "defer",
                                   NULL};
    return qemu_start(options);
}

static void
secure(Toy *toy, const Way *way, const char *dir, const char *endpoint)
{
    g_autofree char *object = g_strdup_printf(way->own, dir, endpoint);
    g_autoptr(GError) error = NULL;

    if (!faultline_add_object_text(toy->faultline, object, &error) ||
        !faultline_set_text_parameter(toy->faultline, "tls-creds", "tls0", &error) ||
        !faultline_set_text_parameter(toy->faultline, "tls-hostname", "localhost", &error))
        fail_msg("%s", error->message);
}

static void
qemu_source_gets_through_to_us(void **state)
{
    qemu_need();
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(ways); i++) {
        char *dir = certificates_make();
        Toy *toy = toy_new(&memfd);
        Qemu *qemu = start(&ways[i], dir, "client", false);

        print_message("  %s\n", ways[i].name);
        secure(toy, &ways[i], dir, "server");
        assert_true(faultline_incoming(toy->faultline, "tcp:127.0.0.1:0", NULL));
        g_autofree char *uri = faultline_incoming_address(toy->faultline);
        qemu_must(qemu, "migrate_set_parameter tls-creds tls0");
        qemu_must(qemu, "migrate -d %s", uri);
        toy_expect_end(toy, FAULTLINE_STATUS_FAILED);
        if (!strstr(toy_error(toy), REFUSAL))
            fail_msg("%s", toy_error(toy));
        qemu_end(qemu);
        toy_free(toy);
        certificates_remove(dir);
    }
}

static void
we_get_through_to_a_qemu_destination(void **state)
{
    qemu_need();
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(ways); i++) {
        char *dir = certificates_make();
        g_autofree char *uri = g_strdup_printf("unix:%s/qemu", dir);
        Toy *toy = toy_new(&memfd);
        Qemu *qemu = start(&ways[i], dir, "server", true);

        print_message("  %s\n", ways[i].name);
        qemu_must(qemu, "migrate_set_parameter tls-creds tls0");
        qemu_must(qemu, "migrate_incoming %s", uri);
        secure(toy, &ways[i], dir, "client");
        assert_true(faultline_migrate(toy->faultline, uri, NULL));
        qemu_expect(qemu, BY_QEMU);
        toy_expect_end(toy, FAULTLINE_STATUS_FAILED);
        qemu_end(qemu);
        toy_free(toy);
        certificates_remove(dir);
    }
}

static void
qemu_with_another_key_is_refused_and_says_so(void **state)
{
    char *dir = certificates_make(), *other = certificates_make();
    g_autofree FaultlineInfo *info = g_new0(FaultlineInfo, 1);
    (void)state;

    qemu_need();
    certificates_write(other, "keys.psk", "qemu:00112233445566778899aabbccddeeff\n");
    Toy *toy = toy_new(&memfd);
    Qemu *qemu = start(&ways[0], other, "client", false);
    secure(toy, &ways[0], dir, "server");
    assert_true(faultline_incoming(toy->faultline, "tcp:127.0.0.1:0", NULL));
    g_autofree char *uri = faultline_incoming_address(toy->faultline);
    qemu_must(qemu, "migrate_set_parameter tls-creds tls0");
    qemu_must(qemu, "migrate -d %s", uri);
    for (unsigned waited_ms = 0; waited_ms < TOY_TIMEOUT_MS && !info->refused_connections;
         waited_ms += 10) {
        g_usleep(10000);
        faultline_query(toy->faultline, info);
    }
    if (!strstr(info->refusal, "its key for user 'qemu' is not the one here"))
        fail_msg("'%s'", info->refusal);
    assert_int_equal(info->status, FAULTLINE_STATUS_SETUP);
    qemu_end(qemu);
    toy_free(toy);
    certificates_remove(dir);
    certificates_remove(other);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qemu_source_gets_through_to_us),
        cmocka_unit_test(we_get_through_to_a_qemu_destination),
        cmocka_unit_test(qemu_with_another_key_is_refused_and_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
