// Whole solves, and whole reverse sweeps, by the Fortran integrators' own entry points: callbacks.cpp's last part.
//
// Only what goes well is done here. At anything else these functions return, and Python solves again by its own means, which know
// how to go on or what to say. Names and structures are those of integrators/compiled.py.
#pragma once

enum Family : int64_t { VODE = 0, LSODA = 1, HAIRER = 2, GRID = 3 };

// 0-based places in the work spaces.
constexpr int FIRST_STEP = 4, HU = 10, TCUR = 12, NORDSIECK = 20, NST = 10, NJE = 12, NQU = 13;  // VODE, LSODA
constexpr int HAIRERS_FIRST_STEP = 6;
constexpr int64_t PARAMETERS = 21;  // entries from the beginning of a work space that hold what was asked for
constexpr int TO_OUTPUT_TIME = 1, ONE_STEP = 2, ILLEGAL_INPUT = -3;

// An integrator that is ready to begin.
struct Plan {
  int64_t family;
  void* routine;
  int64_t vector_tolerances;
  const double *rtol, *atol;
  double* rwork;
  int64_t rwork_size;
  int32_t* iwork;
  int64_t iwork_size;
  int64_t iteration;  // VODE's MF, LSODA's JT
  void* jacobian;
  const Control* jacobian_control;
  int64_t order;       // of a Runge-Kutta method
  int64_t wants_first_step;
  double first_step, max_step, step_size;  // without sign; 0: none given
};

// What one solve cost.
struct Outcome {
  int64_t evaluations, steps, jacobians, last_order, beside, solved;
  double last_step, first_step, seconds, gap, excess, doubt;
};

using Dvode = void (*)(void*, int*, double*, double*, double*, int*, const double*, const double*, int*, int*, int*, double*, int*,
                       int32_t*, int*, void*, int*, double*, int*);
using Lsoda = void (*)(void*, int*, double*, double*, double*, int*, const double*, const double*, int*, int*, int*, double*, int*,
                       int32_t*, int*, void*, int*);
using Dopri = void (*)(int*, void*, double*, double*, double*, const double*, const double*, int*, void*, int*, double*, int*,
                       int32_t*, int*, double*, int*, int*);

static double seconds_now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

static void begin_solve(Binding& binding) {
  Control& control = binding.control;
  control.evaluations = control.not_finite_evaluations = control.not_finite = 0;
  binding.evaluations_at_service = 0;
}

static bool any(const double* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    if (x[i] != 0) return true;
  return false;
}

static bool all_finite(const double* z, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    if (!is_finite(z[i])) return false;
  return true;
}

// VODE's state at t, near an end of its last step, from its Nordsieck array: as integrators/multistep.py.
static bool ends_beside(const Plan& plan, double t) {
  double end = plan.rwork[TCUR], h = plan.rwork[HU], rounding = 200 * 2.220446049250313e-16 * (std::abs(end) + std::abs(h));
  return plan.iwork[NST] > 0 && std::min(std::abs(t - end), std::abs(t - (end - h))) <= rounding;
}

static void interpolate(const Plan& plan, double t, double* z, int64_t n) {
  double s = (t - plan.rwork[TCUR]) / plan.rwork[HU];
  int order = plan.iwork[NQU];
  for (int64_t i = 0; i < n; ++i) {
    double value = 0, power = 1;
    for (int j = 0; j <= order; ++j, power *= s) value += power * plan.rwork[NORDSIECK + j * n + i];
    z[i] = value;
  }
}

