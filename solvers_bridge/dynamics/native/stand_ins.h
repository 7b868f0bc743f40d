// What the header that TensorFlow's ahead-of-time compiler writes expects of TensorFlow, in as few lines as it needs.
//
// The real classes, in tensorflow/include, would draw in Abseil and Eigen and take a minute to compile. Anything that a graph
// needs and that is not here is an error of the C++ compiler, and with it a NativeError.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tensorflow/compiler/tf2xla/encoded_buffer_allocation_info.h"
#include "xla/backends/cpu/buffer_allocation_info.h"
#include "xla/backends/cpu/runtime/kernel_c_api.h"

#undef ABSL_PREDICT_FALSE
#define ABSL_PREDICT_FALSE(condition) (__builtin_expect(static_cast<bool>(condition), false))

struct CheckFailure {
  ~CheckFailure() { std::abort(); }
  template <class Text>
  CheckFailure& operator<<(const Text&) {
    return *this;
  }
};
#undef CHECK
#define CHECK(condition) \
  if (condition) {       \
  } else                 \
    CheckFailure()

namespace absl {
template <class Key, class Value>
using flat_hash_map = std::unordered_map<Key, Value>;

// Matrix products are done when they return.
struct BlockingCounter {
  explicit BlockingCounter(int) {}
  void DecrementCount() {}
  void Wait() {}
};
}  // namespace absl

namespace xla {
class ProgramShapeProto;

struct ExecutableRunOptions {
  const void* intra_op_thread_pool() const { return nullptr; }
};

namespace cpu {
struct RngState {};

namespace internal {
using Gemm = void (*)(char*, char*, int*, int*, int*, void*, void*, int*, void*, int*, void*, void*, int*);
inline Gemm dgemm = nullptr, sgemm = nullptr;  // BLAS, from SciPy

// out (m, n) = op(lhs) (m, k) op(rhs) (k, n), all of them stored by columns.
template <class Lhs, class Rhs, class Out, class Done>
void TypedMatMul(const void*, void* out, void* lhs, void* rhs, int64_t m, int64_t n, int64_t k, bool transpose_lhs,
                 bool transpose_rhs, Done) {
  static_assert(std::is_same_v<Lhs, Rhs> && std::is_same_v<Lhs, Out> &&
                    (std::is_same_v<Lhs, double> || std::is_same_v<Lhs, float>),
                "matrix products of float32 and float64 only");
  char lhs_op = transpose_lhs ? 'T' : 'N', rhs_op = transpose_rhs ? 'T' : 'N';
  int rows = m, columns = n, inner = k, lhs_stride = transpose_lhs ? k : m, rhs_stride = transpose_rhs ? n : k;
  Out one = 1, zero = 0;
  (std::is_same_v<Lhs, double> ? dgemm : sgemm)(&lhs_op, &rhs_op, &rows, &columns, &inner, &one, lhs, &lhs_stride, rhs,
                                                &rhs_stride, &zero, out, &rows);
}
}  // namespace internal
}  // namespace cpu
}  // namespace xla

namespace tensorflow {
using int32 = int32_t;

class XlaCompiledCpuFunction {
 public:
  enum class AllocMode { ARGS_VARIABLES_RESULTS_PROFILES_AND_TEMPS, RESULTS_PROFILES_AND_TEMPS_ONLY };
  struct ShapeInfo {
    const int32_t* dimensions = nullptr;
    int32_t num_dimensions = 0;
  };
  using Run = std::function<bool(void**, xla::ExecutableRunOptions*, std::vector<std::unique_ptr<xla::cpu::RngState>>&)>;
  struct StaticData {
    Run run;
    std::vector<std::pair<uint64_t, char*>> constants;
    const xla::cpu::BufferAllocationInfo* buffers = nullptr;
    size_t num_buffers = 0;
    const int32_t* results = nullptr;  // which buffer is which result
    const int32_t* arguments = nullptr;
  };

  // The generated class has these methods; the bridge goes to the buffers itself.
  XlaCompiledCpuFunction(const StaticData&, AllocMode) {}
  virtual ~XlaCompiledCpuFunction() = default;
  void set_arg_data(size_t, const void*) {}
  void* arg_data(size_t) const { return nullptr; }
  void* result_data(size_t) const { return nullptr; }

 protected:
  virtual bool is_thunk_mode() const { return true; }
  static void set_static_data_thunk_run_impl(StaticData* data, Run run) { data->run = std::move(run); }
  static void set_static_data_embedded_constant_buffers(StaticData* data, std::vector<std::pair<uint64_t, char*>> constants) {
    data->constants = std::move(constants);
  }
  static void set_static_data_buffer_infos(StaticData* data, const xla::cpu::BufferAllocationInfo* buffers) {
    data->buffers = buffers;
  }
  static void set_static_data_num_buffers(StaticData* data, size_t num_buffers) { data->num_buffers = num_buffers; }
  static void set_static_data_result_index_table(StaticData* data, const int32_t* results) { data->results = results; }
  static void set_static_data_arg_index_table(StaticData* data, const int32_t* arguments) { data->arguments = arguments; }

#define NOT_NEEDED(name)                        \
  template <class Value>                        \
  static void set_static_data_##name(StaticData*, Value&&) {}
  NOT_NEEDED(function_library_symbol_map)
  NOT_NEEDED(num_results)
  NOT_NEEDED(num_args)
  NOT_NEEDED(num_variables)
  NOT_NEEDED(temp_allocation_index)
  NOT_NEEDED(arg_shape_infos)
  NOT_NEEDED(result_shape_infos)
  NOT_NEEDED(arg_names)
  NOT_NEEDED(variable_names)
  NOT_NEEDED(result_names)
  NOT_NEEDED(program_shape)
  NOT_NEEDED(rng_state_deltas)
  NOT_NEEDED(compilation_result_proto)
#undef NOT_NEEDED
};
}  // namespace tensorflow
