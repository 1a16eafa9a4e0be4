# SPDX-License-Identifier: MIT
# faultline.
#   make            program and library in build/
#   make demo       a guest moves while you watch
#   make bench      latency and throughput beside this machine's floor, in build/bench/
#   make check      all tests; ONLY=pattern picks some by name, SEEDS=n sets the simulated migrations
#   make chaos      1,000 migrations of real processes to which something happens
#   make sim        simulated migrations alone, SEEDS=n; ends with what failed where
#   make fuzz       30 minutes a harness, or FUZZ_SECONDS; see tests/fuzz/README.md
#   make check-nested   some tests on Debian's kernel and KVM, inside an emulated machine
#   make lint       what CONTRIBUTING.md asks for, as far as a machine can tell
#   make install    DESTDIR and PREFIX as usual
#   make clean
# V=1 shows the commands. SAN=address|undefined|thread builds and checks in build-SAN/.

ifeq ($(origin CC),default)
CC := gcc
endif
NASM ?= nasm
PREFIX ?= /usr/local
SEEDS ?= 100000
BUILD := build$(if $(SAN),-$(SAN))
VERSION := 0.1.0
SONAME := libfaultline.so.0

all:

# ---- Packages --------------------------------------------------------------------------------
# $(BUILD)/packages.mk holds what pkg-config answers. make builds it before anything else, by
# .ci/setup, which installs what is missing for check and demo, and starts over with it read.

PACKAGES := liburing glib-2.0 gio-2.0 json-glib-1.0 gnutls libxxhash
INSTALL_PACKAGES := $(if $(filter check chaos demo bench,$(MAKECMDGOALS)),--install)

ifneq ($(if $(MAKECMDGOALS),$(filter-out clean lint,$(MAKECMDGOALS)),all),)
include $(BUILD)/packages.mk
endif

$(BUILD)/packages.mk: .ci/packages .ci/setup
	@.ci/setup $(INSTALL_PACKAGES) build
	@mkdir -p $(@D)
	@{ echo "PACKAGE_CFLAGS := $$(pkg-config --cflags $(PACKAGES))"; \
	   echo "PACKAGE_LIBS := $$(pkg-config --libs $(PACKAGES)) -lnuma"; } > $@.new && mv $@.new $@

# ---- Flags -----------------------------------------------------------------------------------

WARNINGS := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wvla
SANITIZE := $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer)
SANITIZE += $(if $(filter undefined,$(SAN)),-fno-sanitize-recover=undefined)
CFLAGS ?= -O2 -g
ALL_CPPFLAGS = -I. -D_GNU_SOURCE $(PACKAGE_CFLAGS) $(CPPFLAGS)
ALL_CFLAGS = -std=gnu11 $(WARNINGS) -fPIC -fvisibility=hidden -pthread $(CFLAGS) $(SANITIZE)
ALL_LDFLAGS = -pthread $(LDFLAGS) $(SANITIZE)
LIBS = $(PACKAGE_LIBS) -lm
MACHINE_LIBS = $(LIBS) -ledit -lmicrohttpd -lncurses
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' $(1) $(2))

# ---- Sources, in the order in which a page walks ----------------------------------------------