static bool solve_multistep(Binding& binding, const Plan& plan, const double* ts, int64_t count, double* zs, int64_t n,
                            Outcome& outcome) {
  bool is_vode = plan.family == VODE;
  double direction = ts[count - 1] > ts[0] ? 1 : -1, t = ts[0];
  double first_step = plan.max_step > 0 ? std::min(plan.first_step, plan.max_step) : plan.first_step;
  plan.rwork[FIRST_STEP] = direction * first_step;
  std::vector<double> z(zs, zs + n);
  int size = n, itol = plan.vector_tolerances ? 4 : 1, istate = 1, iopt = 1, lrw = plan.rwork_size, liw = plan.iwork_size;
  int iteration = plan.iteration;
  auto advance = [&](int itask, double t_out) {
    if (is_vode)
      reinterpret_cast<Dvode>(plan.routine)(reinterpret_cast<void*>(sb_rhs), &size, z.data(), &t, &t_out, &itol, plan.rtol,
                                            plan.atol, &itask, &istate, &iopt, plan.rwork, &lrw, plan.iwork, &liw,
                                            plan.jacobian, &iteration, nullptr, nullptr);
    else
      reinterpret_cast<Lsoda>(plan.routine)(reinterpret_cast<void*>(sb_rhs_lsoda), &size, z.data(), &t, &t_out, &itol,
                                            plan.rtol, plan.atol, &itask, &istate, &iopt, plan.rwork, &lrw, plan.iwork, &liw,
                                            plan.jacobian, &iteration);
    bool stopped = binding.control.stop != RUNNING || (plan.jacobian_control && plan.jacobian_control->stop != RUNNING);
    if (!stopped && istate == ILLEGAL_INPUT && is_vode && ends_beside(plan, t_out)) {
      interpolate(plan, t_out, z.data(), n);
      t = t_out, istate = 2, ++outcome.beside;
    }
    if (stopped || istate < 0) return false;
    istate = 2;
    return true;
  };
  auto tell = [&](bool solved) {
    outcome.steps = plan.iwork[NST], outcome.jacobians = plan.iwork[NJE];
    outcome.last_step = plan.rwork[HU], outcome.last_order = plan.iwork[NQU];
    return solved;
  };
  for (int64_t i = 1; i < count; ++i) {
    if (i == 1 && plan.wants_first_step) {
      if (!advance(ONE_STEP, ts[i])) return tell(false);
      outcome.first_step = plan.rwork[HU];
    }
    if (!advance(TO_OUTPUT_TIME, ts[i])) return tell(false);
    double* row = zs + i * n;
    if (is_vode && ends_beside(plan, ts[i])) {
      interpolate(plan, ts[i], row, n);
      ++outcome.beside;
    } else {
      std::memcpy(row, z.data(), n * sizeof(double));
    }
  }
  return tell(true);
}

// dopri5 and dop853: a call for each output time.
static bool solve_hairer(Binding& binding, const Plan& plan, const double* ts, int64_t count, double* zs, int64_t n,
                         Outcome& outcome) {
  double direction = ts[count - 1] > ts[0] ? 1 : -1;
  double first_step = plan.max_step > 0 ? std::min(plan.first_step, plan.max_step) : plan.first_step;
  double& next_step = plan.rwork[HAIRERS_FIRST_STEP];
  next_step = direction * first_step;
  int size = n, itol = plan.vector_tolerances, iout = 1, lwork = plan.rwork_size, liwork = plan.iwork_size, idid = 0, ipar = 0;
  double rpar = 0;
  binding.steps = Steps{};
  binding.steps.end = ts[0];
  auto tell = [&](bool solved) {
    outcome.steps = binding.steps.count, outcome.last_order = plan.order;
    outcome.last_step = binding.steps.last, outcome.first_step = binding.steps.first;
    return solved;
  };
  for (int64_t i = 1; i < count; ++i) {
    // The Fortran leaves there the step that it would take next, and holds no first step below the greatest.
    if (i > 1 && plan.max_step > 0) next_step = std::min(std::max(next_step, -plan.max_step), plan.max_step);
    double t = ts[i - 1], t_out = ts[i], *z = zs + i * n;
    binding.steps.end = t;  // the last step's may differ from it by rounding
    std::memcpy(z, z - n, n * sizeof(double));
    if (binding.recording) binding.recording->begin_interval();
    reinterpret_cast<Dopri>(plan.routine)(&size, reinterpret_cast<void*>(sb_rhs), &t, z, &t_out, plan.rtol, plan.atol, &itol,
                                          reinterpret_cast<void*>(sb_solout), &iout, plan.rwork, &lwork, plan.iwork, &liwork,
                                          &rpar, &ipar, &idid);
    if (binding.control.stop != RUNNING || idid < 0) return tell(false);
  }
  return tell(true);
}

