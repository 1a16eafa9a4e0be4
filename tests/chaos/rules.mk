# SPDX-License-Identifier: MIT
# Migrations of real processes to which something happens. Part of the Makefile.
#   make chaos      COUNT and SEED of the migrations, JOBS at the same time

CHAOS := $(wildcard tests/chaos/*.c) $(wildcard tests/pair/qmp.c)
COUNT ?= 1000
SEED ?= 1
JOBS ?= 1

$(BUILD)/tests/chaos/chaos: $(call object,$(CHAOS))
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $^ $(LIBS) -o $@

chaos: all $(BUILD)/tests/chaos/chaos
	$(Q)$(BUILD)/tests/chaos/chaos --seed $(SEED) --count $(COUNT) --jobs $(JOBS)

.PHONY: chaos
