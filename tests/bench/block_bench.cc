// Time and memory of one optimization step of block reconstruction on a hot device, where the time
// goes, and how far it is from the floor: the block's matrix products alone and a compact state's
// bytes at the speed of a copy, both measured in this run, and what attention and SwiGLU need.
#include <cstdio>
#include <cstring>
#include <iterator>

#include "tests/bench/bench_support.h"
#include "worker/quant/gradient_memory.h"
#include "worker/quant/quantizer.h"
#ifdef UNIQUANF_HAVE_CUDA
#include "worker/backend/cuda_backend.h"
#endif

namespace uniquanf::bench {
namespace {

constexpr int kSequences = 4;  // of the activation caches

struct Bench {
  Backend* backend;
  BlockTraits traits;
  BlockSpec spec;
  DType act;
  int64_t batch, seq_len, tokens;
  int bits;
  RopeTables rope;
  BlockWeights weights;
  std::vector<quant::QuantizerState> states;
  Tensor shared_gradient;
  BlockGradients gradients;
  std::unique_ptr<BlockRunner> runner;
  Tensor x_fp, x_q, y_fp;
  Tensor x, y, dy, loss, loss_scratch, params;

  const ops::StepParams* step_params() const {
    return static_cast<const ops::StepParams*>(params.data());
  }
  void SetParams(int64_t step) {
    ops::StepParams p = {};
    for (int i = 0; i < batch; ++i) p.sequence_index[i] = (step * batch + i) % kSequences;
    p.draw = step;
    // Small rates: the values stay those of a converged step however long the run.
    p.uniform_learning_rate = 1e-5f;
    p.binary_learning_rate = 1e-6f;
    p.bias_correction1 = p.bias_correction2 = 1;
    p.mapping = static_cast<int32_t>(quant::MappingForPass(step + 2, 2));
    Check(backend->CopyFromHost(params.data(), &p, sizeof(p)));
  }
  void IssueStep() {
    ops::MixInputs(backend, step_params(), 1, 0.5, &x_q, x_fp, static_cast<int>(batch), &x);
    runner->Forward(weights, x, &y);
    ops::MseLoss(backend, step_params(), y, y_fp, static_cast<int>(batch), 1, &loss_scratch, &dy,
                 &loss);
    runner->Backward(weights, dy, false, &gradients, nullptr, [this](int l) { Update(l); });
  }
  Tensor& weight(int l) { return weights[spec.linears[l]]; }
  const Tensor& norm(const std::string& module) {
    return weights[spec.FindTensor(module + ".weight")];
  }
  void Update(int l) {
    quant::UpdateAndForward(backend, step_params(), gradients[l], &states[l], &weight(l));
  }
};

void SetUp(const Flags& flags, Bench* b) {
  b->batch = flags.Number("batch", 1);
  b->seq_len = flags.Number("seq_len", 2048);
  b->tokens = b->batch * b->seq_len;
  b->bits = static_cast<int>(flags.Number("bits", 4));
  Backend* backend = b->backend;
  const int64_t h = b->spec.hidden_size;
  b->x_fp = Random(backend, b->act, {kSequences, b->seq_len, h}, 1, 1);
  b->x_q = Random(backend, b->act, {kSequences, b->seq_len, h}, 1, 2);
  b->y_fp = Random(backend, b->act, {kSequences, b->seq_len, h}, 1, 3);
  backend->ResetPeak();
  b->rope.push_back(MakeRope(backend, b->traits.attention.head_dim, b->seq_len));
  b->weights.resize(b->spec.tensors.size());
  for (size_t t = 0; t < b->weights.size(); ++t) {
    const TensorSpec& tensor = b->spec.tensors[t];
    if (tensor.role == TensorRole::kLinear) continue;
    b->weights[t] = Random(backend, DType::kFloat32, tensor.shape, 1, 4 + t);
  }
  b->states.resize(b->spec.num_linears());
  b->gradients.resize(b->spec.num_linears());
  for (int l = 0; l < b->spec.num_linears(); ++l) {
    const auto [n, k] = b->spec.LinearShape(l);
    const int64_t g = flags.Number("group_size", 0);
    b->states[l] = Take(quant::NewQuantizerState(
        backend, Random(backend, b->act, {n, k}, 0.02, 6 + l), b->bits, g == 0 ? k : g, {},
        flags.Text("state", "f32") == "bf16" ? OptimizerState::kBf16 : OptimizerState::kF32));
    b->states[l].rounding_seed = static_cast<uint32_t>(l);
    quant::InitializeUnified(backend, {}, &b->states[l]);
    b->weight(l) = Empty(backend, b->act, {n, k});
    quant::Forward(backend, quant::Mapping::kDirect, &b->states[l], &b->weight(l));
  }
  std::vector<quant::QuantizerState*> states;
  for (quant::QuantizerState& state : b->states) states.push_back(&state);
  Check(quant::AllocateGradients(backend, b->spec, states, b->act, &b->shared_gradient,
                                 &b->gradients));
  b->runner =
      Take(BlockRunner::Create(backend, b->spec, b->act, b->batch, b->seq_len, &b->rope, true));
  for (Tensor* t : {&b->x, &b->y, &b->dy}) *t = Empty(backend, b->act, {b->tokens, h});
  b->loss = Empty(backend, DType::kFloat32, {1});
  b->loss_scratch =
      Empty(backend, DType::kUint8,
            {static_cast<int64_t>(ops::MseLossScratchBytes(*backend, b->tokens * h))});
  b->params = Empty(backend, DType::kUint8, {static_cast<int64_t>(sizeof(ops::StepParams))});
  b->SetParams(0);
}

struct Split {
  Timing forward, input_gradient, weight_gradient, update;
  Timing attention_forward, attention_backward, norms, rope, swiglu, rest;
  double matmuls() const { return forward.ms + input_gradient.ms + weight_gradient.ms; }
  double sum() const {
    return matmuls() + update.ms + attention_forward.ms + attention_backward.ms + norms.ms +
           rope.ms + swiglu.ms + rest.ms;
  }
};

// Times every kind of op by itself, as often as a step runs it, on buffers of its own.
Split MeasureSplit(Bench* b, Meter* meter) {
  Backend* backend = b->backend;
  const AttentionTraits& c = b->traits.attention;
  const int num_linears = b->spec.num_linears();
  const int64_t t = b->tokens, h = b->spec.hidden_size, i = b->traits.mlp.size;
  const int64_t q_width = int64_t{c.num_heads} * c.head_dim;
  const int64_t kv_width = int64_t{c.num_kv_heads} * c.head_dim;
  Split split;
  const auto time = [&](const std::function<void()>& issue) {
    return meter->Measure(issue, /*rounds=*/5);
  };
  {
    // One buffer of each width, as wide as the widest.
    std::vector<Tensor> ins(num_linears), outs(num_linears);
    for (int l = 0; l < num_linears; ++l) {
      const auto [n, k] = b->spec.LinearShape(l);
      ins[l] = Random(backend, b->act, {t, k}, 1, 20 + l);
      outs[l] = Random(backend, b->act, {t, n}, 1, 40 + l);
    }
    split.weight_gradient = time([&] {
      for (int l = 0; l < num_linears; ++l) {
        ops::LinearBackwardWeight(backend, outs[l], ins[l], /*accumulate=*/false, &b->gradients[l]);
      }
    });
    split.input_gradient = time([&] {
      for (const std::string& module :
           {c.o, b->traits.mlp.gate, b->traits.mlp.up, b->traits.mlp.down}) {
        const int l = b->spec.FindLinear(module);
        ops::LinearBackwardInput(backend, outs[l], b->weight(l), module == b->traits.mlp.up,
                                 &ins[l]);
      }
    });
    split.forward = time([&] {
      for (int l = 0; l < num_linears; ++l) {
        ops::LinearForward(backend, ins[l], b->weight(l), nullptr, &outs[l]);
      }
    });
  }
  split.update = time([&] {
    for (int l = 0; l < num_linears; ++l) b->Update(l);
  });
  {
    ops::AttentionShape shape;
    shape.batch = b->batch;
    shape.seq_len = b->seq_len;
    shape.num_heads = c.num_heads;
    shape.num_kv_heads = c.num_kv_heads;
    shape.head_dim = c.head_dim;
    shape.scale = 0.0883883f;
    Tensor q = Random(backend, b->act, {t, q_width}, 1, 60);
    Tensor k = Random(backend, b->act, {t, kv_width}, 1, 61);
    Tensor v = Random(backend, b->act, {t, kv_width}, 1, 62);
    Tensor dout = Random(backend, b->act, {t, q_width}, 1, 63);
    Tensor out = Empty(backend, b->act, {t, q_width}), dq = Empty(backend, b->act, {t, q_width});
    Tensor dk = Empty(backend, b->act, {t, kv_width}), dv = Empty(backend, b->act, {t, kv_width});
    Tensor lse = Empty(backend, DType::kFloat32, {b->batch, c.num_heads, b->seq_len});
    Tensor scratch =
        Empty(backend, DType::kUint8,
              {static_cast<int64_t>(ops::AttentionBackwardScratchBytes(*backend, shape))});
    split.attention_forward =
        time([&] { ops::AttentionForward(backend, shape, q, k, v, &out, &lse); });
    split.attention_backward = time([&] {
      ops::AttentionBackward(backend, shape, dout, q, k, v, out, lse, &scratch, &dq, &dk, &dv);
    });
    split.rope = time([&] {
      for (bool inverse : {false, true}) {
        ops::Rope(backend, b->rope[0].cos, b->rope[0].sin, c.num_heads, inverse, &dq);
        ops::Rope(backend, b->rope[0].cos, b->rope[0].sin, c.num_kv_heads, inverse, &dk);
      }
    });
  }
  {
    Tensor gate = Random(backend, b->act, {t, i}, 1, 70),
           up = Random(backend, b->act, {t, i}, 1, 71);
    Tensor out = Empty(backend, b->act, {t, i});
    Tensor dgate = Empty(backend, b->act, {t, i}), dup = Empty(backend, b->act, {t, i});
    split.swiglu = time([&] {
      ops::SwiGluForward(backend, gate, up, &out);
      ops::SwiGluBackward(backend, out, gate, up, &dgate, &dup);
    });
  }
  {
    Tensor a = Random(backend, b->act, {t, h}, 1, 80), d = Random(backend, b->act, {t, h}, 1, 81);
    Tensor sum = Empty(backend, b->act, {t, h}), y = Empty(backend, b->act, {t, h});
    Tensor inv_rms = Empty(backend, DType::kFloat32, {t});
    split.norms = time([&] {
      ops::RmsNormForward(backend, a, b->norm(b->traits.attention_input_norm), 1e-5f, &y, &inv_rms);
      ops::AddRmsNormForward(backend, a, d, b->norm(b->traits.mlp_input_norm), 1e-5f, &sum, &y,
                             &inv_rms);
      ops::RmsNormBackward(backend, d, sum, b->norm(b->traits.mlp_input_norm), inv_rms, true, &y);
    });
    split.rest = time([&] {
      ops::MixInputs(backend, b->step_params(), 1, 0.5, &b->x_q, b->x_fp,
                     static_cast<int>(b->batch), &b->x);
      ops::Add(backend, a, d, &y);
      ops::MseLoss(backend, b->step_params(), y, b->y_fp, static_cast<int>(b->batch), 1,
                   &b->loss_scratch, &b->dy, &b->loss);
      Check(backend->CopyOnDevice(sum.data(), a.data(), a.size_bytes()));
    });
  }
  return split;
}

// Kernels and copies of a step.
int NumLaunches(Bench* b) {
#ifdef UNIQUANF_HAVE_CUDA
  cudaStream_t stream = CudaBackend::From(b->backend)->stream();
  cudaGraph_t graph = nullptr;
  size_t count = 0;
  cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
  b->IssueStep();
  if (cudaStreamEndCapture(stream, &graph) == cudaSuccess) {
    cudaGraphGetNodes(graph, nullptr, &count);
    cudaGraphDestroy(graph);
  }
  return static_cast<int>(count);
#else
  return 0;
#endif
}

// Bytes an update must move with a compact state: upstream and w read and ŵ written in the
// activation type; s2, which holds the code, and its 16-bit moments read and written; a group's
// parameters.
double StateBytes(const Bench& b) {
  double bytes = 0;
  for (const quant::QuantizerState& s : b.states) {
    const auto weights = static_cast<double>(s.weight.num_elements());
    const double groups = weights / static_cast<double>(s.group_size);
    bytes += weights * (3 * static_cast<double>(DTypeBytes(b.act)) + 16) +
             groups * ((s.bits + 2) * 24 + 8);
  }
  return bytes;
}

// What a step takes at least. Attention runs at the shares of the products' rate that cuDNN 9.19
// reached beside them on an H100 (425 and 302 of 769 TFLOP/s, 2048 tokens, 32/8 heads of 128).
struct Floor {
  double products, state, attention, swiglu;  // ms
  double sum() const { return products + state + attention + swiglu; }
};
Floor FloorOf(const Bench& b, const Split& split, double bandwidth) {
  double weights = 0;
  for (const quant::QuantizerState& s : b.states) {
    weights += static_cast<double>(s.weight.num_elements());
  }
  const AttentionTraits& c = b.traits.attention;
  const auto tokens = static_cast<double>(b.tokens);
  // q, k and v need no input gradient.
  const double inputs =
      static_cast<double>(b.spec.hidden_size) * (c.num_heads + 2 * c.num_kv_heads) * c.head_dim;
  const double product_flops = 2 * tokens * (3 * weights - inputs);
  const double flops_a_ms = product_flops / split.matmuls();
  const double attention_flops = 2 * tokens * static_cast<double>(b.seq_len) * c.num_heads *
                                 c.head_dim;  // causal, forward; 2.5 times that backward
  const double swiglu_bytes =
      8 * tokens * static_cast<double>(b.traits.mlp.size) * static_cast<double>(DTypeBytes(b.act));
  return {split.matmuls(), StateBytes(b) / bandwidth * 1e3,
          attention_flops / flops_a_ms * (769.0 / 425 + 2.5 * 769.0 / 302),
          swiglu_bytes / bandwidth * 1e3};
}

int Main(int argc, char** argv) {
  std::map<std::string, std::string> known = CommonFlags();
  known["bits"] = "bits a weight, 2..8 (4)";
  known["group_size"] = "columns a group; 0 is the whole row (0)";
  known["seq_len"] = "tokens a sequence (2048)";
  known["batch"] = "sequences a step (1)";
  known["state"] = "f32 or bf16: the optimizer's moments (f32)";
  known["steps"] = "steps timed (100)";
  known["split"] = "1: time every kind of op by itself, and the floor (1)";
  known["overlap"] = "0: updates run in line on CUDA, not beside the backward pass (1)";
  const Flags flags(argc, argv, "Times one optimization step of block reconstruction.", known);
  std::unique_ptr<Backend> backend = BackendOf(flags);
#ifdef UNIQUANF_HAVE_CUDA
  if (backend->kind() == DeviceKind::kCuda) {
    CudaBackend::From(backend.get())->set_overlap(flags.Number("overlap", 1) != 0);
  }
#endif
  Bench b{};
  b.backend = backend.get();
  b.traits = ShapeOf(flags);
  b.spec = BuildBlock(b.traits);
  b.act = ActOf(flags, *backend);
  SetUp(flags, &b);
  const uint64_t peak = backend->memory().peak_allocated_bytes;
  std::unique_ptr<CapturedSequence> sequence;
  int64_t step = 0;
  const int steps = static_cast<int>(flags.Number("steps", 100));
  const int calls = std::max(1, steps / 10);
  Meter meter(backend.get(), flags);
  const Timing timing = meter.Measure(
      [&] {
        b.SetParams(step++);
        Check(backend->RunCaptured(&sequence, [&] { b.IssueStep(); }));
      },
      /*rounds=*/10, calls);
  const double caches = 3.0 * static_cast<double>(b.x_fp.size_bytes());
  std::printf("device        %s\n", backend->description().c_str());
  std::printf("block         %lld wide, MLP %lld, %d/%d heads of %d; %lld x %lld tokens, %s\n",
              static_cast<long long>(b.traits.hidden_size),
              static_cast<long long>(b.traits.mlp.size), b.traits.attention.num_heads,
              b.traits.attention.num_kv_heads, b.traits.attention.head_dim,
              static_cast<long long>(b.batch), static_cast<long long>(b.seq_len), DTypeName(b.act));
  std::printf("bits %d, groups of %lld (0: a row), moments in %s\n", b.bits,
              static_cast<long long>(flags.Number("group_size", 0)),
              b.states[0].packs_codes() ? "bf16" : "f32");
  std::printf("step          %s\n", TimingText(timing).c_str());
  if (backend->kind() == DeviceKind::kCuda) {
    std::printf("launches      %4d a step\n", NumLaunches(&b));
  }
  std::printf("peak memory   %8.2f GiB without the cached activations\n",
              (static_cast<double>(peak) - caches) / (1 << 30));
  if (flags.Number("split", 1) == 0) return 0;
  const double bandwidth = meter.CopyBandwidth();
  const Split split = MeasureSplit(&b, &meter);
  const std::pair<const char*, const Timing*> rows[] = {
      {"forward products", &split.forward},
      {"input gradients", &split.input_gradient},
      {"weight gradients", &split.weight_gradient},
      {"update", &split.update},
      {"attention forward", &split.attention_forward},
      {"attention backward", &split.attention_backward},
      {"norms", &split.norms},
      {"rotary", &split.rope},
      {"SwiGLU", &split.swiglu},
      {"mixing, loss, sums", &split.rest}};
  for (const auto& [name, row] : rows) std::printf("  %-20s %s\n", name, TimingText(*row).c_str());
  std::printf("  %-20s %8.3f ms\n", "sum of the above", split.sum());
  std::printf("copy          %8.2f TB/s, read and written\n", bandwidth * 1e-12);
  const Floor floor = FloorOf(b, split, bandwidth);
  std::printf(
      "floor         %8.3f ms = products %.3f + state %.3f (%.2f GB) + attention %.3f + SwiGLU "
      "%.3f\n",
      floor.sum(), floor.products, floor.state, StateBytes(b) * 1e-9, floor.attention,
      floor.swiglu);
  std::printf("step / floor  %8.3f\n", timing.ms / floor.sum());
  return 0;
}

}  // namespace
}  // namespace uniquanf::bench

int main(int argc, char** argv) { return uniquanf::bench::Main(argc, argv); }
