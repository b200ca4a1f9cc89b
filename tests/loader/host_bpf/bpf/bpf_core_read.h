/* SPDX-License-Identifier: GPL-3.0-or-later */
/* In the place of libbpf's: a field is where this machine's compiler puts it. */
bool ef_stand_in_type_exists(void);
#define EF_PICK(_1, _2, _3, _4, _5, name, ...) name
#define EF_READ_1(src, a) (src)->a
#define EF_READ_2(src, a, b) (src)->a->b
#define EF_READ_3(src, a, b, c) (src)->a->b->c
#define EF_READ_4(src, a, b, c, d) (src)->a->b->c->d
#define BPF_CORE_READ(src, ...)                                                                    \
	EF_PICK(src, __VA_ARGS__, EF_READ_4, EF_READ_3, EF_READ_2, EF_READ_1, 0)(src, __VA_ARGS__)
#define bpf_core_field_exists(field) 1
#define bpf_core_type_exists(type) ef_stand_in_type_exists()
#define bpf_core_type_id_local(type) 0
