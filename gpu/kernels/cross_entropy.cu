// cross_entropy.cu - cross_entropy, nll_loss and their gradients. As in runtime/ops/loss_class.h
// every class c of a position counts q_c: the loss is sum_c q_c (lse - x_c), its gradient by x
// softmax(x) sum(q) - q. One kernel per call reads x once where a row fits into registers; losses
// are added per block and the blocks in order by a second one.
#include "../../runtime/ops/loss.h"
#include "rows.h"

namespace {

// ---------------------------------------------------------------- what the classes count

// One call: x lies as outer, k, inner; a position is one of outer x inner.
struct Classes {
  const char *target, *weight; // weight NULL: 1 for each class
  int64_t k, inner, positions, ignore, target_size, weight_size;
  double smoothing;
  uint8_t target_dtype, weight_dtype;
  bool probabilities;
  dlua_index_check check;

  // The label at a position from 0; -1 where it is to be ignored, or is none: then the host hears.
  __device__ int64_t label_at(int64_t position) const {
    int64_t label = load_as<int64_t>(target + position * target_size, target_dtype);
    if (label == ignore) return -1;
    if (label >= 1 && label <= k) return label - 1;
    note_fault(check, DLUA_FAULT_LABEL, label, position, k);
    return -1;
  }
  template <class C> __device__ C weight_at(int64_t c) const {
    return weight ? load_as<C>(weight + c * weight_size, weight_dtype) : C(1);
  }
  // q of class c at a position whose label this is; at: the element's offset.
  template <class C> __device__ C quota(int64_t label, int64_t c, int64_t at) const {
    C even = C(smoothing / double(k)), sure = C(1 - smoothing);
    if (probabilities)
      return weight_at<C>(c) * (sure * load_as<C>(target + at * target_size, target_dtype) + even);
    if (label < 0 || (c != label && smoothing == 0)) return C(0);
    return weight_at<C>(c) * (c == label ? sure + even : even);
  }
  __host__ __device__ bool plain() const { return !probabilities && smoothing == 0; }
};

dlua_status classes_of(const dlua_args *a, const dlua_tensor *x, const dlua_tensor *target,
                       const dlua_tensor *weight, int64_t ignore, double smoothing, Classes *w) {
  int dim = x->ndim > 1;
  *w = {};
  w->target = data<char>(target), w->weight = data<char>(weight);
  w->k = x->size[dim], w->inner = 1, w->ignore = ignore, w->smoothing = smoothing;
  for (int d = dim + 1; d < x->ndim; d++) w->inner *= x->size[d];
  w->positions = (dim ? x->size[0] : 1) * w->inner;
  w->target_dtype = target->dtype, w->probabilities = dlua_is_float((dlua_dtype)target->dtype);
  w->target_size = (int64_t)dlua_dtype_size((dlua_dtype)target->dtype);
  if (weight) w->weight_dtype = weight->dtype;
  if (weight) w->weight_size = (int64_t)dlua_dtype_size((dlua_dtype)weight->dtype);
  return w->probabilities ? DLUA_OK : dlua_gpu_index_check(a, &w->check);
}

// ---------------------------------------------------------------- sums over positions

// A position's loss and what the mean counts it as; their sums in one block.
struct Total {
  struct State {
    double loss, norm;
  };
  __device__ State first() const { return {0, 0}; }
  __device__ void join(State *s, const State &other) const {
    s->loss += other.loss, s->norm += other.norm;
  }
};

// Adds the blocks' totals, in one block and one order.
__global__ void finish_total(const Total::State *totals, int blocks, bool mean, Result y) {
  Total f;
  Total::State s = f.first();
  for (int k = (int)threadIdx.x; k < blocks; k += THREADS) f.join(&s, totals[k]);
  s = join_lanes(f, s, THREADS);
  if (threadIdx.x == 0) y.put(0, mean ? s.loss / s.norm : s.loss);
}

// Where a kernel puts losses: each, or the total of its block.
struct Losses {
  Result each; // y NULL: not wanted
  Total::State *totals;
  __device__ void put(int64_t position, double loss, double norm, Total::State *total) const {
    if (each.y)
      each.put(position, loss);
    else
      total->loss += loss, total->norm += norm;
  }
  __device__ void close(const Total::State &mine) const {
    if (each.y) return;
    Total::State all = join_lanes(Total(), mine, THREADS);
    if (threadIdx.x == 0) totals[blockIdx.x] = all;
  }
};

// Launches with room for the totals of so many blocks, and adds them up.
template <class Go>
dlua_status with_losses(const dlua_args *a, int reduction, unsigned blocks, Go go) {
  Losses losses = {};
  if (reduction == DLUA_NONE) {
    losses.each = result_of(a->out[0]);
    return go(losses);
  }
  void *totals = nullptr;
  size_t bytes = (blocks + 1) * sizeof(Total::State);
  DLUA_TRY(dlua_alloc(a->device, bytes, &totals));
  losses.totals = (Total::State *)totals;
  dlua_status status = go(losses);
  if (status == DLUA_OK)
    status = launch(a, finish_total, 1, THREADS, (const Total::State *)totals, (int)blocks,
                    reduction == DLUA_MEAN, result_of(a->out[0]));
  dlua_free(a->device, totals, bytes);
  return status;
}

// ---------------------------------------------------------------- cross_entropy

// The sum of exponentials of a row, and of what its classes count.
template <class C> struct Quotas : Exponents<C> {
  struct State {
    double sum, quotas;
    C top;
  };
  using Exponent = typename Exponents<C>::State;
  __device__ State first() const { return {0, 0, C(-INFINITY)}; }
  template <int W> __device__ void add_both(State *s, const C (&x)[W], const C (&q)[W]) const {
    Exponent e = {s->sum, s->top};
    this->add_some(&e, x);
    s->sum = e.sum, s->top = e.top;
    for (int i = 0; i < W; i++) s->quotas += q[i];
  }
  __device__ void join(State *s, const State &other) const {
    Exponent e = {s->sum, s->top};
    Exponents<C>::join(&e, {other.sum, other.top});
    s->sum = e.sum, s->top = e.top, s->quotas += other.quotas;
  }
  __device__ static double sum_of(const State &s) { return Exponents<C>::sum_of({s.sum, s.top}); }
};

template <class T, int WIDTH> struct Entropy : Quotas<compute_t<T>> {
  static constexpr int W = WIDTH;
  using C = compute_t<T>;
  using State = typename Quotas<C>::State;
  struct Row {
    int64_t label; // only of labels
    C scale;       // only of gradients
  };
  struct Item {
    C x[W], q[W];
  };
  const T *x;
  Classes w;

  __device__ Row open(int64_t position) const {
    return {w.probabilities ? 0 : w.label_at(position), C(0)};
  }
  __device__ Item load(const Row &row, int64_t c, int64_t at) const {
    Item item;
    load_some<W>(x + at, item.x);
    for (int i = 0; i < W; i++) item.q[i] = w.quota<C>(row.label, c + i, at + i);
    return item;
  }
  __device__ void add(State *s, const Item &item) const { this->add_both(s, item.x, item.q); }
};

// sum_c q_c (lse - x_c) of every row; classes that count 0 are left out, though x may be -inf there.
template <bool HOLDS, class Op> __global__ void entropy_rows(Rows g, Op op, Losses losses) {
  using C = typename Op::C;
  Total::State total = Total().first();
  for (int64_t unit = blockIdx.x; unit < g.units; unit += gridDim.x) {
    FoldedRow<HOLDS, Op> r(g, op, unit);
    const typename Op::State &s = r.state;
    int64_t label = r.row.label;
    double rest = log(op.sum_of(s)), loss = 0;
    if (op.w.plain()) { // one class
      if (r.mine && label >= 0)
        loss = s.quotas * (double(s.top - widen(op.x[r.start + label * g.inner])) + rest);
    } else {
      r.each(g, op, [&](int64_t, int64_t, const auto &item) {
        for (int i = 0; i < Op::W; i++)
          if (item.q[i] != C(0)) loss += double(item.q[i]) * (double(s.top - item.x[i]) + rest);
      });
      loss = join_row(g, Adds<double>(), loss);
    }
    if (!r.mine || lane_of(g) != 0) continue;
    double norm = op.w.probabilities ? 1 : label < 0 ? 0 : op.w.template weight_at<double>(label);
    losses.put(r.index, loss, norm, &total);
  }
  losses.close(total);
}

template <class Op> dlua_status run_entropy(const dlua_args *a, int reduction, const Op &op) {
  bool holds;
  Rows g = rows_of(op.w.positions, op.w.k, op.w.inner, Op::W, &holds);
  return with_losses(a, reduction, blocks_of(g), [&](const Losses &losses) {
    return launch(a, holds ? entropy_rows<true, Op> : entropy_rows<false, Op>, blocks_of(g),
                  THREADS, g, op, losses);
  });
}

// ---------------------------------------------------------------- gradients

// The scale of a position's gradient: g of it or of all, over what the mean is divided by.
struct Scale {
  const char *g; // NULL: factor
  double factor;
  int64_t size, stride;
  uint8_t dtype;
  const double *norm; // NULL: number
  double number;
  __device__ double at(int64_t position) const {
    double one = g ? load_as<double>(g + position * stride * size, dtype) : factor;
    return one / (norm ? *norm : number);
  }
};

// scale (softmax(x) sum(q) - q).
template <class T, int WIDTH> struct EntropyGrad : Entropy<T, WIDTH> {
  static constexpr int W = WIDTH;
  using Base = Entropy<T, WIDTH>;
  using C = typename Base::C;
  using Row = typename Base::Row;
  using Item = typename Base::Item;
  struct Done {
    C top, share; // share: of exp(x - top)
  };
  T *gx;
  Scale scale;

  __device__ Row open(int64_t position) const {
    Row row = Base::open(position);
    row.scale = row.label < 0 ? C(0) : C(scale.at(position));
    return row;
  }
  __device__ Done close(const Row &, const typename Base::State &s) const {
    if (s.quotas == 0) return {C(0), C(0)};
    return {s.top, C(s.quotas / this->sum_of(s))};
  }
  __device__ void put(const Row &row, int64_t, int64_t at, const Item &item,
                      const Done &done) const {
    C result[W];
    for (int i = 0; i < W; i++) {
      C share = done.share == C(0) ? C(0) : exp(item.x[i] - done.top) * done.share;
      result[i] = row.scale * (share - item.q[i]);
    }
    store_some<W>(gx + at, result);
  }
};

// The loader of what the mean counts each label as.
struct LabelWeights {
  using C = double;
  static constexpr int WIDTH = 1;
  Classes w;
  template <int W> __device__ void get(int64_t position, double (&v)[W]) const {
    int64_t label = w.label_at(position);
    v[0] = label < 0 ? 0 : w.weight_at<double>(label);
  }
};

// Runs go with the scale of a gradient, whose norm may have to be added up first.
template <class Go>
dlua_status with_scale(const dlua_args *a, const Classes &w, const dlua_tensor *g, int reduction,
                       Go go) {
  Scale scale = {};
  scale.factor = 1, scale.number = reduction == DLUA_MEAN ? (double)w.positions : 1;
  if (g && g->number) {
    scale.factor = load_as<double>(dlua_data(g), g->dtype);
  } else if (g) {
    scale.g = data<char>(g), scale.dtype = g->dtype, scale.stride = reduction == DLUA_NONE;
    scale.size = (int64_t)dlua_dtype_size((dlua_dtype)g->dtype);
  }
  if (w.probabilities || reduction != DLUA_MEAN) return go(scale);
  void *norm = nullptr;
  DLUA_TRY(dlua_alloc(a->device, sizeof(double), &norm));
  scale.norm = (const double *)norm;
  Sum<double> sum({(char *)norm, sizeof(double), DLUA_F64}, 1);
  dlua_status status = fold(a, one_row(w.positions), LabelWeights{w}, sum);
  if (status == DLUA_OK) status = go(scale);
  dlua_free(a->device, norm, sizeof(double));
  return status;
}

template <class T> __global__ void put_quotas(Classes w, Scale scale, T *q) {
  using C = compute_t<T>;
  for (int64_t at = first_index(); at < w.positions * w.k; at += all_threads()) {
    int64_t rest = at / w.inner, c = rest % w.k, position = rest / w.k * w.inner + at % w.inner;
    int64_t label = w.probabilities ? 0 : w.label_at(position);
    C count = label < 0 ? C(0) : w.quota<C>(label, c, at);
    q[at] = narrow<T>(count == C(0) ? C(0) : C(scale.at(position)) * count);
  }
}

// ---------------------------------------------------------------- nll_loss

template <class T> __global__ void nll_positions(Classes w, const T *x, Losses losses) {
  Total::State total = Total().first();
  for (int64_t p = first_index(); p < w.positions; p += all_threads()) {
    int64_t label = w.label_at(p), start = p / w.inner * w.inner * w.k + p % w.inner;
    double weight = label < 0 ? 0 : w.weight_at<double>(label);
    double loss = label < 0 ? 0 : -weight * double(widen(x[start + label * w.inner]));
    losses.put(p, loss, weight, &total);
  }
  losses.close(total);
}

// Runs go with a zero of x's type and the widest step its rows allow.
template <class Go>
dlua_status with_steps(const dlua_tensor *x, const dlua_tensor *gx, const Classes &w, Go go) {
  return with_float(x, [&](auto type) {
    using T = decltype(type);
    constexpr int WIDTH = Elements<T>::WIDTH;
    bool packs =
        WIDTH > 1 && packs_of_row<T>(x, w.k, w.inner) && (!gx || packs_of_row<T>(gx, w.k, w.inner));
    if (packs) return go(type, std::integral_constant<int, WIDTH>());
    return go(type, std::integral_constant<int, 1>());
  });
}

} // namespace

