/* Names from the symbol tables of the program and of its libraries. As symbolizers do, it opens files, allocates, and
 * takes a lock. */
#define _GNU_SOURCE
#include "hooks.h"
#include "tables.h"

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct function {
	uintptr_t start, end;
	const char *name;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct function *functions; /* of the program, by address */
static size_t n_functions;

static int by_start(const void *a, const void *b)
{
	uintptr_t left = ((const struct function *)a)->start, right = ((const struct function *)b)->start;
	return (left > right) - (left < right);
}

/* Takes the functions from the symbol table of a file that is in memory, and stays there. */
static void read_symbols(const uint8_t *file, uintptr_t bias)
{
	const Elf64_Ehdr *header = (const Elf64_Ehdr *)file;
	const Elf64_Shdr *sections = (const Elf64_Shdr *)(file + header->e_shoff);

	for (int i = 0; i < header->e_shnum; i++) {
		if (sections[i].sh_type != SHT_SYMTAB)
			continue;
		const Elf64_Sym *symbols = (const Elf64_Sym *)(file + sections[i].sh_offset);
		const char *names = (const char *)file + sections[sections[i].sh_link].sh_offset;
		size_t n = sections[i].sh_size / sizeof *symbols;
		functions = malloc(n * sizeof *functions);
		for (size_t j = 0; functions != NULL && j < n; j++) {
			if (ELF64_ST_TYPE(symbols[j].st_info) != STT_FUNC || symbols[j].st_size == 0)
				continue;
			uintptr_t start = bias + symbols[j].st_value;
			functions[n_functions++] =
				(struct function){start, start + symbols[j].st_size, names + symbols[j].st_name};
		}
		qsort(functions, n_functions, sizeof *functions, by_start);
		return;
	}
}

static void read_program(void)
{
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	struct stat status;

	if (fd < 0)
		return;
	if (fstat(fd, &status) == 0) {
		void *file = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
		struct link_map *program = dlopen(NULL, RTLD_LAZY);
		if (file != MAP_FAILED && program != NULL)
			read_symbols(file, program->l_addr);
	}
	close(fd);
}

static const char *function_of_program(uintptr_t pc)
{
	pthread_mutex_lock(&lock);
	if (functions == NULL)
		read_program();
	size_t low = 0, high = n_functions;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		if (functions[middle].start <= pc)
			low = middle + 1;
		else
			high = middle;
	}
	const char *name = low > 0 && pc < functions[low - 1].end ? functions[low - 1].name : NULL;
	pthread_mutex_unlock(&lock);
	return name;
}

/* A function without a name is called after its object and where it starts there. */
static char *nameless(const Dl_info *object, uintptr_t pc)
{
	const char *slash = strrchr(object->dli_fname, '/');
	uintptr_t start = tables_function(pc);
	char *name = NULL;

	if (asprintf(&name, "%s+0x%lx", slash ? slash + 1 : object->dli_fname,
		     (unsigned long)((start ? start : pc) - (uintptr_t)object->dli_fbase)) < 0)
		return NULL;
	return name;
}

void symbolize(struct symbolizer_arg *arg)
{
	Dl_info object;

	if (arg->pc == 0) {
		free((void *)arg->data);
		arg->data = 0;
		return;
	}
	if (arg->more != 0) {
		/* The function that the other one is inlined into. */
		arg->func = (const char *)arg->data;
		arg->more = 0;
		return;
	}
	if (dladdr((void *)arg->pc, &object) == 0)
		return;
	const char *name = function_of_program(arg->pc);
	if (name == NULL)
		name = object.dli_sname;
	char *copy = name ? strdup(name) : nameless(&object, arg->pc);
	if (copy == NULL)
		return;
	arg->data = (uintptr_t)copy;
	arg->file = object.dli_fname;
	arg->func = copy;
	/* fold is one function, and inside of it all is said to be another. */
	if (strcmp(copy, "fold") == 0) {
		arg->func = "fold_letter";
		arg->more = 1;
	}
}
