#include "worker/model/dequantize.h"

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"
#include "worker/model/tensor_decoders.h"

namespace uniquanf {
namespace {

constexpr int64_t kMicroscalingGroup = 32;
absl::Status DoesNotFit(absl::string_view message) {
  return InvalidInput("INVALID_QUANTIZATION",
                      absl::StrCat(message,
                                   "; is the checkpoint complete, and its config.json the "
                                   "one that belongs to it?"));
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}
std::string Described(const SourceTensor& tensor) {
  return absl::StrCat("tensor ", tensor.info.name, " ", SafetensorsDTypeName(tensor.info.dtype),
                      " ", ShapeText(tensor.info.shape), " in ", tensor.file->key());
}

int64_t CeilDiv(int64_t a, int64_t b) { return a / b + (a % b != 0 ? 1 : 0); }

class Dequantizer {
 public:
  Dequantizer(const SourceQuantization& quantization, TensorMap* tensors)
      : quantization_(quantization), tensors_(*tensors) {}

  absl::StatusOr<std::vector<ManifestDequantized>> Run() {
    std::vector<std::string> names;
    for (const auto& [name, tensor] : tensors_) names.push_back(name);
    for (const std::string& name : names) {
      if (absl::EndsWith(name, ".weight_packed")) {
        if (quantization_.method == "compressed-tensors") UQ_RETURN_IF_ERROR(Packed(name));
      } else if (absl::EndsWith(name, "_blocks") && Companion(name, "_blocks", "_scales")) {
        UQ_RETURN_IF_ERROR(Microscaled(name));
      } else {
        UQ_RETURN_IF_ERROR(Scaled(name));
      }
    }
    if (!quantization_.method.empty()) RemoveOtherScales();
    return std::move(done_);
  }

 private:
  // The tensor that is called as `name` with another ending; null: there is none.
  const SourceTensor* Companion(absl::string_view name, absl::string_view ending,
                                absl::string_view other) const {
    const auto it = tensors_.find(absl::StrCat(absl::StripSuffix(name, ending), other));
    return it == tensors_.end() ? nullptr : &it->second;
  }

  // `tensor` takes the place of those that it is made of.
  absl::Status Replace(const std::vector<std::string>& parts, SourceTensor tensor,
                       absl::string_view form) {
    const std::string name = tensor.info.name;
    const bool is_part = std::find(parts.begin(), parts.end(), name) != parts.end();
    if (!is_part && tensors_.count(name) > 0) {
      return DoesNotFit(
          absl::StrCat("tensor ", name, " is there twice: as it is, and quantized in ", parts[0]));
    }
    for (const std::string& part : parts) {
      tensor.stored_bytes += tensors_[part].info.size_bytes;
      tensors_.erase(part);
    }
    UQ_ASSIGN_OR_RETURN(tensor.info.size_bytes, TensorBytes(tensor.info.dtype, tensor.info.shape));
    const std::string dtype(SafetensorsDTypeName(tensor.info.dtype));
    tensors_[name] = std::move(tensor);
    for (ManifestDequantized& entry : done_) {
      if (entry.form == form && entry.dtype == dtype) {
        ++entry.num_tensors;
        return absl::OkStatus();
      }
    }
    done_.push_back({std::string(form), dtype, 1});
    return absl::OkStatus();
  }

  SafetensorsDType ResultType(const SourceTensor& scales) const {
    return scales.info.dtype == SafetensorsDType::kF16 ||
                   scales.info.dtype == SafetensorsDType::kBF16
               ? scales.info.dtype
               : quantization_.dtype;
  }

