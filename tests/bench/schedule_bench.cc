// What a schedule costs in perplexity: quantizes a model in memory under any sequence of rounds and
// evaluates it. The figures in worker/task/README.md come from here.
//
// A schedule is rounds joined by '+', each EPOCHS,RATE,PROB,INPUTS: passes, factor on the learning
// rates, input_prob, and where x_q comes from: fp (none), s (this round's stored layers:
// sequential), j (the stored layers of the round before: parallel). A round goes on from the state
// of the one before; a '!' in front starts from the initialization again. A '~' in front of a
// schedule: one cosine and one optimizer over all its rounds, instead of one for each.
#include <array>
#include <chrono>
#include <cstdio>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "common/artifact/layout.h"
#include "common/base/random.h"
#include "tests/bench/bench_support.h"
#include "worker/model/language_model.h"
#include "worker/quant/quantizer.h"
#include "worker/quant/reconstruct.h"
#include "worker/task/tokens.h"

namespace uniquanf::bench {
namespace {

struct Round {
  double epochs = 0, rate = 1, prob = 0;
  std::string inputs;
  bool fresh = false;
};

std::vector<Round> ParseSchedule(const std::string& text) {
  std::vector<Round> rounds;
  for (absl::string_view part : absl::StrSplit(text, '+')) {
    Round round;
    round.fresh = rounds.empty();
    if (!part.empty() && part[0] == '!') {
      round.fresh = true;
      part.remove_prefix(1);
    }
    const std::vector<std::string> fields = absl::StrSplit(part, ',');
    if (fields.size() != 4 || !absl::SimpleAtod(fields[0], &round.epochs) ||
        !absl::SimpleAtod(fields[1], &round.rate) || !absl::SimpleAtod(fields[2], &round.prob)) {
      std::fprintf(stderr, "a round is EPOCHS,RATE,PROB,INPUTS\n");
      std::exit(2);
    }
    round.inputs = fields[3];
    rounds.push_back(round);
  }
  return rounds;
}

// The source with other linear weights.
class StoredModel : public Checkpoint {
 public:
  StoredModel(const Checkpoint* source, const std::vector<HostBlock>* blocks)
      : source_(source), blocks_(blocks) {}
  const ModelConfig& config() const override { return source_->config(); }
  const std::string& config_json() const override { return source_->config_json(); }
  bool quantized() const override { return true; }
  const std::shared_ptr<ObjectStore>& store() const override { return source_->store(); }
  absl::StatusOr<HostBlock> LoadBlock(int layer) const override { return (*blocks_)[layer]; }
  absl::Status LoadEmbeddingRows(absl::Span<const int32_t> ids, float* out) const override {
    return source_->LoadEmbeddingRows(ids, out);
  }
  absl::StatusOr<std::vector<float>> LoadLmHead() const override { return source_->LoadLmHead(); }
  absl::StatusOr<std::vector<float>> LoadOuter(absl::string_view name) const override {
    return source_->LoadOuter(name);
  }
  absl::StatusOr<SourceTensor> FindRaw(absl::string_view name) const override {
    return source_->FindRaw(name);
  }
  std::vector<std::string> TensorNames() const override { return source_->TensorNames(); }
  const std::vector<ManifestDequantized>& dequantized() const override {
    return source_->dequantized();
  }
  absl::Status CheckTiedHead() const override { return source_->CheckTiedHead(); }

 private:
  const Checkpoint* const source_;
  const std::vector<HostBlock>* const blocks_;
};

class Study {
 public:
  explicit Study(const Flags& flags)
      : backend_(BackendOf(flags)), act_(ActOf(flags, *backend_)), seed_(flags.Number("seed", 0)) {
    checkpoint_ = Take(Checkpoint::Open(Take(OpenObjectStore(flags.Text("model", ""))), false));
    const ModelConfig& config = checkpoint_->config();
    calibration_ =
        Take(ReadCalibrationTokens(flags.Text("calibration", ""), 0, 0, config.vocab_size));
    evaluation_ = Take(ReadEvaluationTokens(flags.Text("evaluation", ""), "valid", 1024, 200 * 1024,
                                            config.vocab_size));
    rope_ = Take(MakeRopeTables(backend_.get(), config.ropes, calibration_.sequence_length));
    SequenceBuffer x =
        Take(EmbedSequences(backend_.get(), *checkpoint_, act_, kPlacement, calibration_.ids,
                            calibration_.num_samples, calibration_.sequence_length));
    for (int layer = 0; layer < config.num_layers; ++layer) {
      original_.push_back(Take(checkpoint_->LoadBlock(layer)));
      x_fp_.push_back(Take(x.Clone()));
      Through(layer, original_[layer], &x);
    }
    x_fp_.push_back(std::move(x));
  }

  double Run(int bits, const std::vector<Round>& rounds, bool one_cosine) {
    bits_ = bits;
    double total = 0;
    for (const Round& round : rounds) total += round.epochs;
    num_steps_ = one_cosine ? Steps(total) : 0;
    first_step_ = 0;
    const int num_layers = checkpoint_->config().num_layers;
    states_.clear();
    states_.resize(num_layers);
    std::vector<HostBlock> stored(num_layers);
    for (size_t r = 0; r < rounds.size(); ++r) {
      SequenceBuffer x_q = Take(x_fp_[0].Clone());
      for (int layer = 0; layer < num_layers; ++layer) {
        HostBlock block = RunLayer(layer, static_cast<int>(r), rounds[r], x_q);
        if (rounds[r].inputs == "j") Through(layer, stored[layer], &x_q);
        stored[layer] = std::move(block);
        if (rounds[r].inputs == "s") Through(layer, stored[layer], &x_q);
      }
      first_step_ += Steps(rounds[r].epochs);
    }
    const StoredModel model(checkpoint_.get(), &stored);
    PerplexityOptions options;
    options.act = act_;
    return Take(EvaluatePerplexity(backend_.get(), model, evaluation_, options)).perplexity;
  }

