// A compiled graph (t, z, leaves) -> f as the functions that SciPy's Fortran integrators call, with no Python in between.
//
// The graph's class is in GRAPH_HEADER. A binding is one set of parameters with buffers of its own; the Fortran has no argument
// for it, so that each thread has a current one.
#include <time.h>

#include <algorithm>
#include <cmath>

#include "stand_ins.h"
//
#include GRAPH_HEADER

#define EXPORT extern "C" __attribute__((visibility("default")))

using Graph = solvers_bridge::Graph;

enum Stop : int64_t { RUNNING = 0, NOT_FINITE = 1, INTERRUPTED = 2, EVALUATION_LIMIT = 3, LOST = 4 };

// What Python reads and writes; Control in library.py is the same.
struct Control {
  int64_t evaluations;
  int64_t evaluation_limit;     // no more than these; 0: no limit
  int64_t stop;                 // a Stop other than RUNNING: the integrator is to give up
  int64_t not_finite_limit;     // so many evaluations that are not finite stop; if the first of all is not, it does
  int64_t not_finite_evaluations;
  int64_t not_finite;           // how many components were not finite in the first evaluation that had any
  int64_t not_finite_index;     // the first of them
  int64_t not_finite_state;     // whether the state that it was evaluated at was not finite itself
  int64_t ignore_last;          // whether a last component that is not finite counts as zero
  int64_t lost_size;            // this many components of the state stop the solve where one exceeds lost_limit; 0: none
  double lost_limit;
  double origin;                // added to the integrator's own time
  double low, high;             // times outside of which the graph is not to be evaluated: the nearest of them is taken
  double not_finite_t;
  double not_finite_value;
  double last_t;                // of the last evaluation that was finite; NaN before
};

// Python's own functions, from its library by way of ctypes.
static int (*check_signals)() = nullptr;
static void* (*release_gil)() = nullptr;
static void (*take_gil)(void*) = nullptr;

static constexpr double SERVICE_SECONDS = 5e-3, LONG_EVALUATION_SECONDS = 1e-4;
static constexpr int64_t LOOK_EVERY = 16;  // evaluations