// Euler, midpoint and the classical method of order 4, on equal steps between output times: integrators/fixed_grid.py.
static bool solve_grid(Binding& binding, const Plan& plan, const double* ts, int64_t count, double* zs, int64_t n,
                       Outcome& outcome) {
  std::vector<double> k1(n), k2(n), k3(n), k4(n), stage(n);
  auto f = [&](double t, const double* z, double* k) { evaluate(binding, t, z, k); };
  auto moved = [&](const double* z, double h, const double* k) {
    for (int64_t j = 0; j < n; ++j) stage[j] = z[j] + h * k[j];
    return stage.data();
  };
  for (int64_t i = 1; i < count; ++i) {
    double interval = ts[i] - ts[i - 1], *z = zs + i * n;
    std::memcpy(z, z - n, n * sizeof(double));
    double steps = plan.step_size > 0 ? std::ceil(std::abs(interval) / plan.step_size * (1 - 1e-12)) : 1;
    int64_t number = std::max(1.0, steps);
    double h = interval / number;
    for (int64_t k = 0; k < number; ++k) {
      double t = ts[i - 1] + k * h;
      f(t, z, k1.data());
      if (plan.order == 1) {
        for (int64_t j = 0; j < n; ++j) z[j] += h * k1[j];
      } else if (plan.order == 2) {
        f(t + h / 2, moved(z, h / 2, k1.data()), k2.data());
        for (int64_t j = 0; j < n; ++j) z[j] += h * k2[j];
      } else {
        f(t + h / 2, moved(z, h / 2, k1.data()), k2.data());
        f(t + h / 2, moved(z, h / 2, k2.data()), k3.data());
        f(t + h, moved(z, h, k3.data()), k4.data());
        for (int64_t j = 0; j < n; ++j) z[j] += h / 6 * (k1[j] + 2 * (k2[j] + k3[j]) + k4[j]);
      }
      if (binding.control.stop != RUNNING) return false;
      if (outcome.steps++ == 0) outcome.first_step = h;
    }
    outcome.last_step = h;
  }
  outcome.last_order = plan.order;
  return true;
}

// States (count, n) at ts from the first row; false where Python is to solve instead.
static bool solve(Binding& binding, const Plan& plan, const double* ts, int64_t count, double* zs, int64_t n, Outcome& outcome) {
  double started = seconds_now();
  outcome = Outcome{};
  begin_solve(binding);
  auto by_family = plan.family == HAIRER ? solve_hairer : plan.family == GRID ? solve_grid : solve_multistep;
  bool solved = by_family(binding, plan, ts, count, zs, n, outcome) && all_finite(zs, count * n);
  outcome.evaluations = binding.control.evaluations;
  outcome.solved = solved;
  outcome.seconds = seconds_now() - started;
  return solved;
}

// The calls of this thread go to a binding while this lives.
struct Current {
  Binding* before;
  explicit Current(Binding* binding) : before(sb_make_current(binding)) {}
  ~Current() { current = before; }
};

EXPORT int sb_solve(Binding* binding, const Plan* plan, const double* ts, int64_t count, double* zs, int64_t n, Outcome* outcome) {
  Current here(binding);
  return solve(*binding, *plan, ts, count, zs, n, *outcome);
}

// The steps of an explicit Runge-Kutta method from one output time to the next: t, z (count + 1, n), k (count, stride, n).
struct TakenSteps {
  int64_t count, stride;
  const double *t, *z, *k;
  double low, high;  // times outside of which the graph is not to be evaluated
};

// A reverse sweep over the output times (adjoint.reverse_sweep, reverse._Reverse.segment), s being [z, a, a_theta, a_t].
struct Sweep {
  Plan plan;
  void (*slope)(void*, double, const double*, double*);  // f, for the cotangents of the output times
  void* slope_binding;
  int64_t wants_t;
  int64_t n, p, count;
  const double *t, *slope_t, *zs, *zs_bar;  // slope_t: when to ask for the slope at t
  const uint8_t* is_close;  // (count): whether t[i] and t[i - 1] are one time
  int64_t vector_tolerances;
  const double *rtol, *atol;  // units of the gap, with which z(t) counts as found from gap_limit downwards
  double grid_unit;           // of a fixed grid: this part of the greatest component
  double gap_limit;
  double greatest_rtol, greatest_atol;
  double lost_part, lost_roots, doubtful_tolerances;  // what error makes an excess, and a doubt, of one (lost_state.LOST_PART)
  int64_t stops_where_lost;
  double blown_up;
  int64_t is_warm, warm_from_last;
  double warm_step;
  double* s;
  double* t_bars;     // (count)
  double off, terms;  // at t[0]: by how much a . f + a_t is not zero, and the size of the terms of a . f (balance.py)
  Outcome* outcomes;  // (count), of the segment that ends at t[i - 1]
  const TakenSteps* steps;  // (count), of the discrete adjoint: those taken between t[i - 1] and t[i]; else none
  int64_t stages;
  const double *tableau_a, *tableau_b, *tableau_c;
  int64_t i;          // the sweep has come to this time
};