 private:
  static constexpr auto kPlacement = SequenceBuffer::Placement::kDevice;

  int64_t Steps(double epochs) const {
    return static_cast<int64_t>(epochs * calibration_.num_samples + 0.5);
  }

  void Through(int layer, const HostBlock& block, SequenceBuffer* x) {
    const BlockSpec& spec = checkpoint_->config().blocks[layer];
    const BlockWeights weights = Take(UploadBlock(backend_.get(), spec, act_, block));
    Check(ForwardBlock(backend_.get(), spec, rope_, weights, *x, x, StopToken()));
  }

  HostBlock RunLayer(int layer, int round_index, const Round& round, const SequenceBuffer& x_q) {
    const BlockSpec& spec = checkpoint_->config().blocks[layer];
    BlockWeights weights = Take(UploadBlock(backend_.get(), spec, act_, original_[layer]));
    std::vector<quant::QuantizerState*> states(spec.num_linears());
    states_[layer].resize(spec.num_linears());
    for (int i = 0; i < spec.num_linears(); ++i) {
      std::optional<quant::QuantizerState>& state = states_[layer][i];
      if (round.fresh) {
        Tensor& stored = weights[spec.linears[i]];
        Tensor weight = std::move(stored);
        stored = Take(Tensor::Allocate(backend_.get(), act_, weight.shape()));
        const int64_t width = weight.dim(1);
        state = Take(quant::NewQuantizerState(backend_.get(), std::move(weight), bits_, width, {}));
        quant::InitializeUnified(backend_.get(), {}, &*state);
      } else if (num_steps_ == 0) {
        for (Tensor* moment : {&state->m_log_delta, &state->v_log_delta, &state->m_log_scale_group,
                               &state->v_log_scale_group, &state->m_log_scale_weight,
                               &state->v_log_scale_weight, &state->m_alpha, &state->v_alpha}) {
          Check(backend_->FillZero(moment->data(), moment->size_bytes()));
        }
      }
      states[i] = &*state;
    }
    quant::ReconstructOptions options;
    options.num_steps = num_steps_ > 0 ? num_steps_ : Steps(round.epochs);
    if (num_steps_ > 0) {
      round_index = 0;  // one order of sequences, too
      options.first_step = first_step_;
      options.end_step = first_step_ + Steps(round.epochs);
    }
    options.input_prob = round.inputs == "fp" ? 0 : round.prob;
    options.uniform_learning_rate *= round.rate;
    options.binary_learning_rate *= round.rate;
    const Philox4 words = PhiloxAt(seed_, 0x6C61796572 + (uint64_t(round_index) << 48), layer);
    options.seed = static_cast<uint64_t>(words.v[1]) << 32 | words.v[0];
    quant::BlockActivations activations;
    activations.x_fp = &x_fp_[layer];
    if (options.input_prob > 0) activations.x_q = &x_q;
    activations.y_fp = &x_fp_[layer + 1];
    Take(quant::ReconstructBlock(backend_.get(), spec, rope_, options, activations, &weights,
                                 states, nullptr, nullptr));
    HostBlock block = original_[layer];
    for (int i = 0; i < spec.num_linears(); ++i) {
      Dequantize(Pack(Take(quant::Unify(backend_.get(), *states[i]))),
                 block[spec.linears[i]].data());
    }
    return block;
  }

  std::unique_ptr<Backend> backend_;
  const DType act_;
  const uint64_t seed_;
  int bits_ = 0;
  int64_t num_steps_ = 0, first_step_ = 0;
  std::unique_ptr<Checkpoint> checkpoint_;
  CalibrationTokens calibration_;
  std::vector<int32_t> evaluation_;
  RopeTables rope_;
  std::vector<HostBlock> original_;
  std::vector<SequenceBuffer> x_fp_;  // inputs of every layer, and the last one's output
  std::vector<std::vector<std::optional<quant::QuantizerState>>> states_;
};

int Main(int argc, char** argv) {
  const std::map<std::string, std::string> known = {
      {"model", "checkpoint folder (needed)"},
      {"calibration", "calibration tokens (needed)"},
      {"evaluation", "evaluation tokens, entry valid (needed)"},
      {"bits", "a weight (3)"},
      {"seed", "of every random choice (0)"},
      {"schedules", "separated by '/' (sequential and independent)"},
      {"device", "cuda (default where there is one) or cpu"},
      {"act", "bf16 (default on CUDA) or f32"}};
  const Flags flags(argc, argv, "Perplexity that schedules cost.", known);
  Study study(flags);
  const int bits = static_cast<int>(flags.Number("bits", 3));
  double first = 0;
  for (const std::string& schedule : std::vector<std::string>(
           absl::StrSplit(flags.Text("schedules", "5,1,0.5,s/5,1,0,fp"), '/'))) {
    const auto start = std::chrono::steady_clock::now();
    const bool one_cosine = schedule[0] == '~';
    const double perplexity =
        study.Run(bits, ParseSchedule(schedule.substr(one_cosine ? 1 : 0)), one_cosine);
    if (first == 0) first = perplexity;
    std::printf("%d bits  %-40s %.4f  %+.2f%%  %.0f s\n", bits, schedule.c_str(), perplexity,
                100 * (perplexity / first - 1),
                std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace uniquanf::bench

int main(int argc, char** argv) { return uniquanf::bench::Main(argc, argv); }
