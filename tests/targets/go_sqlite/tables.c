#define _GNU_SOURCE
#include "tables.h"

#include <link.h>
#include <string.h>

#define OBJECTS 32
#define REMEMBERED 8

/* Numbers of registers (System V ABI, x86-64, figure 3.36). */
enum { RBP = 6, RSP = 7, PLT = 255 };

/* .eh_frame_hdr as every linker writes it: version 1, and a table of pairs relative to its own start (LSB 5.0, 10.6.2). */
struct header {
	uint8_t version, pointer_encoding, count_encoding, table_encoding;
	int32_t eh_frame;
	uint32_t count;
	struct entry {
		int32_t start, fde;
	} table[];
};

static struct object {
	uintptr_t start, end; /* of the code */
	const struct header *header;
} objects[OBJECTS];
static int n_objects;

static int add_object(struct dl_phdr_info *info, size_t size, void *data)
{
	struct object object = {0};

	(void)size, (void)data;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		uintptr_t at = info->dlpi_addr + segment->p_vaddr;
		if (segment->p_type == PT_GNU_EH_FRAME)
			object.header = (const struct header *)at;
		if (segment->p_type == PT_LOAD && segment->p_flags & PF_X) {
			object.start = at;
			object.end = at + segment->p_memsz;
		}
	}
	if (object.header == NULL || object.header->version != 1 || object.header->count_encoding != 0x03 ||
	    object.header->table_encoding != 0x3b)
		return 0;
	if (n_objects < OBJECTS)
		objects[n_objects++] = object;
	return 0;
}

__attribute__((constructor)) static void find_objects(void)
{
	dl_iterate_phdr(add_object, NULL);
}

/* An FDE, and the function that it is about. */
struct found {
	const uint8_t *fde;
	uintptr_t start;
};

static uint32_t u32(const uint8_t *at)
{
	uint32_t value;
	memcpy(&value, at, sizeof value);
	return value;
}

/* Where the code of an FDE starts: relative to the field, as gcc has it. */
static uintptr_t code_start(const uint8_t *fde)
{
	return (uintptr_t)(fde + 8) + (int32_t)u32(fde + 8);
}

static bool find(uintptr_t pc, struct found *found)
{
	for (int i = 0; i < n_objects; i++) {
		const struct header *header = objects[i].header;
		if (pc < objects[i].start || pc >= objects[i].end || header->count == 0)
			continue;
		uintptr_t base = (uintptr_t)header;
		uint32_t low = 0, high = header->count;
		while (high - low > 1) {
			uint32_t middle = low + (high - low) / 2;
			if (base + header->table[middle].start <= pc)
				low = middle;
			else
				high = middle;
		}
		found->start = base + header->table[low].start;
		found->fde = (const uint8_t *)(base + header->table[low].fde);
		return code_start(found->fde) == found->start && pc >= found->start &&
		       pc - found->start < u32(found->fde + 12);
	}
	return false;
}

uintptr_t tables_function(uintptr_t pc)
{
	struct found found;
	return find(pc, &found) ? found.start : 0;
}

static uint64_t uleb(const uint8_t **at)
{
	uint64_t value = 0;
	unsigned shift = 0;
	uint8_t byte;

	do {
		byte = *(*at)++;
		value |= (uint64_t)(byte & 0x7f) << (shift & 63);
		shift += 7;
	} while (byte & 0x80);
	return value;
}

static int64_t sleb(const uint8_t **at)
{
	const uint8_t *start = *at;
	uint64_t value = uleb(at);
	unsigned bits = 7 * (unsigned)(*at - start);

	if (bits < 64 && (*at)[-1] & 0x40)
		value |= ~0ULL << bits;
	return (int64_t)value;
}

/* How to find the caller's registers. */
struct rules {
	uint64_t cfa_register;
	int64_t cfa_offset;
	int64_t fp_offset; /* from the CFA; 0: the caller's is in the register still */
};

/* The expression of the linker for PLTs: rsp + 8 + ((rip & 15) >= 11) * 8. */
static const uint8_t plt_expression[] = {0x0b, 0x77, 0x08, 0x80, 0x00, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22};

