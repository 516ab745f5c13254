#include "tests/unit/worker/ops/reference.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

namespace uniquanf::reference {

Vector Linear(const Vector& x, const Vector& w, const Vector& bias, int64_t t, int64_t n,
              int64_t k) {
  Vector y(t * n);
  for (int64_t i = 0; i < t; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = bias.empty() ? 0.0 : bias[j];
      for (int64_t c = 0; c < k; ++c) sum += x[i * k + c] * w[j * k + c];
      y[i * n + j] = sum;
    }
  }
  return y;
}

Vector LinearInputGradient(const Vector& dy, const Vector& w, int64_t t, int64_t n, int64_t k) {
  Vector dx(t * k);
  for (int64_t i = 0; i < t; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t c = 0; c < k; ++c) dx[i * k + c] += dy[i * n + j] * w[j * k + c];
    }
  }
  return dx;
}

Vector LinearWeightGradient(const Vector& dy, const Vector& x, int64_t t, int64_t n, int64_t k) {
  Vector dw(n * k);
  for (int64_t i = 0; i < t; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      for (int64_t c = 0; c < k; ++c) dw[j * k + c] += dy[i * n + j] * x[i * k + c];
    }
  }
  return dw;
}

namespace {
double InverseRms(const double* row, int64_t width, double eps) {
  double sum = 0;
  for (int64_t i = 0; i < width; ++i) sum += row[i] * row[i];
  return 1.0 / std::sqrt(sum / width + eps);
}
}  // namespace

Vector RmsNorm(const Vector& x, const Vector& weight, double eps) {
  const int64_t width = weight.size();
  Vector y(x.size());
  for (size_t r = 0; r < x.size() / width; ++r) {
    const double inverse = InverseRms(&x[r * width], width, eps);
    for (int64_t i = 0; i < width; ++i) y[r * width + i] = x[r * width + i] * inverse * weight[i];
  }
  return y;
}

Vector RmsNormGradient(const Vector& dy, const Vector& x, const Vector& weight, double eps) {
  const int64_t width = weight.size();
  Vector dx(x.size());
  for (size_t r = 0; r < x.size() / width; ++r) {
    const double inverse = InverseRms(&x[r * width], width, eps);
    double dot = 0;
    for (int64_t i = 0; i < width; ++i) dot += dy[r * width + i] * weight[i] * x[r * width + i];
    for (int64_t i = 0; i < width; ++i) {
      dx[r * width + i] = inverse * dy[r * width + i] * weight[i] -
                          x[r * width + i] * inverse * inverse * inverse * dot / width;
    }
  }
  return dx;
}

Vector Rope(const Vector& x, const Vector& cos, const Vector& sin, int64_t seq_len, int64_t half,
            int num_heads, bool inverse) {
  Vector y(x.size());
  const int64_t width = 2 * half * num_heads;
  for (int64_t t = 0; t < static_cast<int64_t>(x.size()) / width; ++t) {
    for (int head = 0; head < num_heads; ++head) {
      for (int64_t i = 0; i < half; ++i) {
        const int64_t low = t * width + head * 2 * half + i, high = low + half;
        const double c = cos[t % seq_len * half + i];
        const double s = sin[t % seq_len * half + i] * (inverse ? -1 : 1);
        y[low] = x[low] * c - x[high] * s;
        y[high] = x[high] * c + x[low] * s;
      }
    }
  }
  return y;
}

