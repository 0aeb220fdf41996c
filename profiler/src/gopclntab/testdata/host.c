// Loads the library named by its argument and lets it answer.
#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv) {
	void *library = dlopen(argv[argc - 1], RTLD_NOW);
	void (*answer)(void) = library ? (void (*)(void))dlsym(library, "answer_in_library") : 0;
	if (!answer) {
		fprintf(stderr, "%s\n", dlerror());
		return 1;
	}
	answer();
	return 0;
}