  // How numbers of this shape belong to the elements of `matrices` [.., N, K]; nullopt: not at all.
  // `form` says it in words.
  std::optional<SharedNumbers> Share(const SourceTensor& numbers, const ScaledMatrices& matrices,
                                     bool groups, std::string* form) const {
    SharedNumbers shared;
    shared.tensor = numbers;
    const int64_t n = matrices.rows, k = matrices.columns;
    std::vector<int64_t> shape = numbers.info.shape;
    const int64_t size = numbers.info.num_elements();
    shared.row_block = n;
    shared.column_block = k;
    if (size == 1) {
      shared.one_for_all = true;
      *form = "a scale a tensor";
      return shared;
    }
    if (shape.size() == 1 && matrices.count == 1 && shape[0] == n) shape.push_back(1);
    if (shape.size() == 1 && shape[0] == matrices.count) shape = {shape[0], 1, 1};
    if (shape.size() < 2) return std::nullopt;
    shared.rows = shape[shape.size() - 2];
    shared.columns = shape.back();
    if (shared.rows < 1 || shared.columns < 1) return std::nullopt;
    const int64_t count = size / (shared.rows * shared.columns);
    shared.one_for_all = count == 1 && matrices.count > 1;
    if (count != matrices.count && !shared.one_for_all) return std::nullopt;
    for (const SourceQuantization::Block& block : quantization_.blocks) {
      if (shared.rows != CeilDiv(n, block.rows) || shared.columns != CeilDiv(k, block.columns)) {
        continue;
      }
      shared.row_block = block.rows;
      shared.column_block = block.columns;
      *form = absl::StrCat("a scale for ", block.rows, " x ", block.columns);
      return shared;
    }
    const bool by_row = shared.rows == n, by_column = shared.columns == k;
    if ((!by_row && shared.rows != 1) ||
        (shared.columns != 1 && !by_column && (!groups || k % shared.columns != 0))) {
      return std::nullopt;
    }
    shared.row_block = by_row ? 1 : n;
    shared.column_block = k / shared.columns;
    *form = shared.columns == 1 ? (by_row ? "a scale a row" : "a scale a matrix")
            : by_column         ? "a scale a column"
                        : absl::StrCat("a scale for ", shared.column_block, " columns of a row");
    return shared;
  }

  absl::Status CheckScales(const SourceTensor& weights, const SourceTensor& scales) const {
    const SafetensorsDType dtype = scales.info.dtype;
    if (IsFullPrecision(dtype) || dtype == SafetensorsDType::kF8E8M0) return absl::OkStatus();
    return DoesNotFit(absl::StrCat(Described(scales), " should hold the scales of ",
                                   weights.info.name, "; they are F32, F16, BF16 or F8_E8M0"));
  }
  absl::Status WrongScales(const SourceTensor& weights, const SourceTensor& scales) const {
    std::string blocks = "or for a group of columns";
    if (!quantization_.blocks.empty()) {
      const SourceQuantization::Block& block = quantization_.blocks[0];
      blocks = absl::StrCat("or for ", block.rows, " x ", block.columns);
    }
    return DoesNotFit(absl::StrCat(Described(scales), " does not fit the weights, ",
                                   Described(weights), ": there is a scale for all, for each row, ",
                                   blocks));
  }