extern "C" dlua_status dlua_gpu_cross_entropy(const dlua_args *a) {
  Classes w;
  DLUA_TRY(classes_of(a, a->in[0], a->in[1], a->in[2], a->num[0].i, a->num[1].f, &w));
  return with_steps(a->in[0], nullptr, w, [&](auto type, auto width) {
    Entropy<decltype(type), decltype(width)::value> op;
    op.x = data<decltype(type)>(a->in[0]), op.w = w;
    return run_entropy(a, (int)a->num[2].i, op);
  });
}

extern "C" dlua_status dlua_gpu_cross_entropy_grad(const dlua_args *a) {
  Classes w;
  DLUA_TRY(classes_of(a, a->in[1], a->in[2], a->in[3], a->num[0].i, a->num[1].f, &w));
  return with_scale(a, w, a->in[0], (int)a->num[2].i, [&](const Scale &scale) {
    return with_steps(a->in[1], a->out[0], w, [&](auto type, auto width) {
      EntropyGrad<decltype(type), decltype(width)::value> op;
      op.x = data<decltype(type)>(a->in[1]), op.gx = data<decltype(type)>(a->out[0]);
      op.w = w, op.scale = scale;
      return run_map(a, w.positions, w.k, w.inner, op);
    });
  });
}

extern "C" dlua_status dlua_gpu_cross_entropy_weights(const dlua_args *a) {
  Classes w;
  DLUA_TRY(classes_of(a, a->in[0], a->in[1], a->in[2], a->num[0].i, a->num[1].f, &w));
  return with_scale(a, w, nullptr, (int)a->num[2].i, [&](const Scale &scale) {
    return with_float(a->out[0], [&](auto type) {
      using T = decltype(type);
      return launch(a, put_quotas<T>, blocks_for(w.positions * w.k), THREADS, w, scale,
                    data<T>(a->out[0]));
    });
  });
}

extern "C" dlua_status dlua_gpu_nll_loss(const dlua_args *a) {
  Classes w;
  DLUA_TRY(classes_of(a, a->in[0], a->in[1], a->in[2], a->num[0].i, 0, &w));
  unsigned blocks = blocks_for(w.positions);
  return with_losses(a, (int)a->num[1].i, blocks, [&](const Losses &losses) {
    return with_float(a->in[0], [&](auto type) {
      using T = decltype(type);
      return launch(a, nll_positions<T>, blocks, THREADS, w, data<T>(a->in[0]), losses);
    });
  });
}
