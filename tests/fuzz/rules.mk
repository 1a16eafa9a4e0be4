# SPDX-License-Identifier: MIT
# Fuzzing: each tests/fuzz/fuzz_NAME.c is a harness. make check runs it over its corpus and what it
# once found; make fuzz builds it with libFuzzer and runs it for FUZZ_SECONDS. Part of the Makefile.

FUZZ_SECONDS ?= 1800
comma := ,
FUZZ := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
# Those that are one side alone are linked with the simulation; uri and stream with the real thing.
FUZZ_SIDE := $(filter-out uri stream,$(FUZZ))
FUZZ_SIM := $(filter-out tests/sim/sim.c tests/sim/sim_migration.c tests/sim/sim_operator.c \
                         tests/sim/sim_end.c,$(SIM)) \
            tests/fuzz/side.c tests/fuzz/peer.c tests/fuzz/guest.c tests/fuzz/script.c \
            $(SIM_ENGINE) $(filter engine/monitor/%,$(LIBRARY))
FUZZ_PROGRAMS := $(patsubst %,$(BUILD)/tests/fuzz/fuzz_%,$(FUZZ))
# libFuzzer brings main() with -fsanitize=fuzzer; without it replay.c does.
FUZZ_MAIN := $(if $(FUZZER),tests/fuzz/bound.c,tests/fuzz/bound.c tests/fuzz/replay.c)
FUZZ_LDFLAGS := $(if $(FUZZER),-fsanitize=fuzzer)

$(patsubst %,$(BUILD)/tests/fuzz/fuzz_%,$(FUZZ_SIDE)): $(BUILD)/tests/fuzz/fuzz_%: \
        $(BUILD)/tests/fuzz/fuzz_%.o $(call object,$(FUZZ_MAIN) $(FUZZ_SIM))
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $(FUZZ_LDFLAGS) -Wl,--wrap=faultline_measure_dirty_rate $^ $(LIBS) -o $@

$(BUILD)/tests/fuzz/fuzz_uri: $(BUILD)/tests/fuzz/fuzz_uri.o $(call object,$(FUZZ_MAIN)) \
        $(BUILD)/libmachine.a $(BUILD)/libfaultline.a
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $(FUZZ_LDFLAGS) $^ $(MACHINE_LIBS) -o $@

$(BUILD)/tests/fuzz/fuzz_stream: $(BUILD)/tests/fuzz/fuzz_stream.o \
        $(call object,$(FUZZ_MAIN) $(filter %/walk.c,$(SUPPORT)) \
                      $(filter tests/unit/support/walk_%,$(SUPPORT))) $(BUILD)/libfaultline.a
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $(FUZZ_LDFLAGS) $^ $(LIBS) -o $@

# Made anew only when the stream changes; what is in the corpus stays.
FUZZ_WRAP := transport_send transport_connect_finish sim_uffd_touch faultline_start_postcopy \
             faultline_recover faultline_migrate_resume sim_plan_make sim_guest_reset
$(BUILD)/tests/fuzz/seeds: $(BUILD)/tests/fuzz/seeds.o \
        $(call object,$(filter-out tests/sim/sim.c,$(SIM)) $(SIM_ENGINE))
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $(patsubst %,-Wl$(comma)--wrap=%,$(FUZZ_WRAP)) $^ $(LIBS) -o $@

fuzz-seeds: $(BUILD)/tests/fuzz/seeds
	$(Q)$< tests/fuzz/corpus

fuzz-programs: $(FUZZ_PROGRAMS)

fuzz:
	$(Q)$(MAKE) --no-print-directory BUILD=build-fuzz CC=clang SAN=address,undefined FUZZER=1 \
	    CFLAGS='-O1 -g -fsanitize=fuzzer-no-link -fno-sanitize-recover=undefined' fuzz-programs
	$(Q)FUZZ_SECONDS=$(FUZZ_SECONDS) ONLY='$(ONLY)' tests/fuzz/run $(FUZZ)

.PHONY: fuzz fuzz-programs fuzz-seeds
