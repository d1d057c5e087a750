// words.h - spelling help for messages.
#ifndef DLUA_WORDS_H
#define DLUA_WORDS_H

// The entry of words[0..n) nearest to word by edit distance, or NULL when none is near. Borrowed.
const char *dlua_nearest(const char *word, int n, const char *const *words);

#endif
