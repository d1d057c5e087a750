// words.c - edit distance (Levenshtein, with transpositions of neighbours), for "did you mean".
#include "words.h"

#include <string.h>

enum { LONGEST = 40 };

static int smaller(int a, int b) { return a < b ? a : b; }

static int distance(const char *a, const char *b) {
  int na = (int)strlen(a), nb = (int)strlen(b);
  if (na > LONGEST || nb > LONGEST) return LONGEST;
  int row[3][LONGEST + 1];
  for (int j = 0; j <= nb; j++) row[0][j] = j;
  for (int i = 1; i <= na; i++) {
    int *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
    now[0] = i;
    for (int j = 1; j <= nb; j++) {
      now[j] = smaller(smaller(last[j], now[j - 1]) + 1, last[j - 1] + (a[i - 1] != b[j - 1]));
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        now[j] = smaller(now[j], before[j - 2] + 1);
      }
    }
  }
  return row[na % 3][nb];
}

const char *dlua_nearest(const char *word, int n, const char *const *words) {
  const char *best = NULL;
  int least = 2 + (int)strlen(word) / 4; // farther than this is no typing mistake
  for (int k = 0; k < n; k++) {
    int far = distance(word, words[k]);
    if (far < least) least = far, best = words[k];
  }
  return best;
}