namespace {

// Calls fn(sequence, query head, i, probabilities of keys 0..i, lse).
void ForEachQuery(const ops::AttentionShape& shape, const Vector& q, const Vector& k,
                  const std::function<void(int64_t, int, int64_t, const Vector&, double)>& fn) {
  const int64_t d = shape.head_dim, group = shape.num_heads / shape.num_kv_heads;
  for (int64_t b = 0; b < shape.batch; ++b) {
    for (int h = 0; h < shape.num_heads; ++h) {
      for (int64_t i = 0; i < shape.seq_len; ++i) {
        Vector p(i + 1, 0.0);
        const int64_t low = shape.window > 0 ? std::max<int64_t>(0, i - shape.window + 1) : 0;
        const double* query = &q[((b * shape.seq_len + i) * shape.num_heads + h) * d];
        double best = -INFINITY, sum = 0;
        for (int64_t j = low; j <= i; ++j) {
          const double* key = &k[((b * shape.seq_len + j) * shape.num_kv_heads + h / group) * d];
          for (int64_t c = 0; c < d; ++c) p[j] += query[c] * key[c];
          p[j] *= shape.scale;
          best = std::max(best, p[j]);
        }
        for (int64_t j = low; j <= i; ++j) sum += p[j] = std::exp(p[j] - best);
        for (int64_t j = low; j <= i; ++j) p[j] /= sum;
        fn(b, h, i, p, best + std::log(sum));
      }
    }
  }
}

}  // namespace

Attention AttentionForward(const ops::AttentionShape& shape, const Vector& q, const Vector& k,
                           const Vector& v) {
  const int64_t d = shape.head_dim, group = shape.num_heads / shape.num_kv_heads;
  Attention result{Vector(q.size()), Vector(shape.batch * shape.num_heads * shape.seq_len)};
  ForEachQuery(shape, q, k, [&](int64_t b, int h, int64_t i, const Vector& p, double lse) {
    result.lse[(b * shape.num_heads + h) * shape.seq_len + i] = lse;
    double* out = &result.out[((b * shape.seq_len + i) * shape.num_heads + h) * d];
    for (int64_t j = 0; j <= i; ++j) {
      const double* value = &v[((b * shape.seq_len + j) * shape.num_kv_heads + h / group) * d];
      for (int64_t c = 0; c < d; ++c) out[c] += p[j] * value[c];
    }
  });
  return result;
}

AttentionGradients AttentionBackward(const ops::AttentionShape& shape, const Vector& dout,
                                     const Vector& q, const Vector& k, const Vector& v) {
  const int64_t d = shape.head_dim, group = shape.num_heads / shape.num_kv_heads;
  AttentionGradients g{Vector(q.size()), Vector(k.size()), Vector(v.size())};
  ForEachQuery(shape, q, k, [&](int64_t b, int h, int64_t i, const Vector& p, double lse) {
    const int64_t row = ((b * shape.seq_len + i) * shape.num_heads + h) * d;
    Vector dp(i + 1, 0.0);
    double delta = 0;  // Σ p·dp
    for (int64_t j = 0; j <= i; ++j) {
      const int64_t column = ((b * shape.seq_len + j) * shape.num_kv_heads + h / group) * d;
      for (int64_t c = 0; c < d; ++c) {
        dp[j] += dout[row + c] * v[column + c];
        g.dv[column + c] += p[j] * dout[row + c];
      }
      delta += p[j] * dp[j];
    }
    for (int64_t j = 0; j <= i; ++j) {
      const int64_t column = ((b * shape.seq_len + j) * shape.num_kv_heads + h / group) * d;
      const double ds = p[j] * (dp[j] - delta) * shape.scale;
      for (int64_t c = 0; c < d; ++c) {
        g.dq[row + c] += ds * k[column + c];
        g.dk[column + c] += ds * q[row + c];
      }
    }
  });
  return g;
}

