# SPDX-License-Identifier: MIT
# Manual pages, whose tables of options come from the library; completion of bash; a unit of systemd.
# Part of the Makefile.

PAGES := $(patsubst %,$(BUILD)/%,$(wildcard doc/*.[17]))

all: $(PAGES)

$(BUILD)/doc/options: $(BUILD)/doc/options.o $(BUILD)/libfaultline.a
	$(Q)$(CC) $(ALL_LDFLAGS) $^ $(LIBS) -o $@

$(PAGES): $(BUILD)/%: % $(BUILD)/doc/options
	$(call say,MAN,$@)
	$(Q)$(BUILD)/doc/options < $< > $@

install-documents: $(PAGES)
	$(Q)install -d $(TO)/share/man/man1 $(TO)/share/man/man7 \
	    $(TO)/share/bash-completion/completions $(TO)/lib/systemd/system
	$(Q)install -m 644 $(filter %.1,$(PAGES)) $(TO)/share/man/man1/
	$(Q)install -m 644 $(filter %.7,$(PAGES)) $(TO)/share/man/man7/
	$(Q)install -m 644 doc/completion.bash $(TO)/share/bash-completion/completions/faultline
	$(Q)install -D -m 755 doc/faultline-walk.bt $(TO)/share/faultline/faultline-walk.bt
	$(Q)sed 's,@PREFIX@,$(PREFIX),' doc/faultline-incoming@.service \
	    > $(TO)/lib/systemd/system/faultline-incoming@.service
