#include "worker/task/self_tokens.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/base/crash_point.h"
#include "common/base/digest.h"
#include "common/base/status.h"
#include "worker/generate/self_text.h"
#include "worker/generate/special_tokens.h"
#include "worker/task/content_store.h"
#include "worker/task/task_context.h"

namespace uniquanf {
namespace {

constexpr uint64_t kSha256HexBytes = 64;
constexpr uint64_t kMaxBatchBytes = uint64_t{1} << 30;
constexpr int64_t kBatch = SelfTextWriter::kBatch;

// What the tokens depend on.
std::string Fingerprint(const Plan& plan, const SelfTextOptions& options) {
  Sha256 sha256;
  for (const std::string& part :
       {plan.device, plan.arithmetic, plan.config_sha256, plan.tensors_sha256,
        absl::StrCat("self text 1 ", options.sequence_length, " ", options.seed, " ", options.begin,
                     " ", options.corpus_length),
        TokensToBytes(options.corpus)}) {
    sha256.Update(absl::StrCat(part.size(), ":"));
    sha256.Update(part);
  }
  return sha256.FinishHex();
}

// A batch that an earlier attempt wrote; empty: none did, or it was lost.
absl::StatusOr<std::vector<int32_t>> FindBatch(ObjectStore* work, const std::string& note,
                                               int64_t num_tokens) {
  const absl::StatusOr<std::string> digest = work->Read(note, kSha256HexBytes);
  if (absl::IsNotFound(digest.status())) return std::vector<int32_t>();
  UQ_RETURN_IF_ERROR(digest.status());
  if (digest->size() != kSha256HexBytes) return std::vector<int32_t>();
  const absl::StatusOr<std::string> bytes = GetContent(work, *digest, kMaxBatchBytes);
  if (!bytes.ok()) {
    if (absl::IsNotFound(bytes.status()) || absl::IsDataLoss(bytes.status())) {
      return std::vector<int32_t>();
    }
    return bytes.status();
  }
  std::vector<int32_t> ids = TokensFromBytes(*bytes);
  if (static_cast<int64_t>(ids.size()) != num_tokens) ids.clear();
  return ids;
}

absl::Status WriteNote(ObjectStore* work, const std::string& note, const std::string& digest) {
  UQ_ASSIGN_OR_RETURN(const std::unique_ptr<ObjectWriter> writer,
                      work->NewWriter(note, WriteOptions()));
  UQ_RETURN_IF_ERROR(writer->Append(digest));
  return writer->Commit();
}

}  // namespace

absl::StatusOr<std::vector<int32_t>> WriteSelfTokens(const Plan& plan, const Checkpoint& checkpoint,
                                                     const CalibrationTokens& calibration,
                                                     int64_t sequence_length,
                                                     const TaskEnvironment& env) {
  const int64_t num_batches = (plan.spec.self_samples + kBatch - 1) / kBatch;
  SelfTextOptions options;
  options.sequence_length = sequence_length;
  options.seed = plan.spec.seed;
  options.corpus = calibration.ids;
  options.corpus_length = calibration.sequence_length;
  UQ_ASSIGN_OR_RETURN(const BoundaryTokens special,
                      ReadSpecialTokens(checkpoint.store().get(), checkpoint.config_json(),
                                        checkpoint.config().vocab_size));
  options.begin = special.begin;
  options.stop = env.stop;
  const std::string fingerprint = Fingerprint(plan, options);

  std::unique_ptr<ResidentModel> model;  // both loaded when the first batch is missing
  std::unique_ptr<SelfTextWriter> writer;
  std::vector<int32_t> all;
  for (int64_t batch = 0; batch < num_batches; ++batch) {
    ReportProgress(env, "writing text", batch, num_batches);
    const std::string note = absl::StrFormat("self-text/%s-%06d", fingerprint, batch);
    UQ_ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                        FindBatch(env.work.get(), note, kBatch * sequence_length));
    if (ids.empty()) {
      if (writer == nullptr) {
        ResidentOptions resident;
        resident.act = env.act;
        resident.stop = env.stop;
        UQ_ASSIGN_OR_RETURN(model, ResidentModel::Load(env.backend, checkpoint, resident));
        UQ_ASSIGN_OR_RETURN(writer, SelfTextWriter::Create(model.get(), options));
      }
      UQ_ASSIGN_OR_RETURN(ids, writer->WriteBatch(batch));
      UQ_ASSIGN_OR_RETURN(const std::string digest, PutContent(env.work.get(), TokensToBytes(ids)));
      UQ_RETURN_IF_ERROR(WriteNote(env.work.get(), note, digest));
      UQ_CRASH_POINT("prepare.text_stored");
    }
    all.insert(all.end(), ids.begin(), ids.end());
  }
  all.resize(plan.spec.self_samples * sequence_length);
  return all;
}

}  // namespace uniquanf
