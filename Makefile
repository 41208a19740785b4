# deltazoo. `make` builds build/deltazoo and build/libdeltazoo.so; `make demo` and `make check` install what is missing first.
#
#   make V=1                                          with the commands that are run
#   make MPICC=mpicc HDF5_PREFIX=/opt/hdf5          on a cluster, after `module load`
#   make FLAVOUR=asan                                 address and undefined behaviour sanitizers, in build/asan
#   make FLAVOUR=fault                                faults on purpose (src/base/fault.h), in build/fault
#   make CC=clang WERROR=1                            warnings as errors (CI)
#   make check-mpich                                  the program, its unit tests and a small job with MPICH instead of Open MPI
#   make check-slurm                                  jobs/ in a SLURM of its own on this machine
#   make check-stacks                                 with other compilers, MPIs, releases of HDF5, and for arm64 (root)
#   make dist                                         build/dist/deltazoo-VERSION.tar.gz and its checksum (src/doc/releases.md)
#   make install DESTDIR=... PREFIX=... LIBDIR=...    and make check-installed with the same

FLAVOUR ?= release
ifeq ($(origin CC),default)
CC := gcc
endif
MPICC ?= $(if $(shell command -v mpicc.openmpi),mpicc.openmpi,mpicc)
PKG ?= pkg-config
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
ABI := 0
VERSION := $(shell sed -n 's/.*DZ_VERSION "\(.*\)"/\1/p' src/base/version.h)
PYTHON ?= /usr/bin/python3
RUN ?= # what runs a program built for another machine: qemu-aarch64-static -L /usr/aarch64-linux-gnu

comma := ,
B := build/$(FLAVOUR)
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla $(if $(WERROR),-Werror)
CSTD := -std=c11 -D_GNU_SOURCE -fPIC -fno-math-errno -fvisibility=hidden
SAME_BYTES := -fno-fast-math -ffp-contract=off # after CFLAGS: archives are the same whatever a packager's flags are
OPT_release := -O3 -g
OPT_mpich := -O3 -g
OPT_serial := -O3 -g
OPT_python := -O3 -g
OPT_fault := -O2 -g -DDZ_FAULTS
OPT_asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
LD_asan := -fsanitize=address,undefined
OPT_fuzz := -O1 -DFUZZ_MUTATOR -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
LD_fuzz := -fsanitize=address,undefined

# Without MPI: make SERIAL=1 FLAVOUR=serial, with a serial HDF5.
ifdef SERIAL
MPI_CFLAGS := -Isrc/parallel/serial -DDZ_SERIAL
MPI_LIBS :=
HDF5_NAME ?= $(shell $(PKG) --exists hdf5-serial 2>/dev/null && echo hdf5-serial || echo hdf5)
else
# The compiler wrapper's own words for its paths (Open MPI's; MPICH's and Intel's); HDF5's come from HDF5_PREFIX or pkg-config.
MPI_WORDS := $(shell $(MPICC) -showme 2>/dev/null || $(MPICC) -show 2>/dev/null)
MPI_CFLAGS := $(filter -I% -D%,$(MPI_WORDS))
MPI_LIBS := $(filter -L% -l% -Wl$(comma)%,$(MPI_WORDS))
MPI_KIND := $(if $(findstring Open MPI,$(shell $(MPICC) -showme:version 2>&1)),openmpi,$(if $(findstring mpich,$(MPI_WORDS)),mpich))
HDF5_NAME ?= $(shell $(PKG) --exists hdf5-$(MPI_KIND) 2>/dev/null && echo hdf5-$(MPI_KIND) || echo hdf5)
endif
ifdef HDF5_PREFIX
HDF5_DIR := $(firstword $(foreach d,lib lib64,$(if $(wildcard $(HDF5_PREFIX)/$(d)/libhdf5.*),$(HDF5_PREFIX)/$(d))) $(HDF5_PREFIX)/lib)
HDF5_CFLAGS := -I$(HDF5_PREFIX)/include
HDF5_LIBS := -L$(HDF5_DIR) -Wl,-rpath,$(HDF5_DIR) -lhdf5
else
HDF5_CFLAGS := $(shell $(PKG) --cflags $(HDF5_NAME) 2>/dev/null)
HDF5_LIBS := $(filter-out -lmpi%,$(shell $(PKG) --libs $(HDF5_NAME) 2>/dev/null || echo -lhdf5)) # Debian names MPI's Fortran libraries too
endif
ifdef MKL
MKL_CFLAGS := -DDZ_MKL -I$(MKLROOT)/include
BLAS_LIBS ?= -L$(MKLROOT)/lib -L$(MKLROOT)/lib/intel64 -lmkl_rt
endif
BLAS_LIBS ?= -llapacke -lopenblas

