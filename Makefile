# SPDX-License-Identifier: MIT
# faultline: make (program and library), make check, make demo, make bench, make lint, make install.
# V=1 shows the commands; SAN=address|undefined|thread builds and checks with that sanitizer.

CC ?= gcc
PACKAGES := liburing glib-2.0 gio-2.0 json-glib-1.0
BUILD := build$(if $(SAN),-$(SAN))
WARN := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wvla
CPPFLAGS += -I. -D_GNU_SOURCE $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
CFLAGS ?= -O2 -g
CFLAGS += -std=gnu11 $(WARN) -fPIC -fvisibility=hidden $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer)
LDLIBS += $(shell pkg-config --libs $(PACKAGES) 2>/dev/null) -lnuma -lpthread -lm
LDFLAGS += $(if $(SAN),-fsanitize=$(SAN))
Q := $(if $(V),,@)

LIBRARY := $(wildcard engine/*.c engine/*/*.c uffd/*.c transport/*.c)
PROGRAM := $(wildcard kvm/*.c)
object = $(patsubst %.c,$(BUILD)/%.o,$(1))

all: $(BUILD)/faultline

$(BUILD)/%.o: %.c
	$(Q)mkdir -p $(@D)
	$(if $(V),,@echo "  CC  $<")
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/libfaultline.a: $(call object,$(LIBRARY))
	$(Q)rm -f $@ && ar rcs $@ $^

# The guest that the program ships, as bytes in it.
$(BUILD)/guest.bin: kvm/guest/guest.asm kvm/guest/parameters.inc
	$(Q)mkdir -p $(@D)
	$(if $(V),,@echo "  NASM $<")
	$(Q)nasm -f bin -w+all -o $@ $<

$(BUILD)/kvm/guest/image.o: kvm/guest/image.S $(BUILD)/guest.bin
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -DGUEST_BIN='"$(BUILD)/guest.bin"' -c $< -o $@

# The machines without main(), for tests of them.
$(BUILD)/libmachine.a: $(call object,$(filter-out kvm/main.c,$(PROGRAM))) $(BUILD)/kvm/guest/image.o
	$(Q)rm -f $@ && ar rcs $@ $^

$(BUILD)/faultline: $(call object,$(PROGRAM)) $(BUILD)/kvm/guest/image.o $(BUILD)/libfaultline.a
	$(if $(V),,@echo "  LD  $@")
	$(Q)$(CC) $(LDFLAGS) $^ $(LDLIBS) -o $@

$(BUILD)/tests/unit/test_kvm%: $(BUILD)/tests/unit/test_kvm%.o $(BUILD)/libmachine.a \
                               $(BUILD)/libfaultline.a
	$(if $(V),,@echo "  LD  $@")
	$(Q)$(CC) $(LDFLAGS) $^ $(LDLIBS) -lcmocka -o $@

# One unit test is one file; it links the whole library.
$(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(BUILD)/libfaultline.a
	$(if $(V),,@echo "  LD  $@")
	$(Q)$(CC) $(LDFLAGS) $^ $(LDLIBS) -lcmocka -o $@

clean:
	rm -rf build build-*

.PHONY: all clean
.SECONDARY:
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
