# perigee: make builds, make run shows it, make test checks it. `make help` lists the rest.

BUILD ?= build
CC ?= cc
LUAJIT ?= luajit
PREFIX ?= /usr/local
WERROR ?= 1
T ?=

PKG = luajit libuv openssl hiredis
# Debian's luv and cjson headers and static libraries stand under lua5.1; their .pc files want liblua5.1-dev.
LUAINC := $(shell pkg-config --variable=includedir luajit 2>/dev/null)/..
LUALIB := $(shell pkg-config --variable=libdir luajit 2>/dev/null)
# llhttp: a library where the distribution has one, else the C sources of Debian 12's node-llhttp.
LLHTTP_PC := $(shell pkg-config --exists libllhttp 2>/dev/null && echo libllhttp)
LLHTTP_SRC := $(if $(LLHTTP_PC),,$(wildcard /usr/share/llhttp/*.c))

WARN = -Wall -Wextra -Wconversion -Wshadow $(if $(filter 1,$(WERROR)),-Werror)
OPT ?= -O2 -g -fno-omit-frame-pointer
CPPFLAGS += -Icore -D_GNU_SOURCE -I/usr/include/lua5.1 $(shell pkg-config --cflags $(PKG) $(LLHTTP_PC) 2>/dev/null) \
            $(if $(LLHTTP_PC),,-I/usr/share/include/llhttp)
CFLAGS += -std=gnu11 -fPIC $(OPT)
# OpenSSL is loaded by whoever needs it (core/base/openssl.c); the tests make certificates with it.
LIBS = $(shell pkg-config --libs libuv hiredis $(LLHTTP_PC) 2>/dev/null) -lm -ldl
# Each library that is linked into the program and not loaded saves it some 0.1 MB and 0.1 ms, twice.
UVDIR := $(shell pkg-config --variable=libdir libuv 2>/dev/null)
PROGRAM_LIBS = $(patsubst -luv,$(firstword $(wildcard $(UVDIR)/libuv_a.a $(UVDIR)/libuv.a) -luv),\
               $(patsubst -lhiredis,$(firstword $(wildcard $(UVDIR)/libhiredis.a) -lhiredis),$(LIBS)))
TEST_LIBS = $(shell pkg-config --libs openssl 2>/dev/null) -lcmocka

VERSION := $(shell sed -n 's/^return "\(.*\)"/\1/p' lua/perigee/version.lua)

CORE_SRC := $(filter-out core/main.c,$(wildcard core/*.c core/*/*.c))
PLAIN_SRC := $(filter-out core/bind/%,$(CORE_SRC))
OBJ = $(CORE_SRC:%.c=$(BUILD)/obj/%.o) $(LLHTTP_OBJ)
PLAIN_OBJ = $(PLAIN_SRC:%.c=$(BUILD)/obj/%.o) $(LLHTTP_OBJ)
LLHTTP_OBJ = $(patsubst /usr/share/llhttp/%.c,$(BUILD)/obj/llhttp/%.o,$(LLHTTP_SRC))
TYPES := $(sort $(wildcard lua/perigee/types/*.lua))
LUA_SRC := $(sort $(filter-out %_meta.lua $(TYPES),$(shell find lua/perigee -name '*.lua' 2>/dev/null)))
UNIT := $(patsubst spec/unit/%.c,$(BUILD)/unit/%,$(wildcard spec/unit/*_test.c))
MICRO := $(patsubst spec/bench/micro/%.c,$(BUILD)/bench/micro/%.o,$(wildcard spec/bench/micro/micro*.c))
FUZZ := $(patsubst spec/fuzz/%.c,$(BUILD)/fuzz/%,$(wildcard spec/fuzz/*_fuzz.c))

.PHONY: all deps run test unit unit-build spec asan valgrind fuzz bench bench-micro lint format install clean help
.SUFFIXES:
.SECONDARY:

all: $(BUILD)/lib/perigee/core.so $(BUILD)/bin/perigee

help:
	@sed -n 's/^## //p' Makefile

## all      build/bin/perigee and build/lib/perigee/core.so
## deps     install the packages the build needs (test: those of the tests too)
deps:
	@sh spec/support/packages build

## run      build, then show the main job: a gateway, a billing service, one order
run: deps
	@$(MAKE) --no-print-directory all
	@$(BUILD)/bin/perigee run scripts/demo.lua --timeout 30000
	@echo
	@echo "To stay on and play, in three terminals:"
	@echo "  $(BUILD)/bin/perigee serve scripts/billing.lua"
	@echo "  $(BUILD)/bin/perigee serve scripts/orders.lua"
	@echo "  curl -d '{\"orderId\":\"ord_42\",\"amount\":1999}' http://127.0.0.1:8080/orders/charge"

## test     everything: C units, specs, Nest peers; the last line counts
test:
	@sh spec/support/packages test
	@$(MAKE) --no-print-directory all
	@sh spec/support/run

## unit     C unit tests (T=name narrows)
unit: $(if $(T),$(foreach test,$(UNIT),$(if $(findstring $(T),$(test)),$(test))),$(UNIT))
	@for t in $^; do $$t || exit 1; done

unit-build: $(UNIT) $(BUILD)/bench/micro/micro

## spec     Lua specs (T=path narrows)
spec: all $(BUILD)/bench/micro/micro
	@sh spec/support/run spec $(T)

## asan     everything under address, undefined and leak sanitizers
asan:
	@sh spec/support/packages test
	@$(MAKE) --no-print-directory all BUILD=build/asan OPT="$(ASAN)"
	@PERIGEE_ASAN=1 BUILD=build/asan sh spec/support/run

ASAN = -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined

## fuzz     every fuzz target for FUZZ_SECONDS (5)
FUZZ_SECONDS ?= 5
fuzz:
	@sh spec/support/packages lint
	@$(MAKE) --no-print-directory $(FUZZ)
	@for f in $(FUZZ); do mkdir -p $(BUILD)/corpus/$$(basename $$f); \
	  $$f -max_total_time=$(FUZZ_SECONDS) -timeout=5 -rss_limit_mb=512 -verbosity=0 -print_final_stats=0 \
	  $(BUILD)/corpus/$$(basename $$f) || exit 1; done

## bench    the table of figures, side by side with Nest, HAProxy, nginx and the limit; its goals
bench: all
	@sh spec/bench/run

## bench-micro  ns and instructions of single operations beside the last kept ones (KEEP=1 keeps these)
bench-micro: all
	@sh spec/support/packages bench
	@$(MAKE) --no-print-directory $(BUILD)/bench/micro/micro
	@KEEP=$(KEEP) sh spec/bench/micro/run

## valgrind the C unit tests under valgrind
valgrind: $(UNIT)
	@for t in $^; do valgrind -q --error-exitcode=9 --leak-check=full $$t || exit 1; done

## lint     luacheck, clang-tidy, cppcheck
lint:
	@sh spec/support/packages lint
	luacheck -q lua scripts spec
	cppcheck -q --enable=warning,portability --suppress=ctuuninitvar --error-exitcode=1 -Icore core
	clang-tidy -quiet $(CORE_SRC) core/main.c -- -std=gnu11 $(CPPFLAGS)

## format   clang-format over core and spec
format:
	clang-format -i $(shell find core spec -name '*.[ch]')

## install  to PREFIX (/usr/local)
install: all
	install -D -m 755 $(BUILD)/bin/perigee $(DESTDIR)$(PREFIX)/bin/perigee
	install -D -m 755 $(BUILD)/lib/perigee/core.so $(DESTDIR)$(PREFIX)/lib/lua/5.1/perigee/core.so
	for f in $(LUA_SRC) $(TYPES); do install -D -m 644 $$f $(DESTDIR)$(PREFIX)/share/lua/5.1/$${f#lua/}; done

## clean    remove build/
clean:
	rm -rf $(BUILD)

# ---- rules ----

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	@echo '  CC   $<'
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(WARN) -MMD -MP -c -o $@ $<

$(BUILD)/obj/llhttp/%.o: /usr/share/llhttp/%.c
	@mkdir -p $(@D)
	@echo '  CC   $<'
	@$(CC) -DLLHTTP_STRICT_MODE=1 $(CPPFLAGS) $(CFLAGS) -w -c -o $@ $<

$(BUILD)/gen/sources.c: core/embed.lua core/dump.lua $(LUA_SRC)
	@mkdir -p $(@D)
	@$(LUAJIT) core/embed.lua "$$(pkg-config --modversion luajit)" $(LUA_SRC) > $@.tmp && mv $@.tmp $@

$(BUILD)/obj/sources.o: $(BUILD)/gen/sources.c core/bind/embedded.h
	@mkdir -p $(@D)
	@$(CC) $(CPPFLAGS) $(CFLAGS) -Wno-overlength-strings -c -o $@ $<

# A host has no supervisor.
$(BUILD)/lib/perigee/core.so: $(filter-out $(BUILD)/obj/core/supervisor/%,$(OBJ))
	@mkdir -p $(@D)
	@echo '  LINK $@'
	@$(CC) $(CFLAGS) $(LDFLAGS) -shared -Wl,-z,nodelete -o $@ $^ $(LIBS)

$(BUILD)/bin/perigee: $(BUILD)/obj/core/main.o $(OBJ) $(BUILD)/obj/sources.o
	@mkdir -p $(@D)
	@echo '  LINK $@'
	@$(CC) $(CFLAGS) $(LDFLAGS) -Wl,-E -o $@ $< $(OBJ) $(BUILD)/obj/sources.o \
	  -Wl,--whole-archive $(LUALIB)/libluajit-5.1.a -Wl,--no-whole-archive \
	  $(LUALIB)/liblua5.1-luv.a $(LUALIB)/liblua5.1-cjson.a $(PROGRAM_LIBS) -lpthread

$(BUILD)/unit/%: spec/unit/%.c $(PLAIN_OBJ)
	@mkdir -p $(@D)
	@echo '  UNIT $@'
	@$(CC) $(CPPFLAGS) -Ispec/unit $(CFLAGS) $(LDFLAGS) -MMD -MP -o $@ $< $(PLAIN_OBJ) $(LIBS) $(TEST_LIBS)

$(BUILD)/bench/micro/%.o: spec/bench/micro/%.c
	@mkdir -p $(@D)
	@$(CC) $(CPPFLAGS) $(CFLAGS) $(WARN) -MMD -MP -c -o $@ $<

$(BUILD)/bench/micro/micro: $(MICRO) $(PLAIN_OBJ)
	@echo '  MICRO $@'
	@$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/fuzz/%: spec/fuzz/%.c $(PLAIN_SRC)
	@mkdir -p $(@D)
	@echo '  FUZZ $@'
	@clang -g -O1 -fsanitize=fuzzer,address,undefined $(CPPFLAGS) -std=gnu11 -o $@ $< $(PLAIN_SRC) \
	  $(LLHTTP_SRC) $(LIBS)

-include $(wildcard $(OBJ:.o=.d) $(BUILD)/obj/core/main.d $(UNIT:%=%.d) $(MICRO:.o=.d))