static void add(int64_t n, double factor, const double* x, double* to) {
  if (factor == 0) return;
  for (int64_t j = 0; j < n; ++j) to[j] += factor * x[j];
}

// A segment by backpropagation through the steps that were taken (reverse._Reverse.through_steps); false if interrupted.
static bool through_steps(Binding& binding, Sweep& sweep, const TakenSteps& steps, double* a, double* theta_bar, double& t0_bar) {
  int64_t n = sweep.n, p = sweep.p, stages = sweep.stages;
  std::vector<double> a_next(n), stage_bars(stages * n), s(2 * n);
  for (int64_t i = steps.count - 1; i >= 0; --i) {
    double h = steps.t[i + 1] - steps.t[i];
    const double *z = steps.z + i * n, *ks = steps.k + i * steps.stride * n;
    std::memcpy(a_next.data(), a, n * sizeof(double));
    std::fill(stage_bars.begin(), stage_bars.end(), 0.0);
    for (int64_t k = stages - 1; k >= 0; --k) {
      // Sums in the order of stages, component by component: the loops within run over neighbours.
      double *rise = s.data(), *k_bar = &s[n];
      std::fill(rise, rise + n, 0.0);
      for (int64_t l = 0; l < k; ++l) add(n, sweep.tableau_a[k * stages + l], ks + l * n, rise);
      for (int64_t j = 0; j < n; ++j) k_bar[j] = sweep.tableau_b[k] * a_next[j];
      for (int64_t l = k + 1; l < stages; ++l) add(n, sweep.tableau_a[l * stages + k], &stage_bars[l * n], k_bar);
      for (int64_t j = 0; j < n; ++j) rise[j] = z[j] + h * rise[j], k_bar[j] *= -h;
      if (!any(&s[n], n)) continue;
      service(binding);
      if (binding.control.stop == INTERRUPTED) return false;
      ++binding.control.evaluations;
      run(binding, std::min(std::max(steps.t[i] + sweep.tableau_c[k] * h, steps.low), steps.high), s.data());
      for (int64_t j = 0; j < n; ++j) a[j] += stage_bars[k * n + j] = binding.f[n + j];
      for (int64_t j = 0; j < p; ++j) theta_bar[j] += binding.f[2 * n + j];
      t0_bar += binding.f[2 * n + p];
    }
  }
  return true;
}

static double greatest_of(const double* x, int64_t n) {
  double greatest = 0;
  for (int64_t i = 0; i < n; ++i) greatest = std::max(greatest, std::abs(x[i]));
  return greatest;
}

// How far z is from the stored state (lost_state.reconstruction).
static void compare(const Sweep& sweep, const double* z, const double* stored, const double* end, Outcome& outcome) {
  constexpr double tiny = 2.2250738585072014e-308;
  double sum = 0, greatest_error = 0, greatest = std::max(greatest_of(stored, sweep.n), tiny);
  double of_grid = std::max(sweep.grid_unit * greatest, tiny);
  for (int64_t j = 0; j < sweep.n; ++j) {
    int64_t k = sweep.vector_tolerances ? j : 0;
    double unit = sweep.grid_unit > 0 ? of_grid : sweep.atol[k] + sweep.rtol[k] * std::abs(stored[j]);
    double error = std::abs(z[j] - stored[j]);
    greatest_error = std::max(greatest_error, error);
    sum += error / unit * (error / unit);
  }
  outcome.gap = std::sqrt(sum / sweep.n);
  greatest = std::max(greatest, greatest_of(end, sweep.n));
  double tolerance = sweep.grid_unit > 0 ? 0 : std::max(sweep.greatest_rtol, sweep.greatest_atol / greatest);
  double part = greatest_error / greatest;
  outcome.excess = part / std::max(sweep.lost_part, sweep.lost_roots * std::sqrt(tolerance));
  outcome.doubt = part / std::max(sweep.lost_part, sweep.doubtful_tolerances * tolerance);
  if (!is_finite(outcome.gap)) outcome.gap = outcome.excess = outcome.doubt = __builtin_inf();
}

