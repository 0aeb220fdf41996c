#include "callbacks.h"

#include <ctype.h>

int normalize(const char *text, int length, char *out)
{
	int n = 0;
	int gap = 0;

	for (int i = 0; i < length; i++) {
		unsigned char c = text[i];
		if (!isalnum(c)) {
			gap = n > 0;
			continue;
		}
		if (gap)
			out[n++] = ' ';
		gap = 0;
		out[n++] = tolower(c);
	}
	return n;
}