# Two MPIs in one program end it at its start. Asked when something is compiled, so that `make deps` can first install what is missing.
WRONG_HDF5 := $(and $(MPI_KIND),$(findstring $(filter-out $(MPI_KIND),openmpi mpich),$(if $(HDF5_PREFIX),,$(HDF5_NAME) $(HDF5_LIBS))))
ifneq ($(WRONG_HDF5),)
HDF5_CHECK = $(error $(MPICC) is of $(MPI_KIND), but the HDF5 found is not: install libhdf5-$(MPI_KIND)-dev, or set HDF5_PREFIX, or HDF5_NAME for pkg-config)
endif

# HDF5 2 has given calls other arguments (H5Dread_chunk): those of 1.10.
CPPFLAGS_ALL = $(HDF5_CHECK) -Isrc -Iinclude -DH5_USE_110_API $(CPPFLAGS) $(patsubst -I%,-isystem %,$(MPI_CFLAGS) $(HDF5_CFLAGS) $(MKL_CFLAGS))
# MPICH's MPI_STATUSES_IGNORE is address 1, which gcc takes for an array that is too small.
WARN_MPI := $(if $(filter mpich,$(MPI_KIND)),$(if $(findstring clang,$(CC)),,-Wno-stringop-overflow))
CFLAGS_ALL := $(CSTD) $(WARN) $(WARN_MPI) $(OPT_$(FLAVOUR)) $(CFLAGS) $(SAME_BYTES)
LIB_LIBS := $(filter-out $(MPI_LIBS),$(HDF5_LIBS)) -ljansson -lxxhash -lzstd -lz -lhtscodecs -lm $(LDLIBS)
LIBS := $(MPI_LIBS) $(HDF5_LIBS) -lyaml -ljansson -lxxhash -lzstd -lz -lhtscodecs $(BLAS_LIBS) -lm $(LDLIBS)

