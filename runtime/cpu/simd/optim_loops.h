// optim_loops.h - loops over one slice of a parameter. REAL is the element type; included by
// optim.c. No include guard: it is meant to be read twice.

// Stochastic gradient descent with momentum (Sutskever et al. 2013, as PyTorch writes it).
static void NAMED(sgd)(int64_t n, void *vp, const void *vg, void *va, void *vb, void *vc,
                       const dlua_factors *f) {
  REAL *restrict p = vp, *restrict a = va;
  const REAL *restrict g = vg;
  const REAL sign = (REAL)f->sign, decay = (REAL)f->decay, lr = (REAL)f->lr;
  const REAL keep = (REAL)f->keep, add = (REAL)f->add, ahead = (REAL)f->momentum;
  (void)vb, (void)vc;
  if (!f->velocity) {
    for (int64_t i = 0; i < n; i++) p[i] -= lr * (sign * g[i] + decay * p[i]);
  } else if (f->nesterov) {
    for (int64_t i = 0; i < n; i++) {
      REAL d = sign * g[i] + decay * p[i];
      a[i] = keep * a[i] + add * d;
      p[i] -= lr * (d + ahead * a[i]);
    }
  } else {
    for (int64_t i = 0; i < n; i++) {
      REAL d = sign * g[i] + decay * p[i];
      a[i] = keep * a[i] + add * d;
      p[i] -= lr * a[i];
    }
  }
}

// Adam (Kingma and Ba 2015), AdamW (Loshchilov and Hutter 2019), AMSGrad (Reddi et al. 2018).
static void NAMED(adam)(int64_t n, void *vp, const void *vg, void *va, void *vb, void *vc,
                        const dlua_factors *f) {
  REAL *restrict p = vp, *restrict a = va, *restrict b = vb, *restrict c = vc;
  const REAL *restrict g = vg;
  const REAL sign = (REAL)f->sign, shrink = (REAL)f->shrink, decay = (REAL)f->decay;
  const REAL lr = (REAL)f->lr, add = (REAL)f->add, keep2 = (REAL)f->keep2, add2 = (REAL)f->add2;
  const REAL root = (REAL)f->root, eps = (REAL)f->eps;
  if (f->amsgrad) {
    for (int64_t i = 0; i < n; i++) {
      REAL w = shrink * p[i], d = sign * g[i] + decay * w;
      a[i] += add * (d - a[i]);
      b[i] = keep2 * b[i] + add2 * d * d;
      c[i] = c[i] > b[i] ? c[i] : b[i];
      p[i] = w - lr * a[i] / (SQRT(c[i]) * root + eps);
    }
  } else {
    for (int64_t i = 0; i < n; i++) {
      REAL w = shrink * p[i], d = sign * g[i] + decay * w;
      a[i] += add * (d - a[i]);
      b[i] = keep2 * b[i] + add2 * d * d;
      p[i] = w - lr * a[i] / (SQRT(b[i]) * root + eps);
    }
  }
}

// RMSprop (Hinton, lecture 6e of "Neural networks for machine learning"; centred: Graves 2013).
static void NAMED(rmsprop)(int64_t n, void *vp, const void *vg, void *va, void *vb, void *vc,
                           const dlua_factors *f) {
  REAL *restrict p = vp, *restrict a = va, *restrict b = vb, *restrict c = vc;
  const REAL *restrict g = vg;
  const REAL sign = (REAL)f->sign, decay = (REAL)f->decay, lr = (REAL)f->lr, eps = (REAL)f->eps;
  const REAL keep = (REAL)f->keep, add = (REAL)f->add, momentum = (REAL)f->momentum;
  const bool centered = f->centered, velocity = f->velocity;
  for (int64_t i = 0; i < n; i++) {
    REAL d = sign * g[i] + decay * p[i];
    REAL variance = a[i] = keep * a[i] + add * d * d;
    if (centered) {
      b[i] += add * (d - b[i]);
      variance -= b[i] * b[i];
    }
    REAL direction = d / (SQRT(variance) + eps);
    if (velocity) direction = c[i] = momentum * c[i] + direction;
    p[i] -= lr * direction;
  }
}

// Adagrad (Duchi et al. 2011).
static void NAMED(adagrad)(int64_t n, void *vp, const void *vg, void *va, void *vb, void *vc,
                           const dlua_factors *f) {
  REAL *restrict p = vp, *restrict a = va;
  const REAL *restrict g = vg;
  const REAL sign = (REAL)f->sign, decay = (REAL)f->decay, lr = (REAL)f->lr, eps = (REAL)f->eps;
  (void)vb, (void)vc;
  for (int64_t i = 0; i < n; i++) {
    REAL d = sign * g[i] + decay * p[i];
    a[i] += d * d;
    p[i] -= lr * d / (SQRT(a[i]) + eps);
  }
}