Vector SwiGlu(const Vector& gate, const Vector& up) {
  Vector y(gate.size());
  for (size_t i = 0; i < y.size(); ++i) y[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
  return y;
}

void SwiGluGradient(const Vector& dy, const Vector& gate, const Vector& up, Vector* dgate,
                    Vector* dup) {
  dgate->resize(dy.size());
  dup->resize(dy.size());
  for (size_t i = 0; i < dy.size(); ++i) {
    const double s = 1 / (1 + std::exp(-gate[i]));
    (*dup)[i] = dy[i] * gate[i] * s;
    (*dgate)[i] = dy[i] * up[i] * s * (1 + gate[i] * (1 - s));
  }
}

double NegativeLogLikelihood(const double* logits, int64_t vocab_size, int64_t target) {
  double best = logits[0], sum = 0;
  for (int64_t i = 1; i < vocab_size; ++i) best = std::max(best, logits[i]);
  for (int64_t i = 0; i < vocab_size; ++i) sum += std::exp(logits[i] - best);
  return best + std::log(sum) - logits[target];
}

std::vector<DeviceCase> DeviceCases() {
  std::vector<DeviceCase> cases = {{DeviceKind::kCpu, DType::kFloat32}};
  if (NumCudaDevices() > 0) {
    cases.push_back({DeviceKind::kCuda, DType::kFloat32});
    cases.push_back({DeviceKind::kCuda, DType::kBfloat16});
  }
  return cases;
}

std::string DeviceCaseName(const DeviceCase& device) {
  return std::string(device.kind == DeviceKind::kCpu ? "Cpu" : "Cuda") +
         (device.act == DType::kFloat32 ? "F32" : "Bf16");
}

std::unique_ptr<Backend> MakeBackend(DeviceKind kind) {
  if (kind == DeviceKind::kCpu) return NewCpuBackend({.num_threads = 2});
  absl::StatusOr<std::unique_ptr<Backend>> backend = NewCudaBackend(0);
  EXPECT_TRUE(backend.ok()) << backend.status();
  return *std::move(backend);
}

std::vector<float> RandomFloats(int64_t count, uint64_t seed, double deviation) {
  std::mt19937_64 engine(seed);
  std::normal_distribution<double> normal(0.0, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(normal(engine));
  return values;
}

Tensor Upload(Backend* backend, DType dtype, Shape shape, const std::vector<float>& values) {
  absl::StatusOr<Tensor> tensor =
      Tensor::FromFloats(backend, dtype, std::move(shape), values.data());
  EXPECT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_EQ(tensor->num_elements(), static_cast<int64_t>(values.size()));
  return *std::move(tensor);
}

Tensor UploadInts(Backend* backend, const std::vector<int32_t>& values) {
  Tensor tensor = *Tensor::Allocate(backend, DType::kInt32, {static_cast<int64_t>(values.size())});
  EXPECT_TRUE(backend->CopyFromHost(tensor.data(), values.data(), tensor.size_bytes()).ok());
  return tensor;
}

Tensor Empty(Backend* backend, DType dtype, Shape shape) {
  Tensor tensor = *Tensor::Allocate(backend, dtype, std::move(shape));
  std::vector<char> pattern(tensor.size_bytes(), '\xFF');
  EXPECT_TRUE(backend->CopyFromHost(tensor.data(), pattern.data(), pattern.size()).ok());
  return tensor;
}

Vector Values(const Tensor& tensor) {
  absl::StatusOr<std::vector<float>> floats = tensor.ToFloats();
  EXPECT_TRUE(floats.ok()) << floats.status();
  return Vector(floats->begin(), floats->end());
}

double Epsilon(DType dtype) { return dtype == DType::kBfloat16 ? 0x1p-7 : 0x1p-23; }

double RootMeanSquare(const Vector& values) {
  return values.empty() ? 0 : std::sqrt(Dot(values, values) / values.size());
}

double Dot(const Vector& a, const Vector& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

void ExpectClose(const Vector& actual, const Vector& expected, DType dtype, double rounding,
                 const std::string& what, double accumulation, double floor) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  const double rms = std::max(floor, RootMeanSquare(expected));
  const double relative = rounding * Epsilon(dtype) + accumulation * Epsilon(DType::kFloat32);
  double worst = 0;
  size_t worst_index = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double allowed = relative * (std::abs(expected[i]) + rms);
    const double error = std::abs(actual[i] - expected[i]);
    const double ratio = error == 0 ? 0 : error / allowed;
    if (!(ratio <= worst)) {  // NaN is the worst
      worst = ratio;
      worst_index = i;
      if (std::isnan(ratio)) break;
    }
  }
  EXPECT_LE(worst, 1.0) << what << ": element " << worst_index << " is " << actual[worst_index]
                        << ", expected " << expected[worst_index] << ", rms " << rms;
}

}  // namespace uniquanf::reference
