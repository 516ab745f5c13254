// Plain double precision references of worker/ops, one loop per formula, and helpers to compare.
// Layouts as in worker/ops/op.h. For tests.
#ifndef UNIQUANF_TESTS_UNIT_WORKER_OPS_REFERENCE_H_
#define UNIQUANF_TESTS_UNIT_WORKER_OPS_REFERENCE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "worker/backend/tensor.h"
#include "worker/ops/op.h"

namespace uniquanf::reference {

using Vector = std::vector<double>;

// y[T,N] = x[T,K] wᵀ + bias (empty: none).
Vector Linear(const Vector& x, const Vector& w, const Vector& bias, int64_t t, int64_t n,
              int64_t k);
Vector LinearInputGradient(const Vector& dy, const Vector& w, int64_t t, int64_t n, int64_t k);
Vector LinearWeightGradient(const Vector& dy, const Vector& x, int64_t t, int64_t n, int64_t k);

Vector RmsNorm(const Vector& x, const Vector& weight, double eps);
Vector RmsNormGradient(const Vector& dy, const Vector& x, const Vector& weight, double eps);

// cos, sin [L, half].
Vector Rope(const Vector& x, const Vector& cos, const Vector& sin, int64_t seq_len, int64_t half,
            int num_heads, bool inverse);

struct Attention {
  Vector out, lse;
};
Attention AttentionForward(const ops::AttentionShape& shape, const Vector& q, const Vector& k,
                           const Vector& v);
struct AttentionGradients {
  Vector dq, dk, dv;
};
AttentionGradients AttentionBackward(const ops::AttentionShape& shape, const Vector& dout,
                                     const Vector& q, const Vector& k, const Vector& v);

Vector SwiGlu(const Vector& gate, const Vector& up);
void SwiGluGradient(const Vector& dy, const Vector& gate, const Vector& up, Vector* dgate,
                    Vector* dup);
double NegativeLogLikelihood(const double* logits, int64_t vocab_size, int64_t target);

// --- helpers

// A device and activation type to test: f32 on the CPU, f32 and bf16 on CUDA when there is one.
struct DeviceCase {
  DeviceKind kind;
  DType act;
};
std::vector<DeviceCase> DeviceCases();
std::string DeviceCaseName(const DeviceCase& device);
std::unique_ptr<Backend> MakeBackend(DeviceKind kind);

// Normal values with the given standard deviation, reproducible from the seed.
std::vector<float> RandomFloats(int64_t count, uint64_t seed, double deviation = 1.0);
Tensor Upload(Backend* backend, DType dtype, Shape shape, const std::vector<float>& values);
Tensor UploadInts(Backend* backend, const std::vector<int32_t>& values);
Tensor Empty(Backend* backend, DType dtype, Shape shape);  // filled with a NaN pattern
// What the device holds (rounded to its type), as doubles.
Vector Values(const Tensor& tensor);

// Distance from 1 to the next number of the type.
double Epsilon(DType dtype);
// Every |actual − expected| <= (rounding · Epsilon(dtype) + accumulation · Epsilon(f32)) ·
// (|expected| + rms(expected)). `rounding` counts roundings to the activation type; `accumulation`
// bounds the fp32 arithmetic between them, about √terms for a sum of random terms of both signs,
// whose partial sums are as large as the results' rms. The rms counts as at least `floor`, the size
// of what cancels where the expected result is zero.
void ExpectClose(const Vector& actual, const Vector& expected, DType dtype, double rounding,
                 const std::string& what, double accumulation = 0, double floor = 0);
double RootMeanSquare(const Vector& values);
double Dot(const Vector& a, const Vector& b);

}  // namespace uniquanf::reference

#endif  // UNIQUANF_TESTS_UNIT_WORKER_OPS_REFERENCE_H_
