// The one table of a spec's fields, in canonical order. Flags, JSON, Validate, the reference page
// (docs/SPEC.md) and, by the reflection of protocol buffers, the API all walk it; so a new scalar
// field is a member (quantization_spec.h), a row here, a line in job.proto, and its use.
//
// A walk is a visitor with one call operator a kind of field; a visitor that lacks one does not
// compile. Thread safety: constants.
#ifndef UNIQUANF_COMMON_SPEC_SPEC_FIELDS_H_
#define UNIQUANF_COMMON_SPEC_SPEC_FIELDS_H_

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/base/enum_rows.h"
#include "common/spec/quantization_spec.h"

namespace uniquanf {

// A heading of the help and of the reference page.
enum class SpecSection { kWhat, kHow, kOptimization, kDistillation, kText };
inline constexpr EnumRow<SpecSection> kSpecSections[] = {
    {SpecSection::kWhat, "What to quantize"},
    {SpecSection::kHow, "How"},
    {SpecSection::kOptimization, "Calibration and optimization"},
    {SpecSection::kDistillation, "Distillation"},
    {SpecSection::kText, "Text, where calibration or evaluation are no token files"},
};

inline constexpr EnumRow<LayerSchedule> kLayerSchedules[] = {
    {LayerSchedule::kSequential, "sequential", "layer after layer"},
    {LayerSchedule::kPipelined, "pipelined",
     "layers overlap on several workers or devices, at nearly the same accuracy"},
};

inline constexpr EnumRow<Initialization> kInitializations[] = {
    {Initialization::kActivationAware, "activation_aware",
     "the best for each group of the method's own start and clipped uniform grids, by the error "
     "weighted with the layer's inputs; a layer that training did not improve keeps it"},
    {Initialization::kPlain, "plain", "the method's own start"},
};

inline constexpr EnumRow<OptimizerState> kOptimizerStates[] = {
    {OptimizerState::kF32, "f32", "32 bits"},
    {OptimizerState::kBf16, "bf16",
     "16 bits, rounded at random: a quarter less device memory and shorter steps on a GPU"},
};

inline constexpr EnumRow<EvaluationBaseline> kEvaluationBaselines[] = {
    {EvaluationBaseline::kNone, "no_baseline", "nothing"},
    {EvaluationBaseline::kRtn, "round_to_nearest",
     "that at the same bits and groups, quantized and evaluated for it"},
};

inline constexpr EnumRow<TextPacking> kTextPackings[] = {
    {TextPacking::kConcat, "concat", "one after the other, cut into sequences"},
    {TextPacking::kTruncate, "truncate",
     "each document (line of plain text) makes one sequence, shorter ones are dropped"},
};

inline constexpr EnumRow<TextChatTemplate> kTextChatTemplates[] = {
    {TextChatTemplate::kConversations, "conversations",
     "they go through the model's chat template"},
    {TextChatTemplate::kAlways, "always", "so does plain text, as what a user says"},
    {TextChatTemplate::kNever, "never", "conversations give their contents as text"},
};

inline constexpr EnumRow<TextSpecialTokens> kTextSpecialTokens[] = {
    {TextSpecialTokens::kAdd, "add",
     "what the tokenizer adds to plain text, for its beginning say"},
    {TextSpecialTokens::kOmit, "omit", "none are added"},
};

inline constexpr EnumRow<Levels> kLevels[] = {
    {Levels::kAny, "any", "the method's own"},
    {Levels::kUniform, "uniform",
     "a uniform grid with a whole zero point, so that exports to formats that hold such grids are "
     "exact (flexround, rtn, gptq, awq)"},
    {Levels::kSymmetric, "symmetric", "the same with the zero point in the middle"},
};

inline constexpr EnumRow<Folding> kFoldings[] = {
    {Folding::kAuto, "auto",
     "channels whose inputs stand out are scaled by exact powers of two, which norms and the "
     "layers "
     "before take back"},
    {Folding::kOff, "off", "never"},
};

// In every row: `name` is the field's in JSON and in the proto (where an enum's values are the
// names in capitals); the flag is FlagName(name). `help` completes "FIELD: ...".

// Text of at most kMaxSpecTextBytes without control characters.
struct TextField {
  enum Kind { kUri, kName };  // a URI names no user and no port
  const char* name;
  std::string QuantizationSpec::*member;
  Kind kind;
  bool required;
  SpecSection section;
  const char* metavar;
  const char* help;
  bool later = false;  // as in NumberField
};

// T: int, int64_t, uint64_t or double. Allowed: min to max, both too.
template <typename T>
struct NumberField {
  const char* name;
  T QuantizationSpec::*member;
  T min, max;
  const char* zero;  // what 0 means where that is no plain number, or ""
  SpecSection section;
  const char* help;
  bool later = false;     // left out of the JSON where it has its default
  const char* word = "";  // stands for max in JSON and in the flag, where there is one
};

// A number of bytes; its flag also takes units.
struct BytesField : NumberField<int64_t> {};

template <typename Row, typename E>
struct EnumField {
  const char* name;
  E QuantizationSpec::*member;
  absl::Span<const Row> rows;
  SpecSection section;
  const char* help;
  bool later = false;  // as in NumberField
};

// The list of overrides; each one's fields: VisitOverrideFields.
struct OverridesField {
  const char* name;
  std::vector<ModuleOverride> QuantizationSpec::*member;
  size_t max_count;
  SpecSection section;
  const char* flag;  // takes one at a time
  const char* help;
};

// The list of calibration files beside the first, each with its share.
struct SharesField {
  const char* name;
  std::vector<CalibrationShare> QuantizationSpec::*member;
  size_t max_count;
  int64_t max_sequences;  // of one
  SpecSection section;
  const char* flag;  // takes one at a time: FILE:num=N
  const char* help;
  bool later = false;  // as in NumberField
};

// The fields of an override. A number has a value that means "the job's": written in JSON, left out
// in the proto and in the flag, whose word for the field is `key`.
struct OverridePattern {
  const char* name;
  std::string ModuleOverride::*member;
  const char* help;
};
template <typename T>
struct OverrideNumber {
  const char* name;
  const char* key;
  T ModuleOverride::*member;
  T the_jobs;
  T min, max;
  const char* zero;
  const char* help;
};
struct OverrideSwitch {
  const char* name;
  const char* key;
  bool ModuleOverride::*member;
  const char* help;
};

inline constexpr size_t kMaxSpecTextBytes = 4096;
inline constexpr int kMinBits = 2, kMaxBits = 8;
inline constexpr int64_t kMaxGroupSize = int64_t{1} << 20;

template <typename Visitor>
void VisitSpecFields(Visitor&& v) {
  using S = QuantizationSpec;
  using Section = SpecSection;
  constexpr int64_t kMaxTokens = int64_t{1} << 20;

  v(TextField{"model_uri", &S::model_uri, TextField::kUri, true, Section::kWhat, "DIR",
              "Hugging Face checkpoint directory: file:///DIR or s3://BUCKET/PREFIX; programs on "
              "this machine take a path too"});
  v(TextField{"calibration_uri", &S::calibration_uri, TextField::kUri, false, Section::kWhat,
              "FILE",
              "safetensors file with an integer tensor input_ids [num_samples, sequence_length]; "
              "required unless the method needs none, or the model writes its own (self_samples)"});
  v(TextField{"output_uri", &S::output_uri, TextField::kUri, true, Section::kWhat, "DIR",
              "where the artifact goes; must not hold anything yet"});
  v(TextField{"evaluation_uri", &S::evaluation_uri, TextField::kUri, false, Section::kWhat, "FILE",
              "safetensors file with one-dimensional integer token tensors, for perplexity before "
              "and after"});
  v(TextField{"evaluation_entry", &S::evaluation_entry, TextField::kName, false, Section::kWhat,
              "NAME", "tensor of the evaluation file to use"});
  v(NumberField<int64_t>{"evaluation_window", &S::evaluation_window, 2, kMaxTokens, "",
                         Section::kWhat, "tokens in an evaluation window"});
  v(NumberField<int64_t>{"evaluation_max_windows", &S::evaluation_max_windows, 0, 1000000000, "all",
                         Section::kWhat, "evaluation windows used"});
  v(EnumField<EnumRow<EvaluationBaseline>, EvaluationBaseline>{
      "evaluation_baseline", &S::evaluation_baseline, kEvaluationBaselines, Section::kWhat,
      "what the result is compared with besides the original", /*later=*/true});
  v(NumberField<double>{"max_perplexity_increase", &S::max_perplexity_increase, 0, 1e6, "no limit",
                        Section::kWhat,
                        "the job fails (QUALITY_TARGET) when perplexity grows by more than this "
                        "part of the original's: 0.05 is 5%; needs evaluation_uri",
                        /*later=*/true});

  v(EnumField<MethodRow, QuantizationMethod>{"method", &S::method, kQuantizationMethods,
                                             Section::kHow, "how weights are quantized"});
  v(NumberField<int>{"bits", &S::bits, kMinBits, kMaxBits, "", Section::kHow, "bits a weight"});
  v(NumberField<double>{"average_bits", &S::average_bits, 0, 16, "all modules have the same bits",
                        Section::kHow,
                        "stored bits a quantized weight, scales included, spread over the modules "
                        "by what they cost; never more",
                        /*later=*/true});
  v(BytesField{{"artifact_size", &S::artifact_size, 0, int64_t{1} << 50,
                "all modules have the same bits", Section::kHow,
                "bytes of the artifact's files, spread likewise; never more",
                /*later=*/true}});
  v(NumberField<int64_t>{
      "group_size", &S::group_size, 0, kMaxGroupSize, "the row", Section::kHow,
      "weights of a row that share scales; divides every quantized layer's input width"});
  v(EnumField<EnumRow<Levels>, Levels>{"levels", &S::levels, kLevels, Section::kHow,
                                       "which levels a group may have", /*later=*/true});
  v(OverridesField{"overrides", &S::overrides, 10000, Section::kHow, "override",
                   "other settings for the modules whose full name matches the pattern"});

  v(NumberField<int64_t>{"self_samples", &S::self_samples, 0, 1000000, "none",
                         Section::kOptimization,
                         "sequences that the original model writes itself: from beginnings of the "
                         "calibration's, or where no calibration is given alone and as that",
                         /*later=*/true});
  v(NumberField<int64_t>{"num_samples", &S::num_samples, 0, 1000000, "all in the file",
                         Section::kOptimization,
                         "calibration sequences used; the default: at most so many"});
  v(NumberField<int64_t>{
      "sequence_length", &S::sequence_length, 0, kMaxTokens, "the file's width",
      Section::kOptimization,
      "tokens of each sequence used; the default: at most so many, as the file and the model "
      "have"});
  v(NumberField<int>{"epochs", &S::epochs, 0, 10000, "no reconstruction", Section::kOptimization,
                     "passes over the samples for each layer"});
  v(NumberField<int>{"batch_size", &S::batch_size, 1, 64, "", Section::kOptimization,
                     "sequences a step; at most num_samples"});
  v(NumberField<double>{"input_prob", &S::input_prob, 0, 1, "layers are independent of each other",
                        Section::kOptimization,
                        "probability of an input element from the quantized model"});
  v(NumberField<double>{"uniform_learning_rate", &S::uniform_learning_rate, 0, 1, "",
                        Section::kOptimization,
                        "learning rate of the uniform part (step size and rounding)"});
  v(NumberField<double>{"binary_learning_rate", &S::binary_learning_rate, 0, 1, "",
                        Section::kOptimization, "learning rate of the binary scales"});
  v(EnumField<EnumRow<Initialization>, Initialization>{"initialization", &S::initialization,
                                                       kInitializations, Section::kOptimization,
                                                       "where each group's quantizer starts"});
  v(EnumField<EnumRow<Folding>, Folding>{"folding", &S::folding, kFoldings, Section::kOptimization,
                                         "outlier channels", /*later=*/true});
  v(NumberField<int>{"grid_steps", &S::grid_steps, 0, 1000, "", Section::kOptimization,
                     "grid search steps G of the initialization"});
  v(NumberField<int>{"alternating_rounds", &S::alternating_rounds, 0, 1000, "",
                     Section::kOptimization, "alternating update rounds T of the initialization"});
  v(NumberField<int>{"remap_period", &S::remap_period, 1, 1000000, "", Section::kOptimization,
                     "forward passes between remappings of the codes"});
  v(NumberField<uint64_t>{"seed", &S::seed, 0, std::numeric_limits<uint64_t>::max(), "",
                          Section::kOptimization, "seed of every random choice"});
  v(EnumField<EnumRow<LayerSchedule>, LayerSchedule>{"schedule", &S::schedule, kLayerSchedules,
                                                     Section::kOptimization,
                                                     "order of the layers' optimization"});
  v(NumberField<int>{"pipeline_rounds", &S::pipeline_rounds, 1, 64, "", Section::kOptimization,
                     "parts that a pipelined layer's epochs are cut into; as many workers can work "
                     "at once"});
  v(EnumField<EnumRow<OptimizerState>, OptimizerState>{
      "optimizer_state", &S::optimizer_state, kOptimizerStates, Section::kOptimization,
      "the optimizer's moments of the weights' scales", /*later=*/true});

  v(NumberField<int>{"distill_window", &S::distill_window, 0, 100000, "no distillation",
                     Section::kDistillation,
                     "layers that are trained together against the original model's output, in a "
                     "task, after all layers are quantized; as many as the model has, or more: all "
                     "in one task",
                     /*later=*/true, /*word=*/"all"});
  v(TextField{"distillation_uri", &S::distillation_uri, TextField::kUri, false,
              Section::kDistillation, "FILE",
              "further sequences to distill on, beside the calibration's, in any form that it may "
              "have; some 2,000 are worth most of what distillation brings",
              /*later=*/true});
  v(NumberField<int>{"distill_steps", &S::distill_steps, 1, 1000000, "", Section::kDistillation,
                     "optimizer steps of each window",
                     /*later=*/true});
  v(NumberField<int>{"distill_batch_size", &S::distill_batch_size, 1, 64, "",
                     Section::kDistillation, "sequences a step",
                     /*later=*/true});
  v(NumberField<double>{"distill_learning_rate", &S::distill_learning_rate, 0, 1, "",
                        Section::kDistillation,
                        "learning rate of the weights' latents, in steps of their grid",
                        /*later=*/true});
  v(NumberField<double>{"distill_scale_learning_rate", &S::distill_scale_learning_rate, 0, 1, "",
                        Section::kDistillation,
                        "learning rate of scale factors, shifts and norms' gains",
                        /*later=*/true});

  v(SharesField{"calibration_mix", &S::calibration_mix, 64, 1000000, Section::kText,
                "calibration-mix",
                "a further text file and how many sequences of num_samples it gives; calibration "
                "gives the rest",
                /*later=*/true});
  v(TextField{"text_field", &S::text_field, TextField::kName, false, Section::kText, "NAME",
              "member of each JSON sample that holds it; none: the first there is of messages, "
              "conversations, text, content, prompt, input_ids",
              /*later=*/true});
  v(EnumField<EnumRow<TextPacking>, TextPacking>{"text_packing", &S::text_packing, kTextPackings,
                                                 Section::kText, "documents to sequences",
                                                 /*later=*/true});
  v(TextField{"text_separator", &S::text_separator, TextField::kName, false, Section::kText, "TEXT",
              "between documents that are put one after the other: eos or bos (the model's "
              "token), none, or text, in which \\n is a line break",
              /*later=*/true});
  v(NumberField<int64_t>{"text_min_tokens", &S::text_min_tokens, 1, kMaxTokens, "", Section::kText,
                         "documents of fewer tokens are dropped",
                         /*later=*/true});
  v(EnumField<EnumRow<TextChatTemplate>, TextChatTemplate>{
      "text_chat_template", &S::text_chat_template, kTextChatTemplates, Section::kText,
      "what goes through the chat template",
      /*later=*/true});
  v(EnumField<EnumRow<TextSpecialTokens>, TextSpecialTokens>{
      "text_special_tokens", &S::text_special_tokens, kTextSpecialTokens, Section::kText,
      "special tokens around plain text",
      /*later=*/true});
  v(NumberField<uint64_t>{"text_shuffle_seed", &S::text_shuffle_seed, 0,
                          std::numeric_limits<uint64_t>::max(), "the files' order", Section::kText,
                          "order of the documents within each file",
                          /*later=*/true});
}

template <typename Visitor>
void VisitOverrideFields(Visitor&& v) {
  using O = ModuleOverride;
  v(OverridePattern{"pattern", &O::pattern,
                    "glob over the full name: * any characters, ? one; the first match wins"});
  v(OverrideNumber<int>{"bits", "bits", &O::bits, O::kJobsBits, kMinBits, kMaxBits, "",
                        "bits a weight"});
  v(OverrideNumber<int64_t>{"group_size", "group", &O::group_size, O::kJobsGroupSize, 0,
                            kMaxGroupSize, "the row", "weights of a row that share scales"});
  v(OverrideSwitch{"full_precision", "full", &O::full_precision, "not quantized at all"});
}

// "evaluation_window" -> "evaluation-window"; a place's "_uri" is left out: "model".
std::string FlagName(absl::string_view field);

// "2 to 8", "0 to 1000 (0: all)".
template <typename T>
std::string SpecRange(T min, T max, absl::string_view zero) {
  return absl::StrCat(min, " to ", max,
                      zero.empty() ? std::string() : absl::StrCat(" (0: ", zero, ")"));
}
// The same with the word for max: "0 to 1000 (0: none), or all".
template <typename T>
std::string SpecRange(const NumberField<T>& field) {
  return absl::StrCat(SpecRange(field.min, field.max, field.zero),
                      *field.word == '\0' ? "" : absl::StrCat(", or ", field.word));
}

// The reference page docs/SPEC.md.
std::string SpecMarkdown();

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_SPEC_SPEC_FIELDS_H_