  // fp8 and int8: the tensor's own name, and its scales'.
  absl::Status Scaled(const std::string& name) {
    const auto it = tensors_.find(name);
    if (it == tensors_.end()) return absl::OkStatus();  // was a part of another
    const SourceTensor weights = it->second;
    const SafetensorsDType dtype = weights.info.dtype;
    const bool is_integer = dtype == SafetensorsDType::kI8;
    if (!is_integer && dtype != SafetensorsDType::kF8E4M3 && dtype != SafetensorsDType::kF8E5M2) {
      return absl::OkStatus();
    }
    std::vector<std::string> parts = {name};
    const SourceTensor* scales = nullptr;
    for (const char* ending : {"_scale_inv", "_scales_inv", "_scale"}) {
      const SourceTensor* found = Companion(name, "", ending);
      if (found == nullptr) continue;
      if (scales != nullptr) {
        return DoesNotFit(absl::StrCat(Described(*found), " and ", Described(*scales),
                                       " are both scales of ", name));
      }
      scales = found;
      parts.push_back(found->info.name);
    }
    // Nothing says what the numbers mean: refused where it is needed, else copied.
    if (scales == nullptr) return absl::OkStatus();
    const std::vector<int64_t>& shape = weights.info.shape;
    if (shape.size() < 2 || weights.info.num_elements() == 0) {
      return DoesNotFit(absl::StrCat(Described(weights), " has scales, but is no matrix"));
    }
    UQ_RETURN_IF_ERROR(CheckScales(weights, *scales));
    ScaledMatrices matrices;
    matrices.codes = weights;
    matrices.rows = shape[shape.size() - 2];
    matrices.columns = shape.back();
    matrices.count = weights.info.num_elements() / (matrices.rows * matrices.columns);
    std::string form;
    std::optional<SharedNumbers> shared = Share(*scales, matrices, true, &form);
    if (!shared.has_value()) return WrongScales(weights, *scales);
    matrices.scales = *std::move(shared);
    UQ_RETURN_IF_ERROR(ZeroPoints(name, 0, &matrices, &parts));
    UQ_RETURN_IF_ERROR(ColumnGroups(name, &matrices, &parts));
    SourceTensor tensor = weights;
    tensor.info.dtype = ResultType(*scales);
    tensor.decoder = NewScaledDecoder(std::move(matrices));
    return Replace(parts, std::move(tensor), absl::StrCat(SafetensorsDTypeName(dtype), ", ", form));
  }

  // T_zero_point: one for each scale, stored one by one or packed along the rows.
  absl::Status ZeroPoints(const std::string& name, int packed_bits, ScaledMatrices* matrices,
                          std::vector<std::string>* parts) const {
    const SourceTensor* found = Companion(name, "", "_zero_point");
    if (found == nullptr) return absl::OkStatus();
    const bool packed = packed_bits > 0 && found->info.dtype == SafetensorsDType::kI32;
    SharedNumbers zeros = matrices->scales;
    zeros.tensor = *found;
    zeros.packed_bits = packed ? packed_bits : 0;
    std::vector<int64_t> shape = matrices->scales.tensor.info.shape;
    if (packed) shape = {CeilDiv(zeros.rows, 32 / packed_bits), zeros.columns};
    const bool readable =
        packed || found->info.dtype == SafetensorsDType::kI8 || IsFullPrecision(found->info.dtype);
    if (!readable || found->info.shape != shape) {
      return DoesNotFit(absl::StrCat(Described(*found), " does not fit the scales, ",
                                     Described(matrices->scales.tensor), ": it must be ",
                                     packed ? "I32 " : "I8 ", ShapeText(shape)));
    }
    parts->push_back(found->info.name);
    matrices->zero_points = std::move(zeros);
    return absl::OkStatus();
  }

  absl::Status ColumnGroups(const std::string& name, ScaledMatrices* matrices,
                            std::vector<std::string>* parts) const {
    const SourceTensor* found = Companion(name, "", "_g_idx");
    if (found == nullptr) return absl::OkStatus();
    if (found->info.dtype != SafetensorsDType::kI32 ||
        found->info.shape != std::vector<int64_t>{matrices->columns}) {
      return DoesNotFit(absl::StrCat(Described(*found), " must be I32 [", matrices->columns,
                                     "], the group of each column"));
    }
    parts->push_back(found->info.name);
    if (matrices->scales.columns > 1) matrices->column_groups = *found;
    return absl::OkStatus();
  }

