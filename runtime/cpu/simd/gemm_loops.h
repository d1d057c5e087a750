// gemm_loops.h - the product of gemm.h on one thread, for REAL, VEC (a vector of it) and LANES.
//
// b is packed, PANEL columns and DEPTH rows at a time, into a buffer that stays in the nearest
// cache; then every ROWS rows of a run over it with all sums in registers. a is read where it lies,
// one number at a time, so its strides do not matter.

// Sums of rows x nv vectors; rows and nv are constants wherever this is inlined.
static inline __attribute__((always_inline)) void NAMED(tile)(const dlua_gemm *g, const REAL *a,
                                                              const REAL *b, int64_t depth,
                                                              int rows, int nv, REAL *c, int64_t ci,
                                                              bool add) {
  VEC sum[TALLEST][2];
  for (int i = 0; i < rows; i++)
    for (int v = 0; v < nv; v++)
      sum[i][v] = add ? *(const VEC *)(c + i * ci + v * LANES) : (VEC){0};
  for (int64_t p = 0; p < depth; p++, a += g->ak, b += nv * LANES) {
    VEC right[2];
    for (int v = 0; v < nv; v++) right[v] = *(const VEC *)(b + v * LANES);
    for (int i = 0; i < rows; i++) {
      VEC left = a[i * g->ai] - (VEC){0};
      for (int v = 0; v < nv; v++) sum[i][v] += left * right[v];
    }
  }
  for (int i = 0; i < rows; i++)
    for (int v = 0; v < nv; v++) *(VEC *)(c + i * ci + v * LANES) = sum[i][v];
}

static inline __attribute__((always_inline)) void NAMED(rows)(const dlua_gemm *g, const REAL *a,
                                                              const REAL *b, int64_t depth,
                                                              int64_t rows, int nv, REAL *c,
                                                              int64_t ci, bool add) {
  switch (rows) {
  case 8: NAMED(tile)(g, a, b, depth, 8, nv, c, ci, add); break;
  case 7: NAMED(tile)(g, a, b, depth, 7, nv, c, ci, add); break;
  case 6: NAMED(tile)(g, a, b, depth, 6, nv, c, ci, add); break;
  case 5: NAMED(tile)(g, a, b, depth, 5, nv, c, ci, add); break;
  case 4: NAMED(tile)(g, a, b, depth, 4, nv, c, ci, add); break;
  case 3: NAMED(tile)(g, a, b, depth, 3, nv, c, ci, add); break;
  case 2: NAMED(tile)(g, a, b, depth, 2, nv, c, ci, add); break;
  default: NAMED(tile)(g, a, b, depth, 1, nv, c, ci, add); break;
  }
}

// depth x columns of b into rows of width, the rest zero.
static void NAMED(pack)(REAL *packed, const dlua_gemm *g, const REAL *b, int64_t depth,
                        int64_t columns, int64_t width) {
  if (columns < width) memset(packed, 0, (size_t)(depth * width) * sizeof *packed);
  if (g->bj == 1) {
    for (int64_t p = 0; p < depth; p++)
      memcpy(packed + p * width, b + p * g->bk, (size_t)columns * sizeof *b);
    return;
  }
  for (int64_t j = 0; j < columns; j++)
    for (int64_t p = 0; p < depth; p++) packed[p * width + j] = b[p * g->bk + j * g->bj];
}

// A tile of fewer columns than the vectors hold goes through a buffer.
static void NAMED(edge)(const dlua_gemm *g, const REAL *a, const REAL *b, int64_t depth,
                        int64_t rows, int64_t columns, int64_t width, REAL *c, bool add) {
  REAL buffer[TALLEST * 2 * LANES] = {0};
  for (int64_t i = 0; add && i < rows; i++)
    memcpy(buffer + i * width, c + i * g->ci, (size_t)columns * sizeof *c);
  if (width > LANES)
    NAMED(rows)(g, a, b, depth, rows, 2, buffer, width, add);
  else
    NAMED(rows)(g, a, b, depth, rows, 1, buffer, width, add);
  for (int64_t i = 0; i < rows; i++)
    memcpy(c + i * g->ci, buffer + i * width, (size_t)columns * sizeof *c);
}

// All rows of a against one packed panel.
static void NAMED(panel)(const dlua_gemm *g, const REAL *a, const REAL *b, int64_t depth,
                         int64_t columns, int64_t width, REAL *c, bool add) {
  for (int64_t i = 0; i < g->m; i += ROWS) {
    int64_t rows = g->m - i < ROWS ? g->m - i : ROWS;
    const REAL *left = a + i * g->ai;
    REAL *to = c + i * g->ci;
    if (columns < width)
      NAMED(edge)(g, left, b, depth, rows, columns, width, to, add);
    else if (width > LANES)
      NAMED(rows)(g, left, b, depth, rows, 2, to, g->ci, add);
    else
      NAMED(rows)(g, left, b, depth, rows, 1, to, g->ci, add);
  }
}

static void NAMED(product)(const dlua_gemm *g) {
  _Alignas(64) REAL packed[DEPTH * 2 * LANES];
  const REAL *a = g->a, *b = g->b, *bias = g->bias;
  REAL *c = g->c;
  bool begun = g->add;
  if (!begun && (bias || g->k == 0)) {
    for (int64_t i = 0; i < g->m; i++)
      for (int64_t j = 0; j < g->n; j++) c[i * g->ci + j] = bias ? bias[j] : 0;
    begun = true;
  }
  for (int64_t p = 0; p < g->k; p += DEPTH) {
    int64_t depth = g->k - p < DEPTH ? g->k - p : DEPTH;
    for (int64_t j = 0; j < g->n; j += 2 * LANES) {
      int64_t columns = g->n - j < 2 * LANES ? g->n - j : 2 * LANES;
      int64_t width = columns > LANES ? 2 * LANES : LANES;
      NAMED(pack)(packed, g, b + p * g->bk + j * g->bj, depth, columns, width);
      NAMED(panel)(g, a + p * g->ak, packed, depth, columns, width, c + j, begun || p > 0);
    }
  }
}