LIBRARY := $(wildcard uffd/*.c engine/*.c engine/stream/*.c engine/destination/*.c \
             engine/source/*.c transport/*.c engine/monitor/*.c)
MACHINE := $(filter-out kvm/main.c,$(wildcard kvm/*.c))
GUEST := $(wildcard kvm/guest/guest.asm)
GUEST_IMAGE := $(wildcard kvm/guest/image.S)
SUPPORT := $(wildcard tests/unit/support/*.c)
UNIT := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/unit/test_*.c))
SIM := $(wildcard tests/sim/*.c)
# The simulation brings its own channels, memory, clock and threads, and has no host to check.
SIM_ENGINE := $(filter-out engine/threads.c engine/check.c engine/monitor/% uffd/% transport/%,$(LIBRARY))
PAIR := $(wildcard tests/pair/*.c)
EMBED := $(wildcard tests/embed/embed.c)
BENCH_TEST := $(wildcard tests/bench/*.c)
# Each bench program is one file with main and all the others.
BENCH_MAIN := bench/afterwards.c bench/bulk.c bench/fault_latency.c
BENCH := $(filter-out $(BENCH_MAIN),$(wildcard bench/*.c))

object = $(patsubst %,$(BUILD)/%.o,$(basename $(1)))

# ---- Library and program ----------------------------------------------------------------------

PRODUCTS := $(BUILD)/libfaultline.a $(BUILD)/$(SONAME) \
            $(if $(wildcard kvm/main.c),$(BUILD)/faultline)

all: $(PRODUCTS)

$(BUILD)/%.o: %.c $(BUILD)/packages.mk
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/libfaultline.a: $(call object,$(LIBRARY))
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# Only what the two public headers declare is exported: they alone switch visibility on.
$(BUILD)/$(SONAME): $(call object,$(LIBRARY))
	$(call say,LD,$@)
	$(Q)$(CC) -shared -Wl,-soname,$(SONAME) $(ALL_LDFLAGS) $^ $(LIBS) -o $@

$(BUILD)/libmachine.a: $(call object,$(MACHINE) $(GUEST_IMAGE))
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/faultline: $(BUILD)/kvm/main.o $(BUILD)/libmachine.a $(BUILD)/libfaultline.a
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ $(MACHINE_LIBS) -o $@

$(BUILD)/guest.bin: $(GUEST) $(wildcard kvm/guest/*.inc) $(BUILD)/packages.mk
	$(call say,NASM,$<)
	$(Q)$(NASM) -f bin -w+all -I ./ $< -o $@

# The program carries the guest as bytes.
$(BUILD)/kvm/guest/image.o: kvm/guest/image.S $(BUILD)/guest.bin
	$(call say,AS,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) '-DGUEST_BIN="$(BUILD)/guest.bin"' -c $< -o $@

# ---- Benchmarks --------------------------------------------------------------------------------

BENCH_GUESTS := $(patsubst bench/guest/%.asm,$(BUILD)/bench/%.bin,$(wildcard bench/guest/*.asm))

all: $(BENCH_GUESTS)

$(BUILD)/bench/%.bin: bench/guest/%.asm $(BUILD)/packages.mk
	$(call say,NASM,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(NASM) -f bin $< -o $@

# ---- Tests -------------------------------------------------------------------------------------

# One unit test is one file. A line "/* link: FLAGS */" in it adds flags, e.g. -Wl,--wrap=ioctl.
$(BUILD)/tests/unit/test_%: $(BUILD)/tests/unit/test_%.o $(call object,$(SUPPORT)) \
                            $(BUILD)/libmachine.a $(BUILD)/libfaultline.a
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $$(sed -n 's,^/\* link: \(.*\) \*/$$,\1,p' tests/unit/test_$*.c) \
	    $^ $(MACHINE_LIBS) -lcmocka -o $@

$(BUILD)/tests/sim/sim: $(call object,$(SIM) $(SIM_ENGINE))
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ $(LIBS) -lcmocka -o $@

$(BUILD)/tests/pair/pair: $(call object,$(PAIR))
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ $(LIBS) -lcmocka -o $@

# The embedding sees nothing but what make install leaves behind.
STAGE := $(abspath $(BUILD)/stage)
$(BUILD)/tests/embed/embed: $(EMBED) $(PRODUCTS)
	$(Q)rm -rf $(STAGE) && mkdir -p $(@D)
	$(Q)$(MAKE) --no-print-directory install DESTDIR= PREFIX=$(STAGE) V=$(V) SAN=$(SAN)
	$(call say,EMBED,$@)
	$(Q)export PKG_CONFIG_PATH=$(STAGE)/lib/pkgconfig; \
	    $(CC) -std=gnu11 $(WARNINGS) -D_GNU_SOURCE $(CFLAGS) $(SANITIZE) $< -o $@ \
	    $$(pkg-config --cflags --libs faultline) -Wl,-rpath,$(STAGE)/lib

include tests/chaos/rules.mk

$(BUILD)/tests/bench/bench: $(call object,$(BENCH_TEST) $(BENCH)) $(BUILD)/libmachine.a \
                            $(BUILD)/libfaultline.a
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ $(MACHINE_LIBS) -lcmocka -o $@

include tests/fuzz/rules.mk

TESTS := $(UNIT) $(if $(BENCH_TEST),$(BUILD)/tests/bench/bench) $(if $(SIM),$(BUILD)/tests/sim/sim) \
         $(if $(EMBED),$(BUILD)/tests/embed/embed) $(if $(PAIR),$(BUILD)/tests/pair/pair) \
         $(if $(CHAOS),$(BUILD)/tests/chaos/chaos) $(FUZZ_PROGRAMS)
# Guests that write as fast as they can are not for the thread sanitizer; the unit tests move slower ones.
TESTS := $(if $(filter thread,$(SAN)),$(filter-out %/pair %/chaos,$(TESTS)),$(TESTS))

check: all $(TESTS)
	$(Q)BUILD=$(BUILD) SAN=$(SAN) SEEDS=$(SEEDS) ONLY='$(ONLY)' tests/run $(TESTS)

sim: $(BUILD)/tests/sim/sim
	$(Q)$< --seeds $(SEEDS)

# tests/nested/run says which of them it takes.
check-nested: all $(UNIT) $(BUILD)/tests/sim/sim
	$(Q)BUILD=$(BUILD) tests/nested/run

demo: all
	$(Q)$(BUILD)/faultline demo

# ---- Benches -------------------------------------------------------------------------------------

BENCHES := $(patsubst bench/%.c,$(BUILD)/bench/%,$(subst _,-,$(BENCH_MAIN)))
$(BENCHES): $(call object,$(BENCH)) $(BUILD)/libmachine.a $(BUILD)/libfaultline.a
$(BENCHES): $(BUILD)/bench/%: $(call object,$(BENCH_MAIN))
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $(BUILD)/bench/$(subst -,_,$*).o \
	    $(call object,$(BENCH)) $(BUILD)/libmachine.a $(BUILD)/libfaultline.a $(MACHINE_LIBS) -o $@

bench: all $(BENCHES)
	$(Q)BUILD=$(BUILD) bench/run

lint:
	$(Q).ci/setup $(if $(filter 0,$(shell id -u)),--install) build lint
	$(Q).ci/lint --self-test
	$(Q).ci/lint

# ---- Install -------------------------------------------------------------------------------------

TO = $(DESTDIR)$(PREFIX)

define PC
prefix=$(PREFIX)
libdir=$${prefix}/lib
includedir=$${prefix}/include/faultline

Name: faultline
Description: Live migration of virtual machines by precopy, then postcopy
Version: $(VERSION)
Requires: glib-2.0
Requires.private: $(filter-out glib-2.0,$(PACKAGES))
Libs: -L$${libdir} -lfaultline
Libs.private: -pthread -lm
Cflags: -I$${includedir}
endef

include doc/rules.mk

install: all install-documents
	$(call say,INST,$(TO))
	$(Q)install -d $(TO)/bin $(TO)/lib/pkgconfig $(TO)/include/faultline
	$(Q)install -m 644 $(addprefix engine/,faultline.h check.h control.h integrity.h measure.h \
	    objects.h owner.h recovery.h tracing.h guest.h) $(TO)/include/faultline/
	$(Q)install -m 644 $(BUILD)/libfaultline.a $(TO)/lib/
	$(Q)install -m 755 $(BUILD)/$(SONAME) $(TO)/lib/$(SONAME)
	$(Q)ln -sf $(SONAME) $(TO)/lib/libfaultline.so
	$(Q)printf '%s\n' "$$PC" > $(TO)/lib/pkgconfig/faultline.pc
	$(Q)[ ! -e $(BUILD)/faultline ] || install -m 755 $(BUILD)/faultline $(TO)/bin/
export PC

clean:
	rm -rf build build-address build-undefined build-thread build-fuzz

.PHONY: all check check-nested sim demo bench lint install install-documents clean
.DELETE_ON_ERROR:
.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