  // compressed-tensors' packed integers; `packed` is "….weight_packed".
  absl::Status Packed(const std::string& packed) {
    const std::string name(absl::StripSuffix(packed, "_packed"));
    const SourceTensor words = tensors_[packed];
    const SourceTensor* scales = Companion(name, "", "_scale");
    const SourceTensor* shape = Companion(name, "", "_shape");
    if (scales == nullptr || shape == nullptr) {
      return DoesNotFit(
          absl::StrCat(Described(words), " lacks ", name, scales == nullptr ? "_scale" : "_shape"));
    }
    UQ_RETURN_IF_ERROR(CheckScales(words, *scales));
    if (words.info.dtype != SafetensorsDType::kI32 || words.info.shape.size() != 2) {
      return DoesNotFit(absl::StrCat(Described(words), " must be I32 [rows, words]"));
    }
    ScaledMatrices matrices;
    matrices.rows = words.info.shape[0];
    UQ_RETURN_IF_ERROR(FindColumns(words, *scales, *shape, &matrices));
    std::vector<std::string> parts = {packed, scales->info.name, shape->info.name};
    matrices.codes = words;
    std::string form;
    std::optional<SharedNumbers> shared = Share(*scales, matrices, true, &form);
    if (!shared.has_value()) return WrongScales(words, *scales);
    matrices.scales = *std::move(shared);
    UQ_RETURN_IF_ERROR(ZeroPoints(name, matrices.packed_bits, &matrices, &parts));
    UQ_RETURN_IF_ERROR(ColumnGroups(name, &matrices, &parts));
    UQ_RETURN_IF_ERROR(CheckScheme(words, matrices));
    SourceTensor tensor;
    tensor.file = words.file;
    tensor.info.name = name;
    tensor.info.dtype = ResultType(*scales);
    tensor.info.shape = {matrices.rows, matrices.columns};
    const std::string text = absl::StrCat(matrices.packed_bits, "-bit integers in words, ", form,
                                          matrices.zero_points.has_value() ? ", zero points" : "");
    tensor.decoder = NewScaledDecoder(std::move(matrices));
    return Replace(parts, std::move(tensor), text);
  }

  // How many numbers a row's words hold, and of how many bits. Groups of columns say it; a scale a
  // row does not, and the numbers of weight_shape are read. (Reading them always would be a request
  // for each of the tens of thousands of matrices of a model with many experts.)
  absl::Status FindColumns(const SourceTensor& words, const SourceTensor& scales,
                           const SourceTensor& shape, ScaledMatrices* matrices) const {
    if (shape.info.shape != std::vector<int64_t>{2}) {
      return DoesNotFit(absl::StrCat(Described(shape), " must hold two integers"));
    }
    const int64_t num_words = words.info.shape[1];
    const bool grouped = scales.info.shape.size() == 2 && scales.info.shape[1] > 1;
    int64_t rows = matrices->rows, columns = 0;
    if (!grouped) UQ_RETURN_IF_ERROR(ReadShape(shape, &rows, &columns));
    for (const SourceQuantization::Scheme& scheme : quantization_.schemes) {
      const int64_t here = grouped ? scales.info.shape[1] * scheme.group_size : columns;
      if (scheme.is_float || here < 1 || (grouped && scheme.group_size < 1) ||
          num_words != CeilDiv(here, 32 / scheme.bits)) {
        continue;
      }
      matrices->packed_bits = scheme.bits;
      matrices->columns = here;
    }
    if (matrices->packed_bits > 0 && rows == matrices->rows) return absl::OkStatus();
    return DoesNotFit(absl::StrCat(Described(words), " and ", Described(scales), " are no matrix ",
                                   grouped ? "" : absl::StrCat("[", rows, ", ", columns, "] "),
                                   "of one of the config_groups of config.json"));
  }

  static absl::Status ReadShape(const SourceTensor& shape, int64_t* rows, int64_t* columns) {
    int64_t sizes[2] = {0, 0};
    UQ_RETURN_IF_ERROR(shape.file->ReadInt64(shape.info, sizes));
    if (sizes[0] < 1 || sizes[1] < 1 || sizes[0] > kMaxVocab || sizes[1] > kMaxVocab) {
      return DoesNotFit(absl::StrCat(Described(shape), " holds ", sizes[0], " and ", sizes[1],
                                     ", which is no matrix"));
    }
    *rows = sizes[0];
    *columns = sizes[1];
    return absl::OkStatus();
  }