// From t[sweep.i] on as far as goes: 0 at the beginning, else the i of the segment that is left to Python.
EXPORT int64_t sb_sweep(Binding* binding, Sweep* sweep_) {
  Sweep& sweep = *sweep_;
  Plan& plan = sweep.plan;
  Current here(binding);
  Control& control = binding->control;
  int64_t n = sweep.n, p = sweep.p, size = 2 * n + p + 1;
  double *s = sweep.s, *a = s + n, &t0_bar = s[2 * n + p];
  std::vector<double> states(2 * size), dz(n);
  std::vector<double> rwork(plan.rwork, plan.rwork + std::min(plan.rwork_size, PARAMETERS));
  std::vector<int32_t> iwork(plan.iwork, plan.iwork + std::min(plan.iwork_size, PARAMETERS));
  // What has gathered of dL/dt0 is in the error norm of those that have one.
  bool needs_slopes = sweep.wants_t || (plan.family != GRID && sweep.steps == nullptr);
  for (; sweep.i > 0; --sweep.i) {
    int64_t i = sweep.i;
    const double *z = sweep.zs + i * n, *z_next = z - n, *z_bar = sweep.zs_bar + i * n;
    double t_bar = 0;
    if (needs_slopes || (sweep.steps != nullptr && any(z_bar, n))) {
      const double* f = dz.data();
      // The first stage of the step that begins there is the slope, too.
      if (!needs_slopes && i + 1 < sweep.count && sweep.steps[i + 1].count) f = sweep.steps[i + 1].k;
      else sweep.slope(sweep.slope_binding, sweep.slope_t[i], z, dz.data());
      for (int64_t j = 0; j < n; ++j) t_bar += z_bar[j] * (sweep.wants_t || is_finite(f[j]) ? f[j] : 0);
    }
    sweep.t_bars[i] = t_bar;
    t0_bar -= t_bar;
    bool is_needed = any(a, n) || any(a + n, p);
    if (is_needed && sweep.steps != nullptr) {
      if (!through_steps(*binding, sweep, sweep.steps[i], a, a + n, t0_bar)) return i;
    } else if (is_needed && !sweep.is_close[i]) {
      std::memcpy(s, z, n * sizeof(double));
      std::memcpy(states.data(), s, size * sizeof(double));
      std::copy(rwork.begin(), rwork.end(), plan.rwork);
      std::copy(iwork.begin(), iwork.end(), plan.iwork);
      if (sweep.is_warm && sweep.warm_step > 0) plan.first_step = std::min(sweep.warm_step, std::abs(sweep.t[i - 1] - sweep.t[i]));
      control.lost_size = sweep.blown_up > 0 ? n : 0;
      control.lost_limit = std::max({greatest_of(z, n), greatest_of(z_next, n), 2.2250738585072014e-308}) * sweep.blown_up;
      double ts[2] = {sweep.t[i], sweep.t[i - 1]};
      Outcome& outcome = sweep.outcomes[i];
      if (!solve(*binding, plan, ts, 2, states.data(), size, outcome)) return i;
      compare(sweep, &states[size], z_next, z, outcome);
      if (sweep.is_warm && outcome.steps) sweep.warm_step = std::abs(sweep.warm_from_last ? outcome.last_step : outcome.first_step);
      if (sweep.stops_where_lost && (outcome.gap > sweep.gap_limit || outcome.excess > 1)) return i;
      std::memcpy(s, &states[size], size * sizeof(double));
    }
    if (i == 1 && (needs_slopes || sweep.steps != nullptr)) {
      const double* f = dz.data();
      if (!needs_slopes && sweep.steps[1].count) f = sweep.steps[1].k;
      else sweep.slope(sweep.slope_binding, sweep.slope_t[0], sweep.zs, dz.data());
      double at_start = 0, terms = 0;
      for (int64_t j = 0; j < n; ++j) {
        double term = a[j] * (sweep.wants_t || is_finite(f[j]) ? f[j] : 0);
        at_start += term;
        terms += std::abs(term);
      }
      sweep.off = std::abs(t0_bar + at_start);
      sweep.terms = terms;
      if (sweep.steps != nullptr) t0_bar = -at_start;
    }
    for (int64_t j = 0; j < n; ++j) a[j] += sweep.zs_bar[(i - 1) * n + j];
  }
  return 0;
}