static double coarse_seconds() {
#ifdef CLOCK_MONOTONIC_COARSE
  constexpr clockid_t clock = CLOCK_MONOTONIC_COARSE;
#else
  constexpr clockid_t clock = CLOCK_MONOTONIC;
#endif
  timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

// How many of x (n) are not finite, x being copied to where it goes.
static int64_t copy_counting_not_finite(double* to, const double* x, size_t n) {
  constexpr uint64_t EXPONENT = 0x7ff0000000000000;
  int64_t count = 0;
  for (size_t i = 0; i < n; ++i) {
    uint64_t bits;
    std::memcpy(&bits, x + i, sizeof bits);
    count += (bits & EXPONENT) == EXPONENT;
    to[i] = x[i];
  }
  return count;
}

static bool is_finite(double x) { return x - x == 0; }

// The accepted steps of dopri5 or dop853 with the derivatives of their stages.
struct Recording {
  size_t n = 0, stages = 0;  // evaluations a step, without the first stage, which is the last one of the step before
  std::vector<double> recent, first, t, z, k;
  std::vector<int64_t> begins;  // of the intervals between output times, in t
  size_t evaluations = 0;

  void begin(size_t size, size_t stages_per_step) {
    n = size;
    stages = stages_per_step;
    recent.assign(n * stages, 0);
    first.assign(n, 0);
    t.clear(), z.clear(), k.clear();
    begins.assign(1, 0);
    evaluations = 0;
  }
  void begin_interval() {
    if (t.size() == static_cast<size_t>(begins.back())) return;
    begins.push_back(t.size());
    evaluations = 0;
  }
  void add(const double* f) {
    if (evaluations == 0) std::memcpy(first.data(), f, n * sizeof(double));
    std::memcpy(&recent[n * (evaluations % stages)], f, n * sizeof(double));
    ++evaluations;
  }
  void accept(double t_new, const double* z_new) {
    t.push_back(t_new);
    z.insert(z.end(), z_new, z_new + n);
    if (t.size() == static_cast<size_t>(begins.back()) + 1) return;
    k.insert(k.end(), first.begin(), first.end());
    for (size_t i = 0; i < stages; ++i) {
      const double* stage = &recent[n * ((evaluations + i) % stages)];
      k.insert(k.end(), stage, stage + n);
    }
    first.assign(k.end() - n, k.end());
  }
};

// What solout has seen of dopri5's or dop853's accepted steps.
struct Steps {
  int64_t count = 0;
  double end = 0, first = 0, last = 0;

  void accept(double t) {
    if (t == end) return;
    last = t - end, end = t;
    if (count++ == 0) first = last;
  }
};

struct Binding {
  Control control;
  std::vector<void*> buffers;
  char* memory = nullptr;
  double *t, *z, *f;
  size_t num_sent, num_out;
  double last_service = 0;
  int64_t evaluations_at_service = 0;
  bool long_evaluations = false;
  int lower = -1, upper = -1;  // bands that the integrator stores of a Jacobian; -1: all
  std::unique_ptr<Recording> recording;
  Steps steps;
};

static const tensorflow::XlaCompiledCpuFunction::StaticData& graph() { return Graph::StaticData(); }

static thread_local Binding* current = nullptr;

static size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

EXPORT void sb_set_runtime(void* signals, void* release, void* take, void* dgemm, void* sgemm) {
  check_signals = reinterpret_cast<int (*)()>(signals);
  release_gil = reinterpret_cast<void* (*)()>(release);
  take_gil = reinterpret_cast<void (*)(void*)>(take);
  xla::cpu::internal::dgemm = reinterpret_cast<xla::cpu::internal::Gemm>(dgemm);
  xla::cpu::internal::sgemm = reinterpret_cast<xla::cpu::internal::Gemm>(sgemm);
}

// Bytes of argument i (t, z, leaves); i = -1 for the result.
EXPORT int64_t sb_size(int i) { return graph().buffers[i < 0 ? graph().results[0] : graph().arguments[i]].size(); }

// The parameters that a binding evaluates with.
EXPORT void sb_set_leaves(Binding* binding, void** leaves) {
  for (size_t i = 2; i < Graph::kNumArgs; ++i) binding->buffers[graph().arguments[i]] = leaves[i - 2];
}

EXPORT Binding* sb_create(void** leaves) {
  const auto& data = graph();
  auto binding = std::make_unique<Binding>();
  binding->buffers.assign(data.num_buffers, nullptr);
  sb_set_leaves(binding.get(), leaves);
  std::vector<std::pair<size_t, size_t>> places;
  size_t bytes = 0, constant = 0;
  for (size_t i = 0; i < data.num_buffers; ++i) {
    const auto& info = data.buffers[i];
    bool leaf = info.is_entry_parameter() && info.entry_parameter_number() >= 2;
    if (info.is_constant()) {
      binding->buffers[i] = data.constants[constant++].second;
    } else if (!info.is_thread_local() && !leaf) {
      places.emplace_back(i, bytes);
      bytes += aligned(info.size());
    }
  }
  binding->memory = static_cast<char*>(std::aligned_alloc(64, aligned(bytes + 1)));
  if (binding->memory == nullptr) return nullptr;
  std::memset(binding->memory, 0, bytes);
  for (auto [i, place] : places) binding->buffers[i] = binding->memory + place;
  binding->t = static_cast<double*>(binding->buffers[data.arguments[0]]);
  binding->z = static_cast<double*>(binding->buffers[data.arguments[1]]);
  binding->f = static_cast<double*>(binding->buffers[data.results[0]]);
  binding->num_sent = sb_size(1) / sizeof(double);
  binding->num_out = sb_size(-1) / sizeof(double);
  return binding.release();
}

EXPORT void sb_destroy(Binding* binding) {
  if (current == binding) current = nullptr;
  std::free(binding->memory);
  delete binding;
}

EXPORT Control* sb_control(Binding* binding) { return &binding->control; }

EXPORT void sb_reset(Binding* binding) {
  Control& control = binding->control;
  control = Control{};
  control.not_finite_limit = 1;
  control.low = -__builtin_inf(), control.high = __builtin_inf();
  control.last_t = __builtin_nan("");
  binding->evaluations_at_service = 0;
  binding->last_service = coarse_seconds();
}

// The binding that the Fortran's calls in this thread are for; returns the one before.
EXPORT Binding* sb_make_current(Binding* binding) {
  Binding* before = current;
  current = binding;
  return before;
}

EXPORT void sb_set_bands(Binding* binding, int lower, int upper) { binding->lower = lower, binding->upper = upper; }

static void run(Binding& binding, double t, const double* z) {
  static xla::ExecutableRunOptions options;
  static std::vector<std::unique_ptr<xla::cpu::RngState>> no_random_numbers;
  static const auto& evaluate = graph().run;
  *binding.t = t;
  std::memcpy(binding.z, z, binding.num_sent * sizeof(double));
  evaluate(binding.buffers.data(), &options, no_random_numbers);
}

static void note_not_finite(Binding& binding, double t, const double* z, int64_t count) {
  Control& control = binding.control;
  if (control.not_finite == 0) {
    int64_t i = 0;
    while (is_finite(binding.f[i])) ++i;
    control.not_finite = count, control.not_finite_index = i;
    control.not_finite_t = t, control.not_finite_value = binding.f[i];
    for (size_t j = 0; j < binding.num_sent; ++j) control.not_finite_state |= !is_finite(z[j]);
  }
}

// Every few milliseconds of a solve, which holds Python's lock throughout: signals, and a turn for other threads.
static void service(Binding& binding) {
  double now = coarse_seconds(), elapsed = now - binding.last_service;
  if (elapsed < SERVICE_SECONDS) return;
  int64_t evaluations = binding.control.evaluations - binding.evaluations_at_service;
  binding.long_evaluations = evaluations > 0 && elapsed > LONG_EVALUATION_SECONDS * evaluations;
  take_gil(release_gil());
  if (check_signals() != 0) binding.control.stop = INTERRUPTED;
  current = &binding;  // whatever a signal's handler has called
  binding.last_service = coarse_seconds();
  binding.evaluations_at_service = binding.control.evaluations;
}

// The Fortran cannot be left from here: values that no step size makes smooth let it give up within some fifty evaluations.
static void refuse(double* f, size_t n) {
  static thread_local double value = 1e100;
  value = -value;
  for (size_t i = 0; i < n; ++i) f[i] = value;
}

// Whether the state has left every region from which there is a way back; looked at now and then only.
static bool is_lost(const Control& control, const double* z) {
  if (control.lost_size == 0 || control.evaluations % LOOK_EVERY != 0) return false;
  double greatest = 0;
  for (int64_t i = 0; i < control.lost_size; ++i) greatest = std::max(greatest, std::abs(z[i]));
  return greatest > control.lost_limit;
}

static void evaluate(Binding& binding, double t, const double* z, double* f) {
  Control& control = binding.control;
  if (control.stop == RUNNING) service(binding);
  if (control.stop == RUNNING && control.evaluation_limit && control.evaluations >= control.evaluation_limit)
    control.stop = EVALUATION_LIMIT;
  if (control.stop != RUNNING) return refuse(f, binding.num_out);
  ++control.evaluations;
  if (is_lost(control, z)) {
    control.stop = LOST;
    return refuse(f, binding.num_out);
  }
  t = std::min(std::max(t + control.origin, control.low), control.high);
  if (binding.long_evaluations) {
    void* thread = release_gil();
    run(binding, t, z);
    take_gil(thread);
  } else {
    run(binding, t, z);
  }
  int64_t count = copy_counting_not_finite(f, binding.f, binding.num_out);
  if (count && control.ignore_last && !is_finite(f[binding.num_out - 1])) {
    f[binding.num_out - 1] = 0;
    --count;
  }
  if (count) {
    note_not_finite(binding, t, z, count);
    if (++control.not_finite_evaluations >= control.not_finite_limit || control.evaluations == 1) control.stop = NOT_FINITE;
    if (control.stop != RUNNING) return refuse(f, binding.num_out);
  } else {
    control.last_t = t;
  }
  if (binding.recording) binding.recording->add(f);
}

// VODE's F, dopri5's and dop853's FCN.
EXPORT void sb_rhs(int*, double* t, double* z, double* f, double*, int*) { evaluate(*current, *t, z, f); }

// LSODA's F.
EXPORT void sb_rhs_lsoda(int*, double* t, double* z, double* f) { evaluate(*current, *t, z, f); }

// A Jacobian graph gives rows df_i/dz_j (n, num_sent); the Fortran stores columns, all of them or bands.
static void jacobian(Binding& binding, int n, double t, const double* z, double* columns, int stride) {
  Control& control = binding.control;
  if (control.stop == RUNNING) {
    ++control.evaluations;
    run(binding, std::min(std::max(t + control.origin, control.low), control.high), z);
    int64_t count = 0;
    for (size_t i = 0; i < binding.num_out; ++i) count += !is_finite(binding.f[i]);
    if (count) {
      note_not_finite(binding, t, z, count);
      if (++control.not_finite_evaluations >= control.not_finite_limit) control.stop = NOT_FINITE;
    }
  }
  int num_sent = binding.num_sent;
  bool banded = binding.lower >= 0;
  for (int j = 0; j < n; ++j) {
    int begin = banded ? std::max(0, j - binding.upper) : 0, end = banded ? std::min(n, j + binding.lower + 1) : n;
    double* column = columns + static_cast<size_t>(stride) * j + (banded ? binding.upper - j : 0);
    for (int i = begin; i < end; ++i)
      column[i] = j < num_sent && control.stop == RUNNING ? binding.f[static_cast<size_t>(num_sent) * i + j] : 0;
  }
}

// VODE's JAC.
EXPORT void sb_jacobian(int* n, double* t, double* z, int*, int*, double* columns, int* stride, double*, int*) {
  jacobian(*current, *n, *t, z, columns, *stride);
}

// LSODA's JAC.
EXPORT void sb_jacobian_lsoda(int* n, double* t, double* z, int*, int*, double* columns, int* stride) {
  jacobian(*current, *n, *t, z, columns, *stride);
}

// One evaluation from Python, outside all Fortran.
EXPORT void sb_evaluate(Binding* binding, double t, const double* z, double* f) {
  ++binding->control.evaluations;
  run(*binding, t, z);
  if (int64_t count = copy_counting_not_finite(f, binding->f, binding->num_out))
    note_not_finite(*binding, t, z, count);
  else
    binding->control.last_t = t;
}

// Memory of a recording that nobody needs any more, for the next one: new pages would cost as much as the solve.
static std::unique_ptr<Recording> spare;
static constexpr size_t MOST_SPARE_BYTES = 64 << 20;

// What was recorded, from now on the caller's; the binding records no more.
EXPORT Recording* sb_take_recording(Binding* binding) { return binding->recording.release(); }

EXPORT void sb_free_recording(Recording* recording) {
  if (!spare && (recording->z.capacity() + recording->k.capacity()) * sizeof(double) <= MOST_SPARE_BYTES)
    spare.reset(recording);
  else
    delete recording;
}

// stages: evaluations of an accepted step (6 for dopri5, 12 for dop853); 0: no recording.
EXPORT void sb_record(Binding* binding, int stages) {
  if (stages == 0) {
    binding->recording.reset();
  } else {
    if (!binding->recording) binding->recording = spare ? std::move(spare) : std::make_unique<Recording>();
    binding->recording->begin(binding->num_out, stages);
  }
}

EXPORT int sb_num_stages(Binding* binding) { return binding->recording ? binding->recording->stages : 0; }

// Points of time recorded, and where their t, z and, for all but the first, k are.
EXPORT int64_t sb_recorded(Binding* binding, double** t, double** z, double** k) {
  Recording& recording = *binding->recording;
  *t = recording.t.data(), *z = recording.z.data(), *k = recording.k.data();
  return recording.t.size();
}

// Where in t the recorded intervals begin; returns how many there are.
EXPORT int64_t sb_intervals(Binding* binding, int64_t** begins) {
  *begins = binding->recording->begins.data();
  return binding->recording->begins.size();
}

// dopri5's and dop853's SOLOUT: called at the start and after every accepted step.
EXPORT void sb_solout(int*, double*, double* t, double* z, int*, double*, int*, int*, double*, int*, int* leave) {
  Binding& binding = *current;
  binding.steps.accept(*t);
  if (binding.recording) binding.recording->accept(*t, z);
  *leave = binding.control.stop == RUNNING ? 0 : -1;
}

#include "drive.h"