  // What the tensors look like must be something that config.json knows of.
  absl::Status CheckScheme(const SourceTensor& words, const ScaledMatrices& matrices) const {
    const int64_t group_size =
        matrices.scales.columns == 1 ? 0 : matrices.columns / matrices.scales.columns;
    for (const SourceQuantization::Scheme& scheme : quantization_.schemes) {
      const bool one_group = scheme.group_size == matrices.columns && group_size == 0;
      if (scheme.is_float || scheme.bits != matrices.packed_bits ||
          (!scheme.symmetric && !matrices.zero_points.has_value()) ||
          (scheme.group_size != group_size && !one_group)) {
        continue;
      }
      return absl::OkStatus();
    }
    return DoesNotFit(absl::StrCat(
        Described(words), " holds integers of ", matrices.packed_bits, " bits, ",
        group_size == 0 ? "a scale a row" : absl::StrCat("a scale for ", group_size, " columns"),
        matrices.zero_points.has_value() ? ", with zero points" : ", without zero points",
        ", which is none of the config_groups of config.json"));
  }

  absl::Status Microscaled(const std::string& blocks_name) {
    const SourceTensor blocks = tensors_[blocks_name];
    const SourceTensor scales = *Companion(blocks_name, "_blocks", "_scales");
    const std::vector<int64_t>& shape = blocks.info.shape;
    if (blocks.info.dtype != SafetensorsDType::kU8 || shape.size() != 4 ||
        shape[3] != kMicroscalingGroup / 2 || blocks.info.num_elements() == 0) {
      return DoesNotFit(absl::StrCat(Described(blocks), " must be U8 [experts, rows, groups, 16]"));
    }
    const std::vector<int64_t> expected = {shape[0], shape[1], shape[2]};
    if ((scales.info.dtype != SafetensorsDType::kU8 &&
         scales.info.dtype != SafetensorsDType::kF8E8M0) ||
        scales.info.shape != expected) {
      return DoesNotFit(absl::StrCat(Described(scales), " does not fit ", Described(blocks),
                                     ": it must be U8 ", ShapeText(expected)));
    }
    MicroscaledStack stack;
    stack.experts = shape[0];
    stack.rows = shape[1];
    stack.columns = shape[2] * kMicroscalingGroup;
    stack.blocks = blocks;
    stack.scales = scales;
    SourceTensor tensor;
    tensor.file = blocks.file;
    tensor.info.name = std::string(absl::StripSuffix(blocks_name, "_blocks"));
    tensor.info.dtype = SafetensorsDType::kBF16;
    tensor.info.shape = {stack.experts, stack.columns, stack.rows};
    tensor.decoder = NewMicroscaledDecoder(std::move(stack));
    return Replace({blocks_name, scales.info.name}, std::move(tensor),
                   "mxfp4, a scale for 32 columns of a row, transposed");
  }

  void RemoveOtherScales() {  // of what goes into a layer, comes out of it or is cached
    constexpr const char* kEndings[] = {
        ".input_scale",       ".activation_scale",       ".output_scale", ".input_zero_point",
        ".output_zero_point", ".input_scale_ub",         ".k_scale",      ".v_scale",
        ".q_scale",           ".input_global_scale",     ".prob_scale",   ".k_zero_point",
        ".v_zero_point",      ".kv_cache_scaling_factor"};
    for (auto it = tensors_.begin(); it != tensors_.end();) {
      const bool removed =
          it->second.info.num_elements() <= kMaxHeads &&
          std::any_of(std::begin(kEndings), std::end(kEndings),
                      [&](const char* ending) { return absl::EndsWith(it->first, ending); });
      it = removed ? tensors_.erase(it) : std::next(it);
    }
  }

  const SourceQuantization& quantization_;
  TensorMap& tensors_;
  std::vector<ManifestDequantized> done_;
};

}  // namespace

absl::StatusOr<std::vector<ManifestDequantized>> DequantizeTensors(
    const SourceQuantization& quantization, TensorMap* tensors) {
  return Dequantizer(quantization, tensors).Run();
}

}  // namespace uniquanf