/* Runs call frame instructions (DWARF 5, 6.4.2) for the code at `location` until they are about code behind `pc`. */
static bool run(struct rules *rules, const struct rules *initial, const uint8_t *at, const uint8_t *end,
		uintptr_t location, uintptr_t pc, int64_t data_align)
{
	struct rules remembered[REMEMBERED];
	unsigned n_remembered = 0;

	while (at < end && location <= pc) {
		uint8_t op = *at++, low = op & 0x3f;
		uint64_t reg;
		switch (op & 0xc0) {
		case 0x40: /* advance_loc; code is aligned to 1 */
			location += low;
			continue;
		case 0x80: { /* offset */
			int64_t offset = (int64_t)uleb(&at) * data_align;
			if (low == RBP)
				rules->fp_offset = offset;
			continue;
		}
		case 0xc0: /* restore */
			if (low == RBP)
				rules->fp_offset = initial->fp_offset;
			continue;
		}
		switch (low) {
		case 0x00: /* nop */
			break;
		case 0x02: /* advance_loc1 */
			location += *at++;
			break;
		case 0x03: /* advance_loc2 */
			location += (uintptr_t)at[0] | (uintptr_t)at[1] << 8;
			at += 2;
			break;
		case 0x04: /* advance_loc4 */
			location += u32(at);
			at += 4;
			break;
		case 0x0a: /* remember_state */
			if (n_remembered == REMEMBERED)
				return false;
			remembered[n_remembered++] = *rules;
			break;
		case 0x0b: /* restore_state */
			if (n_remembered == 0)
				return false;
			*rules = remembered[--n_remembered];
			break;
		case 0x0c: /* def_cfa */
			rules->cfa_register = uleb(&at);
			rules->cfa_offset = (int64_t)uleb(&at);
			break;
		case 0x0d: /* def_cfa_register */
			rules->cfa_register = uleb(&at);
			break;
		case 0x0e: /* def_cfa_offset */
			rules->cfa_offset = (int64_t)uleb(&at);
			break;
		case 0x0f: /* def_cfa_expression */
			if (memcmp(at, plt_expression, sizeof plt_expression) != 0)
				return false;
			rules->cfa_register = PLT;
			at += sizeof plt_expression;
			break;
		case 0x10: /* expression, of a register that is not needed here */
			reg = uleb(&at);
			if (reg == RBP)
				return false;
			reg = uleb(&at);
			at += reg;
			break;
		case 0x11: /* offset_extended_sf */
			reg = uleb(&at);
			if (reg == RBP)
				rules->fp_offset = sleb(&at) * data_align;
			else
				sleb(&at);
			break;
		case 0x2e: /* GNU_args_size */
			uleb(&at);
			break;
		default:
			return false;
		}
	}
	return true;
}

/* The rules at `pc`, which is in the code that `found` is about. */
static bool rules_at(const struct found *found, uintptr_t pc, struct rules *rules)
{
	const uint8_t *fde = found->fde;
	const uint8_t *cie = fde + 4 - u32(fde + 4);
	const char *augmentation = (const char *)cie + 9;
	const uint8_t *at = cie + 9 + strlen(augmentation) + 1;
	const struct rules none = {0};

	if (augmentation[0] != 'z')
		return false;
	uint64_t code_align = uleb(&at);
	int64_t data_align = sleb(&at);
	if (uleb(&at) != 16 || code_align != 1)
		return false;
	uint64_t length = uleb(&at);
	at += length;
	*rules = none;
	if (!run(rules, &none, at, cie + 4 + u32(cie), 0, 0, data_align))
		return false;
	const struct rules initial = *rules;
	at = fde + 16;
	length = uleb(&at);
	at += length;
	return run(rules, &initial, at, fde + 4 + u32(fde), found->start, pc, data_align);
}

bool tables_step(struct cursor *cursor, bool is_call, uintptr_t stack_end)
{
	uintptr_t pc = cursor->pc - is_call;
	struct found found;
	struct rules rules;
	uintptr_t cfa;

	if (!find(pc, &found) || !rules_at(&found, pc, &rules))
		return false;
	switch (rules.cfa_register) {
	case RSP:
		cfa = cursor->sp + rules.cfa_offset;
		break;
	case RBP:
		cfa = cursor->fp + rules.cfa_offset;
		break;
	case PLT:
		cfa = cursor->sp + 8 + ((pc & 15) >= 11) * 8;
		break;
	default:
		return false;
	}
	if (cfa < cursor->sp + 8 || cfa > stack_end || cfa % 8 != 0)
		return false;
	if (rules.fp_offset != 0) {
		uintptr_t at = cfa + rules.fp_offset;
		if (at > cfa - 8)
			return false;
		/* Below, the epilogue has taken it back already. */
		if (at >= cursor->sp)
			cursor->fp = *(const uintptr_t *)at;
	}
	cursor->pc = *(const uintptr_t *)(cfa - 8);
	cursor->sp = cfa;
	return true;
}