SRC := $(filter-out src/cli/%,$(wildcard src/*/*.c src/*/*/*.c))
CLI := $(wildcard src/cli/*.c)
OBJ := $(SRC:src/%.c=$(B)/%.o) $(B)/config/builtin_table.o
# Kernels once more for each instruction set: see below.
X86 := $(filter x86_64%,$(shell $(CC) -dumpmachine))
ifdef X86
OBJ += $(B)/numeric/kernels_avx2.o $(B)/numeric/kernels_avx512.o
endif
# The library: reading archives and base models, decoding. Nothing of it calls MPI, BLAS or YAML; -z defs shows at once what it lacks.
LIB_PARTS := base/% codec/% checkpoint/% config/policy numeric/allocate numeric/close numeric/dispatch numeric/gauss numeric/kernels% numeric/noise numeric/rotate numeric/trellis numeric/uniform_quantiser plan/kind plan/matrix_view plan/name_parts plan/structure \
    archive/blocks archive/catalog archive/files archive/foreign archive/links archive/read_tasks archive/reader archive/schema archive/stats archive/table archive/validate decode/add_kept decode/rotated decode/tile_decoder lib/library
LIBOBJ := $(filter $(LIB_PARTS:%=$(B)/%.o),$(OBJ))
# The Python package's library (make python, SERIAL=1 only): the same, and whole models.
PYTHON_PARTS := $(LIB_PARTS) config/% parallel/% archive/% decode/% restore/% archive_ops/verify lib/model
PYTHON_OBJ := $(filter $(PYTHON_PARTS:%=$(B)/%.o),$(OBJ))
CLIOBJ := $(CLI:src/%.c=$(B)/%.o)
UNIT := $(patsubst tests/unit/%.c,$(B)/unit/%,$(wildcard tests/unit/test_*.c))
FUZZ := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
REPLAY := $(FUZZ:%=$(B)/fuzz/%)
BENCH := $(patsubst tests/bench/%.c,$(B)/bench/%,$(wildcard tests/bench/bench_*.c))
RECIPES := $(sort $(wildcard config/recipes/*.yaml))

# One short line for each file; V=1 shows the commands.
Q := $(if $(V),,@)
SAY = $(if $(V),@:,@echo "  $(1)  $(patsubst src/%,%,$(2))")

.PHONY: all deps demo sweep-architectures check check-unit check-asan check-crash check-flips check-foreign check-mpich mpich serial python wheel check-slurm check-clients check-all fuzz bench experiments man install check-installed dist recipes abi check-abi check-debian check-debian13 check-stacks format lint clean units venv fault syntax quality-lm
.SECONDARY:
ifeq ($(FLAVOUR),release)
all: build/deltazoo build/libdeltazoo.so build/libdeltazoo.a
else # never in the place of the release's program
all: $(B)/deltazoo $(B)/libdeltazoo.so $(B)/libdeltazoo.a
endif

build/deltazoo: $(B)/deltazoo
	@cp -f $< $@.tmp && mv -f $@.tmp $@
build/libdeltazoo.so: $(B)/libdeltazoo.so
	@cp -f $< $@.tmp && mv -f $@.tmp $@
	@ln -sf libdeltazoo.so build/libdeltazoo.so.$(ABI)
build/libdeltazoo.a: $(B)/libdeltazoo.a
	@cp -f $< $@.tmp && mv -f $@.tmp $@

$(B)/deltazoo: $(CLIOBJ) $(OBJ)
	$(call SAY,LD,$@)
	$(Q)$(CC) $(LD_$(FLAVOUR)) $(LDFLAGS) -o $@ $^ $(LIBS)
$(B)/libdeltazoo.so: $(LIBOBJ) src/lib/library.map
	$(call SAY,LD,$@)
	$(Q)$(CC) -shared -Wl,-soname,libdeltazoo.so.$(ABI) -Wl,--version-script=src/lib/library.map $(if $(LD_$(FLAVOUR)),,-Wl$(comma)-z$(comma)defs) $(LD_$(FLAVOUR)) $(LDFLAGS) -o $@ $(LIBOBJ) $(LIB_LIBS)
	@echo '$(strip $(LIB_LIBS))' >$(B)/libs
$(B)/python.so: $(PYTHON_OBJ) src/lib/library.map
	$(call SAY,LD,$@)
	$(Q)$(CC) -shared -s -Wl,--version-script=src/lib/library.map -Wl,-z,defs $(LDFLAGS) -o $@ $(PYTHON_OBJ) $(LIB_LIBS) -lyaml
$(B)/libdeltazoo.a: $(LIBOBJ)
	$(call SAY,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# Are all libraries there, and recent enough? Asked once, before the first object.
$(B)/libraries: src/libraries.sh Makefile
	@mkdir -p $(@D)
	@CC='$(CC)' CPPFLAGS='$(CPPFLAGS_ALL) $(CFLAGS)' MPI='$(if $(SERIAL),no,$(MPI_LIBS))' MPICC='$(MPICC)' HDF5='$(HDF5_LIBS)' PKG='$(if $(HDF5_PREFIX),,$(PKG))' BLAS='$(if $(filter python,$(FLAVOUR)),no,$(BLAS_LIBS))' MKL='$(MKL)' \
	    LDFLAGS='$(LDFLAGS) $(LDLIBS)' src/libraries.sh >$@.tmp && mv $@.tmp $@

$(B)/%.o: src/%.c Makefile | $(B)/libraries
	@mkdir -p $(@D)
	$(call SAY,CC,$<)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -MMD -MP -c $< -o $@

# Kernels are compiled once for each instruction set; the program picks at run time (numeric/kernels.h).
$(B)/numeric/kernels_avx2.o: src/numeric/kernels.c Makefile | $(B)/libraries
	@mkdir -p $(@D)
	$(call SAY,CC,$<)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -march=haswell -DDZ_KERNELS=dz_kernels_avx2 -MMD -MP -c $< -o $@
$(B)/numeric/kernels_avx512.o: src/numeric/kernels.c Makefile | $(B)/libraries
	@mkdir -p $(@D)
	$(call SAY,CC,$<)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -march=skylake-avx512 -mprefer-vector-width=512 -DDZ_KERNELS=dz_kernels_avx512 -MMD -MP -c $< -o $@

# Built-in recipes: the text of config/recipes/NN-NAME.yaml as C strings.
$(B)/config/builtin_table.c: $(RECIPES) Makefile
	@mkdir -p $(@D)
	@{ echo '#include "config/builtin.h"'; echo 'const dz_builtin DZ_BUILTINS[] = {'; \
	  for f in $(RECIPES); do n=$$(basename $$f .yaml); echo "{\"$${n#[0-9][0-9]-}\","; \
	    sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/"/' -e 's/$$/\\n"/' $$f; echo '},'; done; \
	  echo '{0, 0}};'; } > $@
$(B)/config/builtin_table.o: $(B)/config/builtin_table.c
	$(call SAY,CC,$<)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -c $< -o $@

# cmocka 2 calls deprecated what cmocka 1 has nothing else for.
$(B)/unit/%: tests/unit/%.c $(OBJ)
	@mkdir -p $(@D)
	$(call SAY,CC,$<)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -DCMOCKA_DISABLE_DEPRECATION_WARNINGS -Itests $(LD_$(FLAVOUR)) -MMD -MP -o $@ $< $(OBJ) $(LIBS) -lcmocka
$(B)/bench/%: tests/bench/%.c $(OBJ)
	@mkdir -p $(@D)
	$(call SAY,CC,$<)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(LD_$(FLAVOUR)) -o $@ $< $(OBJ) $(LIBS)
# Fuzz targets: with libFuzzer's main in the flavour fuzz (`make fuzz`), elsewhere with one that replays tests/broken.
$(B)/fuzz/%: tests/fuzz/fuzz_%.c tests/fuzz/target.h $(if $(filter fuzz,$(FLAVOUR)),,tests/fuzz/replay.c) $(OBJ)
	@mkdir -p $(@D)
	$(call SAY,CC,$<)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -Itests/fuzz $(LD_$(FLAVOUR)) $(if $(filter fuzz,$(FLAVOUR)),-fsanitize=fuzzer) $(LDFLAGS) -o $@ $(filter %.c %.o,$^) $(LIBS)
$(B)/fuzz_seeds: tests/fuzz/seeds.c tests/fuzz/target.h $(OBJ)
	$(call SAY,CC,$<)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -Itests/fuzz $(LD_$(FLAVOUR)) $(LDFLAGS) -o $@ $(filter %.c %.o,$^) $(LIBS)
$(B)/flips: tests/flips/flips.c $(OBJ)
	$(call SAY,CC,$<)
	$(Q)$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) $(LD_$(FLAVOUR)) $(LDFLAGS) -o $@ $^ $(LIBS)
units: $(UNIT) $(REPLAY) $(B)/flips

deps:
	@tests/deps.sh

# build/venv: the Python of the tests.
venv:
	@tests/deps.sh tests
	@tests/venv.sh

demo: deps
	@$(MAKE) --no-print-directory all
	@tests/demo.sh

# The tests (tests/README.md): JOBS at a time, the last line reads "N passed, N failed"; every result is in build/junit.xml too.
JOBS ?= $(shell echo $$((2 * $$(nproc))))
PYTEST = build/venv/bin/python -m pytest tests -n $(JOBS) --junitxml=build/junit.xml
HERE_ALONE := not (long or slurm or mpich or serial)

check: venv
	@$(MAKE) --no-print-directory all units fault wheel
	@$(PYTEST) -m "$(HERE_ALONE)"

# All of it: also SLURM, two hosts, MPICH, no MPI (CI).
check-all:
	@tests/deps.sh tests slurm mpich serial
	@tests/venv.sh
	@$(MAKE) --no-print-directory all units fault mpich serial wheel
	@$(PYTEST) -m "not long"

check-unit: venv
	@$(MAKE) --no-print-directory all units
	@$(PYTEST) -m "unit and not mpich"

check-asan: venv
	@$(MAKE) --no-print-directory fault
	@$(MAKE) --no-print-directory FLAVOUR=asan build/asan/deltazoo units
	@FLAVOUR=asan $(PYTEST) -m "$(HERE_ALONE)"

# Faults on purpose, the long matrix; CRASH_REPORT=results/reliability.md keeps the table.
check-crash: venv
	@$(MAKE) --no-print-directory all fault
	@CRASH_REPORT=$(CRASH_REPORT) $(PYTEST) -m "crash and long"

# Every bit of an archive flipped, and 4,000 of two others; FLIPS_REPORT=FILE.md keeps the table.
check-flips: venv
	@$(MAKE) --no-print-directory all $(B)/flips
	@FLIPS_REPORT=$(FLIPS_REPORT) $(PYTEST) -m "flips and long"

# Each fuzz target for T seconds (clang and its libFuzzer), those of TARGETS if given; FUZZ_REPORT=1 writes results/fuzz.md.
T ?= 60
TARGETS ?= $(FUZZ)
fuzz:
	@tests/deps.sh tests fuzz
	@tests/venv.sh
	@$(MAKE) --no-print-directory all
	@$(MAKE) --no-print-directory CC=clang FLAVOUR=fuzz build/fuzz/fuzz_seeds $(TARGETS:%=build/fuzz/fuzz/%)
	@T=$(T) tests/fuzz/run.sh $(TARGETS)

# 1,000 archives to which h5py has added random objects.
check-foreign: venv
	@$(MAKE) --no-print-directory all
	@DZ_FOREIGN=1000 $(PYTEST) -k random_objects -s

check-slurm:
	@tests/deps.sh tests slurm
	@tests/venv.sh
	@$(MAKE) --no-print-directory all
	@$(PYTEST) -m slurm

fault:
	@$(MAKE) --no-print-directory FLAVOUR=fault build/fault/deltazoo
mpich:
	@$(MAKE) --no-print-directory FLAVOUR=mpich MPICC=mpicc.mpich HDF5_NAME=hdf5-mpich build/mpich/deltazoo $(UNIT:$(B)/%=build/mpich/%)
serial:
	@$(MAKE) --no-print-directory SERIAL=1 FLAVOUR=serial build/serial/deltazoo
# The C library of the Python package, for CMake (src/python/CMakeLists.txt).
python:
	@$(MAKE) --no-print-directory SERIAL=1 FLAVOUR=python build/python/python.so
# build/wheel/deltazoo-*.whl, with the libraries that it needs in it: for a machine with Python and nothing else.
wheel:
	@tests/deps.sh wheel
	@tests/wheel.sh
# Models of the libraries themselves, through the program and back into the libraries, in a Python of their own.
check-clients: all
	@tests/client/run.sh

check-mpich:
	@tests/deps.sh tests mpich
	@tests/venv.sh
	@$(MAKE) --no-print-directory all mpich
	@$(PYTEST) -m mpich

bench: deps
	@$(MAKE) --no-print-directory all build/release/bench/bench_lossless
	@tests/bench/run.sh

# results/quality-lm.md: a real language model and a real encoder, fine-tuned here. At most 90 minutes on two quiet cores; needs pip.
quality-lm: all
	@tests/quality/lm/run.sh

# Every model type of transformers and diffusers is built, planned and counted: results/architectures.md. Half an hour, outside of CI.
build/sweep-venv/installed: tests/checkpoints/requirements.txt
	@rm -rf build/sweep-venv && $(PYTHON) -m venv build/sweep-venv
	@build/sweep-venv/bin/python -m pip install -q --disable-pip-version-check -r $<
	@cp $< $@
sweep-architectures: all build/sweep-venv/installed
	@HF_HUB_OFFLINE=1 build/sweep-venv/bin/python tests/checkpoints/sweep.py --report results/architectures.md

# What results/ has of the paper's models and of accuracy: under an hour on two cores. jobs/experiments.sbatch: the full scale.
experiments: deps
	@$(MAKE) --no-print-directory all
	@tests/paper/run.sh
	@tests/quality/run.sh

# Manual pages, from the commands' own tables.
build/man/deltazoo.1: $(B)/deltazoo
	@mkdir -p $(@D)
	@rm -f $(@D)/*.1
	@for c in $$($(RUN) $(B)/deltazoo --help=words); do $(RUN) $(B)/deltazoo $$c --help=man >$(@D)/deltazoo-$$c.1 || exit 1; done
	@$(RUN) $(B)/deltazoo --help=man >$@
man: build/man/deltazoo.1

# $(B)/libs: what this build was linked with, whatever variables `make install` is given.
SHARE = $(DESTDIR)$(PREFIX)/share
install: all man
	@install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(PREFIX)/include $(SHARE)/deltazoo/python/src/deltazoo $(SHARE)/man/man1 $(SHARE)/bash-completion/completions
	@install -m 755 $(B)/deltazoo $(DESTDIR)$(PREFIX)/bin/
	@install -m 755 $(B)/libdeltazoo.so $(DESTDIR)$(LIBDIR)/libdeltazoo.so.$(VERSION)
	@ln -sf libdeltazoo.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libdeltazoo.so.$(ABI)
	@ln -sf libdeltazoo.so.$(ABI) $(DESTDIR)$(LIBDIR)/libdeltazoo.so
	@install -m 644 $(B)/libdeltazoo.a $(DESTDIR)$(LIBDIR)/
	@printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(patsubst $(PREFIX)/%,$${prefix}/%,$(LIBDIR))' 'Name: deltazoo' \
	    'Description: archives of fine-tuned models as one base and tiny deltas' 'Version: $(VERSION)' \
	    'Cflags: -I$${prefix}/include' 'Libs: -L$${libdir} -ldeltazoo' "Libs.private: $$(cat $(B)/libs)" >$(DESTDIR)$(LIBDIR)/pkgconfig/deltazoo.pc
	@install -m 644 include/deltazoo.h $(DESTDIR)$(PREFIX)/include/
	@cp -r config jobs $(SHARE)/deltazoo/
	@chmod 755 $(SHARE)/deltazoo/jobs/*.sbatch
	@rm -rf $(SHARE)/deltazoo/config/packages
	@install -m 644 src/python/deltazoo.py src/python/pyproject.toml src/python/CMakeLists.txt $(SHARE)/deltazoo/python/
	@install -m 644 src/python/src/deltazoo/*.py src/python/src/deltazoo/py.typed $(SHARE)/deltazoo/python/src/deltazoo/
	@install -m 644 src/python/deltazoo.py $(SHARE)/deltazoo/python/src/deltazoo/pure.py # as the wheel has it: PYTHONPATH=.../python/src is enough
	@sed 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|' tests/install/check.sh >$(SHARE)/deltazoo/check-installed
	@chmod 755 $(SHARE)/deltazoo/check-installed
	@install -m 644 tests/install/example.c $(SHARE)/deltazoo/
	@install -m 644 build/man/*.1 $(SHARE)/man/man1/
	@install -m 644 src/cli/completion.bash $(SHARE)/bash-completion/completions/deltazoo
	@echo 'deltazoo $(VERSION) is in $(DESTDIR)$(PREFIX)'

# The installed tree by itself: it uses nothing of the source.
check-installed:
	@cd / && DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' LIBDIR='$(LIBDIR)' '$(SHARE)/deltazoo/check-installed'

# The released source: the same bytes from the same commit, anywhere.
dist:
	@src/dist.sh $(VERSION)
# Recipes with its checksum, for the address where it will be published (else for the file itself): build/dist/recipes.
recipes: dist
	@config/packages/recipes.sh build/dist/deltazoo-$(VERSION).tar.gz build/dist/recipes $(URL)

# The library's binary interface against the one of the last release (src/doc/releases.md): tests/install/abi.xml. `make abi` saves it anew.
ABI_FILE := tests/install/abi.xml
abi: all
	@tests/install/abi.sh save $(ABI_FILE) $(B)/libdeltazoo.so
check-abi: all
	@tests/install/abi.sh check $(ABI_FILE) $(B)/libdeltazoo.so

# The same tests in Debian 13, and in any other of Debian's suites (root, debootstrap).
check-debian13: SUITE := trixie
SUITE ?= trixie
check-debian check-debian13:
	@tests/debian.sh $(SUITE)

# The table of stacks of src/doc/building.md: compilers, MPIs, releases of HDF5, arm64. ROWS: some of them (tests/stacks.sh).
check-stacks: venv
	@$(MAKE) --no-print-directory all
	@tests/stacks.sh $(ROWS)

# What another compiler says of every source, without building it: make -j CC=clang WERROR=1 syntax.
SYNTAX := $(SRC) $(CLI) $(wildcard tests/unit/*.c tests/fuzz/fuzz_*.c tests/fuzz/seeds.c tests/fuzz/replay.c tests/flips/*.c tests/bench/*.c)
syntax: $(SYNTAX:%=%.syntax) $(if $(X86),kernels_avx2.syntax kernels_avx512.syntax)
%.c.syntax: %.c
	@$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -DCMOCKA_DISABLE_DEPRECATION_WARNINGS -Itests -Itests/fuzz -fsyntax-only $<
kernels_avx2.syntax: src/numeric/kernels.c
	@$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -march=haswell -DDZ_KERNELS=dz_kernels_avx2 -fsyntax-only $<
kernels_avx512.syntax: src/numeric/kernels.c
	@$(CC) $(CPPFLAGS_ALL) $(CFLAGS_ALL) -march=skylake-avx512 -mprefer-vector-width=512 -DDZ_KERNELS=dz_kernels_avx512 -fsyntax-only $<

C_FILES = $$(git ls-files -co --exclude-standard '*.[ch]' 2>/dev/null || find include src tests -name '*.[ch]')
format:
	clang-format -i $(C_FILES)
lint:
	clang-format --dry-run -Werror $(C_FILES)
	tests/layers.sh

clean:
	rm -rf build

-include $(shell find $(B) -name '*.d' 2>/dev/null)