#define LANES 16

static double NAMED(sum_squares)(int64_t n, const void *vx) {
  const REAL *x = vx;
  double lane[LANES] = {0}, sum = 0;
  int64_t i = 0;
  for (; i + LANES <= n; i += LANES)
    for (int k = 0; k < LANES; k++) lane[k] += (double)x[i + k] * (double)x[i + k];
  for (; i < n; i++) sum += (double)x[i] * (double)x[i];
  for (int k = 0; k < LANES; k++) sum += lane[k];
  return sum;
}

// Magnitudes compare like their bits without the sign, with NaN above infinity; integers have a
// vector maximum that no NaN slips through.
static double NAMED(largest)(int64_t n, const void *vx) {
  const REAL *x = vx;
  BITS top = 0;
  for (int64_t i = 0; i < n; i++) {
    BITS bits;
    memcpy(&bits, &x[i], sizeof bits);
    bits &= (BITS)-1 >> 1;
    top = bits > top ? bits : top;
  }
  REAL value;
  memcpy(&value, &top, sizeof value);
  return top > INFINITE_BITS ? (double)NAN : (double)value;
}

// x * 0 is 0, or NaN where x is not finite, and a sum keeps a NaN: one operation per vector, in as
// many independent sums as keep both units busy, so that memory sets the pace. The last vector may
// overlap the one before it.
static bool NAMED(finite)(int64_t n, const void *vx) {
  typedef REAL vec __attribute__((vector_size(64), aligned(sizeof(REAL)), may_alias));
  enum { WIDTH = 64 / sizeof(REAL) };
  const REAL *x = vx;
  vec a = {0}, b = a, c = a, d = a, e = a, f = a, g = a, h = a;
  REAL sum = 0;
  int64_t i = 0;
  for (; i + 8 * WIDTH <= n; i += 8 * WIDTH) {
    const vec *v = (const vec *)(x + i);
    a += v[0] * 0, b += v[1] * 0, c += v[2] * 0, d += v[3] * 0;
    e += v[4] * 0, f += v[5] * 0, g += v[6] * 0, h += v[7] * 0;
  }
  for (; i + WIDTH <= n; i += WIDTH) a += *(const vec *)(x + i) * 0;
  if (n >= WIDTH)
    b += *(const vec *)(x + n - WIDTH) * 0;
  else
    for (; i < n; i++) sum += x[i] * 0;
  a += b + c + d + (e + f + g + h);
  __typeof__(a != a) nan = a != a;
  uint64_t words[8], any = sum != 0;
  memcpy(words, &nan, sizeof words);
  for (int k = 0; k < 8; k++) any |= words[k];
  return !any;
}

// Steps block by block until one whose gradient is not finite; returns how many elements were
// stepped. A block of gradients stays in the first-level cache between the look at it and the step.
static inline __attribute__((always_inline)) int64_t
NAMED(guarded)(dlua_step_kernel *step, int64_t n, void *p, const void *g, void *a, void *b, void *c,
               const dlua_factors *f) {
  enum { BLOCK = 1024 };
  for (int64_t i = 0, m; i < n; i += m) {
    m = n - i < BLOCK ? n - i : BLOCK;
    const REAL *block = (const REAL *)g + i;
    if (!NAMED(finite)(m, block)) return i;
    step(m, (REAL *)p + i, block, a ? (REAL *)a + i : NULL, b ? (REAL *)b + i : NULL,
         c ? (REAL *)c + i : NULL, f);
  }
  return n;
}

static int64_t NAMED(guarded_sgd)(int64_t n, void *p, const void *g, void *a, void *b, void *c,
                                  const dlua_factors *f) {
  return NAMED(guarded)(NAMED(sgd), n, p, g, a, b, c, f);
}
static int64_t NAMED(guarded_adam)(int64_t n, void *p, const void *g, void *a, void *b, void *c,
                                   const dlua_factors *f) {
  return NAMED(guarded)(NAMED(adam), n, p, g, a, b, c, f);
}
static int64_t NAMED(guarded_rmsprop)(int64_t n, void *p, const void *g, void *a, void *b, void *c,
                                      const dlua_factors *f) {
  return NAMED(guarded)(NAMED(rmsprop), n, p, g, a, b, c, f);
}
static int64_t NAMED(guarded_adagrad)(int64_t n, void *p, const void *g, void *a, void *b, void *c,
                                      const dlua_factors *f) {
  return NAMED(guarded)(NAMED(adagrad), n, p, g, a, b, c, f);
}

static void NAMED(scale)(int64_t n, void *vx, double factor) {
  REAL *x = vx;
  const REAL by = (REAL)factor;
  for (int64_t i = 0; i < n; i++) x[i] *= by;
}

#undef LANES
