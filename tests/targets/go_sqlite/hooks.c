#include "hooks.h"

#include <string.h>

const struct hooks *hooks_named(const char *name)
{
	static const struct {
		const char *name;
		const struct hooks *hooks;
	} all[] = {{"leaf", &leaf_hooks}, {"cursor", &cursor_hooks}, {"eager", &eager_hooks}};

	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		if (strcmp(name, all[i].name) == 0)
			return all[i].hooks;
	return NULL;
}
