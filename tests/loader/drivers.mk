# SPDX-License-Identifier: GPL-3.0-or-later
# One driver of tests/loader/drivers.py, OUT, of its own source and SOURCES of the loader. Objects are kept in OBJ, so
# that what several drivers have in common is compiled once, and again only where it changed.
LOADER := bpf/loader
CFLAGS := -std=gnu11 -O1 -g -Wall -Wextra -Werror -D_GNU_SOURCE -iquote $(LOADER) -Wno-format-truncation \
	-fsanitize=address,undefined -fno-sanitize-recover=all -ffunction-sections -fdata-sections -MMD -MP \
	-pthread -DEF_LIBBPF_VERSION='"$(shell pkg-config --modversion libbpf)"'
LIBS := -lbpf -lelf -lz -ljansson -lsodium
OBJECTS := $(OBJ)/$(NAME)_driver.o $(SOURCES:%.c=$(OBJ)/%.o)

.DELETE_ON_ERROR:

$(OUT): $(OBJECTS)
	gcc -fsanitize=address,undefined -Wl,--gc-sections $(LINK) $^ $(LIBS) -o $@

$(OBJ)/$(NAME)_driver.o: tests/loader/$(NAME)_driver.c tests/loader/drivers.mk
	@mkdir -p $(@D)
	gcc $(CFLAGS) -c $< -o $@

$(OBJ)/%.o: $(LOADER)/%.c tests/loader/drivers.mk
	@mkdir -p $(@D)
	gcc $(CFLAGS) -c $< -o $@

-include $(OBJECTS:.o=.d)
